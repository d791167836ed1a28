/** From the times of many answers to the figures that tell how a server felt. */
import type { StreamedAnswer } from './streamed-answer.js';

export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export interface LoadFigures {
  /** Answers that came whole, that were turned away with 429 or 503, and that failed. */
  readonly answered: number;
  readonly rejected: number;
  readonly failed: number;
  readonly statuses: Readonly<Record<string, number>>;
  /** The first failure, in the server's words. */
  readonly firstError: string | null;
  readonly seconds: number;
  readonly tokens: number;
  /** Of all streams together. */
  readonly tokensPerSecond: number;
  readonly requestsPerSecond: number;
  /** Milliseconds from the request to the first text, and between two texts of one answer. */
  readonly ttftMs: Spread | null;
  readonly interTokenMs: Spread | null;
}

/** An answer and when it was asked for. */
export interface TimedAnswer {
  readonly askedMs: number;
  readonly answer: StreamedAnswer;
}

export const isRejected = ({ status }: StreamedAnswer): boolean => status === 429 || status === 503;
const isWhole = ({ status, error }: StreamedAnswer): boolean => status === 200 && error === null;

/** @param seconds from the first request to the last byte. */
export function loadFigures(timed: readonly TimedAnswer[], seconds: number): LoadFigures {
  const statuses: Record<string, number> = {};
  const firsts: number[] = [];
  const gaps: number[] = [];
  let tokens = 0;
  let firstError: string | null = null;
  for (const { askedMs, answer } of timed) {
    statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
    const { timesMs } = answer;
    if (timesMs.length > 0) firsts.push(timesMs[0]! - askedMs);
    for (let i = 1; i < timesMs.length; ++i) gaps.push(timesMs[i]! - timesMs[i - 1]!);
    tokens += answer.completionTokens ?? timesMs.length;
    if (!isRejected(answer)) firstError ??= answer.error;
  }
  const answers = timed.map(({ answer }) => answer);
  const answered = answers.filter(isWhole).length;
  const rejected = answers.filter(isRejected).length;
  return {
    answered,
    rejected,
    failed: timed.length - answered - rejected,
    statuses,
    firstError,
    seconds: round(seconds),
    tokens,
    tokensPerSecond: round(tokens / seconds),
    requestsPerSecond: round(answered / seconds),
    ttftMs: spread(firsts),
    interTokenMs: spread(gaps),
  };
}

/** Null of nothing. Percentiles are values that occurred: the least that so many are not above. */
export function spread(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => round(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!);
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}

/** Four digits: what is beyond them is noise. */
const round = (value: number): number => (Number.isFinite(value) ? Number(value.toPrecision(4)) : 0);
