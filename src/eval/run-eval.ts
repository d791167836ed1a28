/** One evaluation: what was asked for is measured in one walk over the sequences, each computed once. */

import { MoestroError } from '../errors.js';
import type { TextModel } from '../text/types.js';
import { forEachConcurrent } from './concurrent.js';
import { rowOf } from './distribution.js';
import { DivergenceMeter } from './divergence.js';
import type { Evaluator } from './evaluator.js';
import { chunkTokens, PerplexityMeter, scoredRows } from './perplexity.js';
import { askQuestions, type Question } from './questions.js';
import { type ReferenceReader, ReferenceWriter } from './reference-file.js';

/** A model with its text side. */
export interface EvaluatedModel {
  readonly evaluator: Evaluator;
  readonly text: TextModel;
  /** The token each sequence of the model begins with, or null. */
  readonly bos: number | null;
}

export interface EvalRequest {
  readonly questions: readonly Question[] | null;
  readonly prose: string | null;
  /** Tokens of a chunk, and chunks at most (null for all). */
  readonly context: number;
  readonly chunks: number | null;
  readonly reference: ReferenceReader | null;
  readonly against: Evaluator | null;
  /** Where to save the distributions of the scored positions; null for nowhere. */
  readonly saveReference: string | null;
  readonly onProgress: (line: string) => void;
}

export interface EvalResult {
  readonly model: string;
  readonly level: number | 'f32';
  readonly mode: string;
  /** Of all (token, expert) pairs computed for the evaluation. */
  readonly meanBits?: number;
  readonly perplexity?: number;
  readonly accuracy?: Readonly<Record<string, number>>;
  readonly kl?: number;
  readonly top1?: number;
  /** Positions compared, or scored when nothing was compared. */
  readonly positions?: number;
}

interface Work {
  readonly ids: readonly number[];
  readonly begin: number;
  readonly end: number;
  /** Counts towards perplexity. */
  readonly isText: boolean;
  /** Index in the reference file, or null. */
  readonly referenceIndex: number | null;
}

/**
 * Measures what the request names. Without a text, the reference's own sequences serve for perplexity too.
 *
 * @throws {MoestroError} INVALID_REQUEST when models, reference and text do not fit each other.
 */
export async function runEval(model: EvaluatedModel, request: EvalRequest): Promise<EvalResult> {
  const { evaluator } = model;
  const works = planWork(model, request);
  const perplexity = new PerplexityMeter();
  const divergence = new DivergenceMeter();
  const others = [request.reference, request.against].filter((other) => other !== null);
  for (const other of others) {
    if (other.vocabSize !== evaluator.vocabSize) {
      throw new MoestroError(
        'INVALID_REQUEST',
        `Cannot compare logits: the model has ${evaluator.vocabSize} tokens, the other side ${other.vocabSize}`,
      );
    }
  }
  const writer =
    request.saveReference === null ? null : new ReferenceWriter(request.saveReference, evaluator.vocabSize);
  try {
    let done = 0;
    // Results are added in the order of the sequences, whatever order they come in, so that sums repeat exactly.
    let turn = Promise.resolve();
    await forEachConcurrent(works, evaluator.concurrency, async (work) => {
      const before = turn;
      const { promise, resolve } = withResolvers();
      turn = promise;
      try {
        const logits = await evaluator.logits(work.ids, work.begin, work.end);
        const other = await otherLogits(work, request);
        await before;
        if (work.isText) perplexity.add(work.ids, work.begin, logits, evaluator.vocabSize);
        for (let row = 0; other !== null && row < work.end - work.begin; ++row) {
          divergence.add(rowOf(other, row, evaluator.vocabSize), rowOf(logits, row, evaluator.vocabSize));
        }
        writer?.add(work.ids, work.begin, logits);
        const figures = [`${++done}/${works.length} sequences`];
        if (perplexity.result() !== undefined) figures.push(`perplexity ${perplexity.result()!.toFixed(3)}`);
        if (divergence.result() !== undefined) figures.push(`KL ${divergence.result()!.kl.toExponential(3)}`);
        request.onProgress(figures.join('  '));
      } finally {
        resolve();
      }
    });
    writer?.finish();
  } catch (error) {
    writer?.abandon();
    throw error;
  }
  const accuracy =
    request.questions === null
      ? undefined
      : await askQuestions(request.questions, evaluator, model.text, (asked, right) =>
          request.onProgress(`${asked}/${request.questions!.length} questions  ${right} right`),
        );
  const compared = divergence.result();
  const measured = perplexity.result();
  const meanBits = await evaluator.meanBits();
  return {
    model: evaluator.model,
    level: evaluator.level,
    mode: evaluator.mode,
    ...(meanBits === undefined ? {} : { meanBits }),
    ...(measured === undefined ? {} : { perplexity: measured }),
    ...(accuracy === undefined ? {} : { accuracy }),
    ...(compared === undefined ? {} : { kl: compared.kl, top1: compared.top1 }),
    ...(works.length === 0 ? {} : { positions: compared?.positions ?? perplexity.positions }),
  };
}

/** The sequences to compute: chunks of the text, and those of the reference that are not among them. */
function planWork(model: EvaluatedModel, request: EvalRequest): Work[] {
  const references = new Map<string, number>();
  const key = (ids: readonly number[], begin: number) => `${begin}:${ids.join(',')}`;
  for (const [index, entry] of (request.reference?.sequences ?? []).entries()) {
    references.set(key(entry.ids, entry.begin), index);
  }
  const works: Work[] = [];
  if (request.prose !== null) {
    const { begin, end } = scoredRows(request.context);
    // As the tool of perplexity.ts does it: markup written in the text is text.
    const ids = model.text.encode(request.prose, { special: false, addBos: false });
    const all = model.bos === null ? ids : [model.bos, ...ids];
    for (const chunk of chunkTokens(all, request.context, request.chunks, model.bos)) {
      const referenceIndex = references.get(key(chunk, begin)) ?? null;
      references.delete(key(chunk, begin));
      works.push({ ids: chunk, begin, end, isText: true, referenceIndex });
    }
  }
  for (const index of references.values()) {
    const entry = request.reference!.sequences[index]!;
    if (works.filter((work) => work.referenceIndex !== null).length >= (request.chunks ?? Number.POSITIVE_INFINITY)) {
      break;
    }
    const end = entry.begin + entry.rows;
    works.push({
      ids: entry.ids,
      begin: entry.begin,
      end,
      isText: request.prose === null,
      referenceIndex: index,
    });
  }
  const longest = works.reduce((max, work) => Math.max(max, work.ids.length), 0);
  if (longest > model.evaluator.contextLength) {
    throw new MoestroError(
      'CONTEXT_LENGTH_EXCEEDED',
      `Cannot evaluate sequences of ${longest} tokens: the model has room for ${model.evaluator.contextLength}`,
      { found: longest, limit: model.evaluator.contextLength },
    );
  }
  return works;
}

/** The other side's rows for this sequence, or null when it is not compared. A saved reference goes first. */
async function otherLogits(work: Work, request: EvalRequest): Promise<Float32Array | null> {
  if (request.reference !== null && work.referenceIndex !== null) {
    const rows = request.reference.logProbabilities(work.referenceIndex);
    return rows.subarray(0, (work.end - work.begin) * request.reference.vocabSize);
  }
  return request.against === null ? null : request.against.logits(work.ids, work.begin, work.end);
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
