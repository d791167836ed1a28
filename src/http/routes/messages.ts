/** POST /v1/messages and /v1/messages/count_tokens: the API of Anthropic's clients, over the same models. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { MoestroError } from '../../errors.js';
import { unknownProperties } from '../check.js';
import { clientOf } from '../auth.js';
import { clientGone } from '../client-gone.js';
import { modelFor, type ServerDeps, streaming } from '../deps.js';
import { errorBody } from '../errors.js';
import { namedEvent, sendEvents } from '../sse.js';
import { MessageEvents } from '../wire/message-events.js';
import { MESSAGES_SCHEMA, readMessagesRequest } from '../wire/messages.js';

export function messagesRoutes(app: FastifyInstance, deps: ServerDeps): void {
  const prepare = async (request: FastifyRequest, reply: FastifyReply) => {
    const model = await modelFor(deps, request, reply);
    const asked = readMessagesRequest(request.body, model.generator);
    const ignored = unknownProperties(MESSAGES_SCHEMA, request.body as object);
    if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');
    const promptIds = model.generator.promptFromChat(asked.messages, asked.templateKwargs, asked.tools);
    return { model, asked, promptIds };
  };

  app.post('/messages/count_tokens', async (request, reply) => ({
    input_tokens: (await prepare(request, reply)).promptIds.length,
  }));

  app.post('/messages', async (request, reply) => {
    reply.header('request-id', request.id);
    const { model, asked, promptIds } = await prepare(request, reply);
    const signal = clientGone(reply, () => deps.metrics.countCancelled('/messages'));
    const answers = model.generator.start(
      [{ promptIds, options: asked.options, splitsReasoning: true }],
      signal,
      clientOf(request, deps.config.apiKeys.length > 0),
    );
    const message = new MessageEvents(model.id, promptIds.length);
    const events = message.from(answers);
    if (!asked.stream) {
      for await (const _ of events) {
        // The message gathers what the events tell.
      }
      return message.whole();
    }
    await sendEvents(reply as FastifyReply, events, {
      ...streaming(deps),
      signal,
      format: {
        event: namedEvent,
        ping: namedEvent({ type: 'ping' }),
        failure: (error) => namedEvent(messagesError(error)),
        end: '',
      },
    });
    return reply;
  });
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
