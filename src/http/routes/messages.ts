/** POST /v1/messages and /v1/messages/count_tokens: the API of Anthropic's clients, over the same models. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { MoestroError } from '../../errors.js';
import { unknownProperties } from '../check.js';
import { clientOf } from '../auth.js';
import { type Answer, answerRequest } from '../answer.js';
import { modelFor, type ServerDeps } from '../deps.js';
import { errorBody } from '../errors.js';
import type { ServedModel } from '../model-shelf.js';
import { type EventFormat, namedEvent } from '../sse.js';
import { MessageEvents } from '../wire/message-events.js';
import { MESSAGES_SCHEMA, readMessagesRequest } from '../wire/messages.js';

export function messagesRoutes(app: FastifyInstance, deps: ServerDeps): void {
  const prepare = (request: FastifyRequest, { generator }: ServedModel) => {
    const asked = readMessagesRequest(request.body, generator);
    const ignored = unknownProperties(MESSAGES_SCHEMA, request.body as object);
    if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');
    return { asked, promptIds: generator.prompts.fromChat(asked.messages, asked.prompt) };
  };

  app.post('/messages/count_tokens', async (request, reply) => ({
    input_tokens: prepare(request, await modelFor(deps, request, reply)).promptIds.length,
  }));

  app.post('/messages', (request, reply) => {
    reply.header('request-id', request.id);
    const start = (model: ServedModel, signal: AbortSignal): Answer => {
      const { asked, promptIds } = prepare(request, model);
      const answers = model.generator.start(
        [{ promptIds, options: asked.options, splitsReasoning: true, ...asked.continues }],
        signal,
        clientOf(request, deps.config.apiKeys.length > 0),
      );
      const message = new MessageEvents(model.id, promptIds.length, asked.reportsProgress);
      const events = message.from(answers);
      return asked.stream ? { events, format: MESSAGE_EVENTS } : { whole: () => wholeMessage(message, events) };
    };
    return answerRequest(deps, request, reply as FastifyReply, {
      route: '/messages',
      start,
      failure: MESSAGE_EVENTS.failure,
    });
  });
}

async function wholeMessage(message: MessageEvents, events: AsyncIterable<object>): Promise<object> {
  for await (const _ of events) {
    // The message gathers what the events tell.
  }
  return message.whole();
}

/** Names of kinds of errors that differ from OpenAI's. */
const ERROR_TYPES: Readonly<Record<string, string>> = {
  server_error: 'api_error',
  unavailable_error: 'overloaded_error',
};

/** An error as clients of either API read it: Anthropic's `type` beside everything that OpenAI's have. */
export function messagesError(error: MoestroError): { readonly type: 'error'; readonly error: object } {
  const { error: body } = errorBody(error);
  const type = error.code === 'BODY_TOO_LARGE' ? 'request_too_large' : (ERROR_TYPES[body.type] ?? body.type);
  return { type: 'error', error: { ...body, type } };
}

const MESSAGE_EVENTS: EventFormat = {
  event: namedEvent,
  ping: namedEvent({ type: 'ping' }),
  failure: (error) => namedEvent(messagesError(error)),
  end: '',
};
