/** POST /v1/completions: text or token ids in, what follows out, without a chat template. */
import type { FastifyInstance } from 'fastify';
import type { AnswerEvent, AnswerUsage, PromptReport, TokenReport } from '../../answer/types.js';
import type { TextGenerator } from '../../generate.js';
import { type Answer, answerRequest } from '../answer.js';
import { clientOf } from '../auth.js';
import { unknownProperties } from '../check.js';
import type { ServerDeps } from '../deps.js';
import type { ServedModel } from '../model-shelf.js';
import { COMPLETION_EVENTS } from '../sse.js';
import { COMPLETION_SCHEMA, type CompletionRequest, readCompletionRequest } from '../wire/completion.js';
import { type Frame, newFrame } from '../wire/frame.js';
import { completionLogprobs, meanLogprob } from '../wire/logprobs.js';
import { progressBody } from '../wire/progress.js';
import { type Prompt, promptIds } from '../wire/prompts.js';
import { optionsOfChoice } from '../wire/sampling.js';
import { usageBody } from '../wire/usage.js';

type Answers = AsyncIterable<{ readonly index: number; readonly value: AnswerEvent }>;

export function completionsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/completions', (request, reply) => {
    const start = (model: ServedModel, signal: AbortSignal): Answer => {
      const { generator } = model;
      const completion = readCompletionRequest(request.body, generator);
      const ignored = unknownProperties(COMPLETION_SCHEMA, request.body as object);
      if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');

      const jobs = jobsOf(completion, generator);
      const echoes = jobs.map(({ promptIds: ids }, index) => {
        const prompt = completion.prompts[Math.floor(index / completion.drawn)]!;
        return !completion.echo ? '' : typeof prompt === 'string' ? prompt : generator.prompts.textOf(ids);
      });
      const answers = generator.start(jobs, signal, clientOf(request, deps.config.apiKeys.length > 0));
      const frame = newFrame('cmpl', 'text_completion', model);
      if (!completion.stream) return { whole: () => wholeAnswer(answers, frame, completion, echoes) };
      return { events: answerChunks(answers, frame, completion, echoes), format: COMPLETION_EVENTS };
    };
    return answerRequest(deps, request, reply, { route: '/completions', start, failure: COMPLETION_EVENTS.failure });
  });
}

/** Choice k of prompt p has index p * drawn + k. */
function jobsOf({ prompts, suffix, drawn, choices, echo, options }: CompletionRequest, generator: TextGenerator) {
  const wantsLogprobs = options.sampling.topLogprobs !== null;
  // The best of several is the one that the model itself found likeliest.
  const weighed = drawn > choices && !wantsLogprobs ? { ...options.sampling, topLogprobs: 0 } : options.sampling;
  return prompts.flatMap((prompt) => {
    const ids = idsOf(prompt, suffix, generator);
    return Array.from({ length: drawn }, (_, choice) => ({
      promptIds: ids,
      options: optionsOfChoice({ ...options, sampling: weighed }, choice),
      continuesText: true,
      reportsPrompt: echo && wantsLogprobs,
    }));
  });
}

const idsOf = (prompt: Prompt, suffix: string | null, generator: TextGenerator): readonly number[] =>
  suffix !== null && typeof prompt === 'string'
    ? generator.prompts.between(prompt, suffix)
    : promptIds(prompt, generator);

interface Part {
  text: string;
  readonly echoLength: number;
  readonly prompt: PromptReport[];
  readonly tokens: TokenReport[];
  reason: string;
}

async function wholeAnswer(answers: Answers, frame: Frame, request: CompletionRequest, echoes: readonly string[]) {
  const parts = echoes.map((text): Part => ({ text, echoLength: text.length, prompt: [], tokens: [], reason: 'stop' }));
  const usages: AnswerUsage[] = [];
  for await (const { index, value } of answers) {
    const part = parts[index]!;
    if (value.kind === 'prompt') {
      part.prompt.push(...value.tokens);
    } else if (value.kind === 'delta') {
      part.text += value.text;
      part.tokens.push(...value.tokens);
    } else if (value.kind === 'finish') {
      part.reason = value.reason;
      usages.push(value.usage);
    }
  }
  const { topLogprobs } = request.options.sampling;
  const chosen = request.prompts.flatMap((_, p) => best(parts.slice(p * request.drawn), request));
  return {
    ...frame,
    choices: chosen.map(({ text, echoLength, prompt, tokens, reason }, index) => ({
      text,
      index,
      logprobs: topLogprobs === null ? null : completionLogprobs(prompt, tokens, topLogprobs > 0, echoLength),
      finish_reason: reason === 'length' ? 'length' : 'stop',
    })),
    usage: usageBody(usages, request.prompts.length),
  };
}

/** The answers to one prompt, which stand first in `parts`: all that were drawn, or the likeliest of them. */
function best(parts: readonly Part[], { drawn, choices }: CompletionRequest): readonly Part[] {
  const own = parts.slice(0, drawn);
  if (drawn === choices) return own;
  return own.sort((a, b) => meanLogprob(b.tokens) - meanLogprob(a.tokens)).slice(0, choices);
}

async function* answerChunks(
  answers: Answers,
  frame: Frame,
  request: CompletionRequest,
  echoes: readonly string[],
): AsyncGenerator<object, void, void> {
  const { topLogprobs } = request.options.sampling;
  const chunk = (index: number, text: string, logprobs: object | null, reason: string | null) => ({
    ...frame,
    choices: [{ text, index, logprobs, finish_reason: reason }],
  });
  for (const [index, echo] of echoes.entries()) if (echo !== '') yield chunk(index, echo, null, null);
  const usages: AnswerUsage[] = [];
  for await (const { index, value } of answers) {
    if (value.kind === 'prefill') {
      if (request.reportProgress && index === 0) yield { ...frame, choices: [], prompt_progress: progressBody(value) };
    } else if (value.kind === 'prompt') {
      yield chunk(index, '', completionLogprobs(value.tokens, [], (topLogprobs ?? 0) > 0, 0), null);
    } else if (value.kind === 'delta') {
      const echoLength = echoes[index]!.length;
      const logprobs = topLogprobs === null ? null : completionLogprobs([], value.tokens, topLogprobs > 0, echoLength);
      yield chunk(index, value.text, logprobs, null);
    } else if (value.kind === 'finish') {
      usages.push(value.usage);
      yield chunk(index, '', null, value.reason);
    }
  }
  if (request.includeUsage) yield { ...frame, choices: [], usage: usageBody(usages, request.prompts.length) };
}
