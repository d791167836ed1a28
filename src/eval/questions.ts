/**
 * Does the model still know its facts? Questions with one exact answer each, asked through the chat template and answered
 * greedily: right when the answer, stripped, equals the expected one.
 */
import { readFileSync } from 'node:fs';
import { MoestroError } from '../errors.js';
import type { TextModel } from '../text/types.js';
import { forEachConcurrent } from './concurrent.js';
import type { Evaluator } from './evaluator.js';

/** Long enough for every answer of the pocket model's questions; a longer one is wrong anyway. */
const ANSWER_TOKENS_MAX = 32;

export interface Question {
  readonly domain: string;
  readonly question: string;
  readonly answer: string;
}

/**
 * Reads a questions file: JSON lines of {domain, question, answer}. Throws INVALID_REQUEST naming the line,
 * INVALID_CONFIG where there is no such file.
 */
export function readQuestions(path: string): Question[] {
  const questions: Question[] = [];
  for (const [index, line] of readText(path).split('\n').entries()) {
    if (line.trim() === '') continue;
    const refuse = (found: string, cause?: unknown) =>
      new MoestroError(
        'INVALID_REQUEST',
        `Cannot use questions file "${path}": line ${index + 1} ${found}`,
        { path },
        cause,
      );
    let row: { domain?: unknown; question?: unknown; answer?: unknown } | null;
    try {
      row = JSON.parse(line);
    } catch (cause) {
      throw refuse('is not JSON', cause);
    }
    const { domain, question, answer } = row ?? {};
    if (typeof domain !== 'string' || typeof question !== 'string' || typeof answer !== 'string') {
      throw refuse('lacks one of the texts domain, question and answer');
    }
    questions.push({ domain, question, answer });
  }
  if (questions.length === 0) {
    throw new MoestroError('INVALID_REQUEST', `Cannot use questions file "${path}": it is empty`, { path });
  }
  return questions;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MoestroError('INVALID_CONFIG', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
  }
}

/** Asks every question. Returns percent right per domain and of all, rounded to hundredths. */
export async function askQuestions(
  questions: readonly Question[],
  evaluator: Evaluator,
  text: TextModel,
  onAnswer: (done: number, right: number) => void = () => {},
): Promise<Record<string, number>> {
  const byDomain = new Map<string, { asked: number; right: number }>();
  let done = 0;
  let right = 0;
  await forEachConcurrent(questions, evaluator.concurrency, async ({ domain, question, answer }) => {
    const promptIds = text.encodeChat([{ role: 'user', content: question }]);
    const answerIds = await evaluator.answer(promptIds, ANSWER_TOKENS_MAX, text.eosTokenIds);
    const isRight = text.decode(answerIds, { skipSpecial: true }).trim() === answer.trim();
    const tally = byDomain.get(domain) ?? { asked: 0, right: 0 };
    byDomain.set(domain, { asked: tally.asked + 1, right: tally.right + (isRight ? 1 : 0) });
    right += isRight ? 1 : 0;
    onAnswer(++done, right);
  });
  const percent = (count: number, of: number) => Math.round((10_000 * count) / of) / 100;
  const accuracy: Record<string, number> = {};
  for (const domain of [...byDomain.keys()].sort()) {
    const tally = byDomain.get(domain)!;
    accuracy[domain] = percent(tally.right, tally.asked);
  }
  accuracy.all = percent(right, questions.length);
  return accuracy;
}
