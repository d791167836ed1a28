/** How an answer ends, with the engine's word on what it took or without. */
import type { Usage } from '../engine/types.js';
import type { CallWriter } from './calls.js';
import type { AnswerEvent, AnswerUsage } from './types.js';
import type { AnswerWriter } from './writer.js';

/** What was held back of an answer, and its end: by `reason` unless a stop text or calls say otherwise. */
export function* ending(
  writer: AnswerWriter,
  calls: CallWriter | null,
  reason: 'stop' | 'length',
  usage: Usage,
): Generator<AnswerEvent, void, void> {
  const rest = writer.isStopped ? null : writer.end();
  if (rest !== null) yield* calls === null ? [rest] : calls.push(rest);
  if (calls !== null) yield* calls.flush();
  const ended = writer.isStopped ? 'stop' : reason;
  const told = calls?.reason(ended) ?? ended;
  yield { kind: 'finish', reason: told, usage: { ...usage, reasoningTokens: 0 }, stop: writer.stop };
}

/** What is known of an answer without the engine's word: its tokens. The rest is NaN, which JSON writes as null. */
export function usageUntil(promptTokens: number, completionTokens: number): AnswerUsage {
  return {
    reasoningTokens: 0,
    promptTokens,
    completionTokens,
    cachedTokens: 0,
    meanBits: Number.NaN,
    shareBelowFullLevel: Number.NaN,
    bytesRead: Number.NaN,
    stallMs: Number.NaN,
    queueMs: Number.NaN,
    prefillMs: Number.NaN,
    decodeMs: Number.NaN,
  };
}
