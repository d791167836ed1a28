/** POST /v1/chat/completions: messages in, an answer out, whole or as a stream. */
import type { FastifyInstance } from 'fastify';
import type { AnswerEvent, AnswerUsage, TokenReport } from '../../answer/types.js';
import { type Answer, answerRequest } from '../answer.js';
import { clientOf } from '../auth.js';
import { unknownProperties } from '../check.js';
import type { ServerDeps } from '../deps.js';
import type { ServedModel } from '../model-shelf.js';
import { COMPLETION_EVENTS } from '../sse.js';
import { CHAT_SCHEMA, type ChatRequest, readChatRequest } from '../wire/chat.js';
import { type Frame, newFrame } from '../wire/frame.js';
import { chatLogprobs } from '../wire/logprobs.js';
import { progressBody } from '../wire/progress.js';
import { optionsOfChoice } from '../wire/sampling.js';
import { usageBody } from '../wire/usage.js';

type Answers = AsyncIterable<{ readonly index: number; readonly value: AnswerEvent }>;

export function chatCompletionsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/chat/completions', (request, reply) => {
    const start = (model: ServedModel, signal: AbortSignal): Answer => {
      const { generator } = model;
      const chat = readChatRequest(request.body, generator);
      const ignored = unknownProperties(CHAT_SCHEMA, request.body as object);
      if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');

      const { messages, templateKwargs: kwargs, tools, end } = chat;
      const promptIds = generator.prompts.fromChat(messages, { kwargs, tools, end });
      const jobs = Array.from({ length: chat.choices }, (_, choice) => ({
        promptIds,
        options: optionsOfChoice(chat.options, choice),
        splitsReasoning: chat.splitsReasoning,
        ...(end === 'inMessage' ? { continued: messages.at(-1)!.content ?? '' } : {}),
      }));
      const answers = generator.start(jobs, signal, clientOf(request, deps.config.apiKeys.length > 0));
      if (!chat.stream)
        return { whole: () => wholeAnswer(answers, newFrame('chatcmpl', 'chat.completion', model), chat) };
      const events = answerChunks(answers, newFrame('chatcmpl', 'chat.completion.chunk', model), chat);
      return { events, format: COMPLETION_EVENTS };
    };
    return answerRequest(deps, request, reply, {
      route: '/chat/completions',
      start,
      failure: COMPLETION_EVENTS.failure,
    });
  });
}

async function wholeAnswer(answers: Answers, frame: Frame, chat: ChatRequest) {
  const parts = Array.from({ length: chat.choices }, () => ({
    content: '',
    reasoning: '',
    tokens: [] as TokenReport[],
    calls: [] as { id: string; type: 'function'; function: { name: string; arguments: string } }[],
    reason: 'stop' as 'stop' | 'length' | 'toolCalls',
  }));
  const usages: AnswerUsage[] = [];
  for await (const { index, value } of answers) {
    const part = parts[index]!;
    if (value.kind === 'delta' || value.kind === 'reasoning') {
      if (value.kind === 'delta') part.content += value.text;
      else part.reasoning += value.text;
      part.tokens.push(...value.tokens);
    } else if (value.kind === 'toolCall') {
      part.calls.push({ id: value.id, type: 'function', function: { name: value.name, arguments: '' } });
    } else if (value.kind === 'toolArguments') {
      part.calls[value.call]!.function.arguments += value.text;
    } else if (value.kind === 'finish') {
      part.reason = value.reason;
      usages.push(value.usage);
    }
  }
  const wantsLogprobs = chat.options.sampling.topLogprobs !== null;
  return {
    ...frame,
    choices: parts.map(({ content, reasoning, tokens, calls, reason }, index) => ({
      index,
      message: {
        role: 'assistant',
        // An answer that is nothing but calls has no content.
        content: calls.length > 0 && content === '' ? null : content,
        refusal: null,
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
        ...(calls.length === 0 ? {} : { tool_calls: calls }),
      },
      logprobs: wantsLogprobs ? chatLogprobs(tokens) : null,
      finish_reason: finishReason(reason),
    })),
    usage: usageBody(usages),
  };
}

const finishReason = (reason: 'stop' | 'length' | 'toolCalls'): string =>
  reason === 'toolCalls' ? 'tool_calls' : reason;

/** Chunks of a stream: role, text, finish of each choice, then the usage when it was asked for. */
async function* answerChunks(answers: Answers, frame: Frame, chat: ChatRequest): AsyncGenerator<object, void, void> {
  const wantsLogprobs = chat.options.sampling.topLogprobs !== null;
  const chunk = (index: number, delta: object, reason: string | null = null, tokens: readonly TokenReport[] = []) => ({
    ...frame,
    choices: [
      {
        index,
        delta,
        logprobs: wantsLogprobs && tokens.length > 0 ? chatLogprobs(tokens) : null,
        finish_reason: reason,
      },
    ],
  });
  const hasBegun = new Set<number>();
  const usages: AnswerUsage[] = [];
  for await (const { index, value } of answers) {
    if (value.kind === 'prefill') {
      if (chat.reportProgress && index === 0) yield { ...frame, choices: [], prompt_progress: progressBody(value) };
      continue;
    }
    if (value.kind === 'prompt') continue;
    if (!hasBegun.has(index)) {
      hasBegun.add(index);
      yield chunk(index, { role: 'assistant', content: '' });
    }
    if (value.kind === 'reasoning') {
      yield chunk(index, { reasoning_content: value.text }, null, value.tokens);
    } else if (value.kind === 'delta') {
      yield chunk(index, { content: value.text }, null, value.tokens);
    } else if (value.kind === 'toolCall') {
      const { call, id, name } = value;
      yield chunk(index, { tool_calls: [{ index: call, id, type: 'function', function: { name, arguments: '' } }] });
    } else if (value.kind === 'toolArguments') {
      yield chunk(index, { tool_calls: [{ index: value.call, function: { arguments: value.text } }] });
    } else {
      usages.push(value.usage);
      yield chunk(index, {}, finishReason(value.reason));
    }
  }
  if (chat.includeUsage) yield { ...frame, choices: [], usage: usageBody(usages) };
}
