/** POST /v1/responses: OpenAI's newer way to ask, without anything stored between requests. */
import type { FastifyInstance } from 'fastify';
import type { Message } from '../../answer/types.js';
import type { MoestroError } from '../../errors.js';
import { type Answer, answerRequest } from '../answer.js';
import { clientOf } from '../auth.js';
import { unknownProperties } from '../check.js';
import type { ServerDeps } from '../deps.js';
import { errorBody } from '../errors.js';
import type { ServedModel } from '../model-shelf.js';
import { namedEvent, PING_COMMENT } from '../sse.js';
import { ResponseEvents } from '../wire/response-events.js';
import { RESPONSES_SCHEMA, readResponsesRequest } from '../wire/responses.js';
import { newestTurns } from '../wire/truncation.js';

export function responsesRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/responses', (request, reply) => {
    const start = ({ id, generator }: ServedModel, signal: AbortSignal): Answer => {
      const asked = readResponsesRequest(request.body, generator);
      const ignored = unknownProperties(RESPONSES_SCHEMA, request.body as object);
      if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');

      const { messages, templateKwargs: kwargs, tools, options } = asked;
      const promptOf = (some: readonly Message[]) =>
        generator.prompts.fromChat(some, { kwargs, tools, param: 'input' });
      const room = { contextLength: generator.info.contextLength, answerTokens: options.maxTokens };
      const promptIds = asked.truncates ? newestTurns(messages, promptOf, room) : promptOf(messages);
      const answers = generator.start(
        [{ promptIds, options, splitsReasoning: true }],
        signal,
        clientOf(request, deps.config.apiKeys.length > 0),
      );
      const response = new ResponseEvents(asked, id);
      const events = response.from(answers);
      if (!asked.stream) return { whole: () => wholeResponse(events) };
      const failure = (error: MoestroError) => namedEvent(response.failed(error));
      return { events, format: { event: namedEvent, ping: PING_COMMENT, failure, end: '' } };
    };
    return answerRequest(deps, request, reply, { route: '/responses', start, failure: failedBefore });
  });
}

async function wholeResponse(events: AsyncIterable<object>): Promise<object> {
  let last: object = {};
  for await (const event of events) last = event;
  return (last as { readonly response: object }).response;
}

/** There is no response yet that could have failed. Clients differ in whether they look for `error` or for what is in it. */
function failedBefore(failed: MoestroError): string {
  const { error } = errorBody(failed);
  const { code, message, param } = error;
  return namedEvent({ type: 'error', sequence_number: 0, code, message, param, error });
}
