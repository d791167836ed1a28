/** POST /v1/responses: OpenAI's newer way to ask, without anything stored between requests. */
import type { FastifyInstance } from 'fastify';
import { unknownProperties } from '../check.js';
import { clientOf } from '../auth.js';
import { clientGone } from '../client-gone.js';
import { modelFor, type ServerDeps, streaming } from '../deps.js';
import { namedEvent, PING_COMMENT, sendEvents } from '../sse.js';
import { ResponseEvents } from '../wire/response-events.js';
import { RESPONSES_SCHEMA, readResponsesRequest } from '../wire/responses.js';

export function responsesRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/responses', async (request, reply) => {
    const { id, generator } = await modelFor(deps, request, reply);
    const asked = readResponsesRequest(request.body, generator);
    const ignored = unknownProperties(RESPONSES_SCHEMA, request.body as object);
    if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');

    const promptIds = generator.promptFromChat(asked.messages, asked.templateKwargs, asked.tools, 'input');
    const signal = clientGone(reply, () => deps.metrics.countCancelled('/responses'));
    const answers = generator.start(
      [{ promptIds, options: asked.options, splitsReasoning: true }],
      signal,
      clientOf(request, deps.config.apiKeys.length > 0),
    );
    const response = new ResponseEvents(asked, id);
    const events = response.from(answers);
    if (!asked.stream) {
      let last: object = {};
      for await (const event of events) last = event;
      return (last as { readonly response: object }).response;
    }
    await sendEvents(reply, events, {
      ...streaming(deps),
      signal,
      format: {
        event: namedEvent,
        ping: PING_COMMENT,
        failure: (error) => namedEvent(response.failed(error)),
        end: '',
      },
    });
    return reply;
  });
}
