/** POST /v1/completions: text or token ids in, what follows out, without a chat template. */
import type { FastifyInstance } from 'fastify';
import type { AnswerEvent, AnswerUsage, TextGenerator, TokenReport } from '../../generate.js';
import { unknownProperties } from '../check.js';
import { clientGone } from '../client-gone.js';
import { loadedModel, type ServerDeps, streaming } from '../deps.js';
import { COMPLETION_EVENTS, sendEvents } from '../sse.js';
import { COMPLETION_SCHEMA, type CompletionRequest, type Prompt, readCompletionRequest } from '../wire/completion.js';
import { type Frame, newFrame } from '../wire/frame.js';
import { completionLogprobs } from '../wire/logprobs.js';
import { optionsOfChoice } from '../wire/sampling.js';
import { usageBody } from '../wire/usage.js';

type Answers = AsyncIterable<{ readonly index: number; readonly value: AnswerEvent }>;

export function completionsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/completions', async (request, reply) => {
    const model = loadedModel(deps);
    const { generator } = model;
    const completion = readCompletionRequest(request.body, generator);
    const ignored = unknownProperties(COMPLETION_SCHEMA, request.body as object);
    if (ignored.length > 0) request.log.debug({ ignored }, 'fields that are not known here');

    const prompts = completion.prompts.map((prompt) => idsOf(prompt, generator));
    // Choice k of prompt p has index p * choices + k.
    const jobs = prompts.flatMap((promptIds) =>
      Array.from({ length: completion.choices }, (_, choice) => ({
        promptIds,
        options: optionsOfChoice(completion.options, choice),
        continuesText: true,
      })),
    );
    const echoes = jobs.map((job, index) => {
      const prompt = completion.prompts[Math.floor(index / completion.choices)]!;
      return !completion.echo ? '' : typeof prompt === 'string' ? prompt : generator.textOf(job.promptIds);
    });
    const signal = clientGone(reply, () => deps.metrics.countCancelled('/completions'));
    const answers = generator.start(jobs, signal);
    const frame = newFrame('cmpl', 'text_completion', model);
    if (!completion.stream) return wholeAnswer(answers, frame, completion, echoes);
    const chunks = answerChunks(answers, frame, completion, echoes);
    await sendEvents(reply, chunks, { ...streaming(deps), format: COMPLETION_EVENTS, signal });
    return reply;
  });
}

const idsOf = (prompt: Prompt, generator: TextGenerator): readonly number[] =>
  typeof prompt === 'string' ? generator.promptFromText(prompt) : generator.promptFromIds(prompt);

async function wholeAnswer(answers: Answers, frame: Frame, request: CompletionRequest, echoes: readonly string[]) {
  const parts = echoes.map((text) => ({
    text,
    tokens: [] as TokenReport[],
    reason: 'stop' as 'stop' | 'length' | 'toolCalls',
  }));
  const usages: AnswerUsage[] = [];
  for await (const { index, value } of answers) {
    const part = parts[index]!;
    if (value.kind === 'delta') {
      part.text += value.text;
      part.tokens.push(...value.tokens);
    } else if (value.kind === 'finish') {
      part.reason = value.reason;
      usages.push(value.usage);
    }
  }
  const { topLogprobs } = request.options.sampling;
  return {
    ...frame,
    choices: parts.map(({ text, tokens, reason }, index) => ({
      text,
      index,
      logprobs: topLogprobs === null ? null : completionLogprobs(tokens, topLogprobs > 0),
      finish_reason: reason === 'length' ? 'length' : 'stop',
    })),
    usage: usageBody(usages, request.prompts.length),
  };
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
    if (value.kind === 'delta') {
      const logprobs = topLogprobs === null ? null : completionLogprobs(value.tokens, topLogprobs > 0);
      yield chunk(index, value.text, logprobs, null);
    } else if (value.kind === 'finish') {
      usages.push(value.usage);
      yield chunk(index, '', null, value.reason);
    }
  }
  if (request.includeUsage) yield { ...frame, choices: [], usage: usageBody(usages, request.prompts.length) };
}
