/** The end of a step: logits where they are needed, a token from each, and the ends of sequences. */
import type { Matcher } from '../constrain/matcher.js';
import { MoestroError } from '../errors.js';
import type { NativeEngine } from '../native/binding.js';
import type { Batch } from './batch.js';
import type { EngineSink } from './engine-sink.js';
import type { Evaluation } from './evaluation.js';
import type { OpenSequences } from './open-sequences.js';
import type { PooledStates } from './pooled-states.js';
import { tokenLogprobs } from './sampler.js';
import type { Sequence } from './sequence.js';
import type { EngineEvent, PromptToken } from './types.js';

export interface RowFinisherParts {
  readonly native: NativeEngine;
  readonly open: OpenSequences;
  readonly sink: EngineSink;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Positions of one sequence at most: fewer while memory is short. */
  readonly contextLength: () => number;
  /** Tokens of one step, and rows of logits asked for at once, at most. */
  readonly chunkTokens: number;
  readonly maxLogitRows: number;
  readonly now: () => number;
}

export class RowFinisher {
  readonly #parts: RowFinisherParts;
  readonly #logits: Float32Array;
  readonly #logitRows: Int32Array;
  /** Apart from #logitRows, which gathers while evaluations, embeddings and reports of prompts of the same step already ask for theirs. */
  readonly #evaluationRows: Int32Array;
  /** Sequences of this step that get a token. */
  readonly #sampled: Sequence[] = [];

  constructor(parts: RowFinisherParts) {
    this.#parts = parts;
    this.#logits = new Float32Array(Math.max(parts.maxLogitRows * parts.vocabSize, parts.hiddenSize));
    this.#logitRows = new Int32Array(parts.chunkTokens);
    this.#evaluationRows = new Int32Array(Math.max(parts.maxLogitRows, this.#stateRows()));
  }

  /** Logits where they are needed, tokens from them, and the ends of sequences. Returns milliseconds in native calls. */
  finishRows(stepped: readonly Sequence[], batch: Batch): number {
    const { sink } = this.#parts;
    let nativeMs = 0;
    let end = 0;
    for (const [row, sequence] of stepped.entries()) {
      const count = batch.rowTokens[row]!;
      const first = end;
      end += count;
      if (sequence.failure !== null) {
        this.#parts.open.close(sequence);
        sink.failed(sequence.id, sequence.failure);
      } else if (sequence.evaluation !== null) {
        nativeMs += this.#copyLogits(sequence.evaluation, sequence.computed - count, first, count);
        if (sequence.computed < sequence.promptLength) continue;
        this.#parts.open.close(sequence);
        sink.evaluated(sequence.id, sequence.evaluation.logits());
      } else if (sequence.pooled !== null) {
        nativeMs += this.#poolStates(sequence.pooled, sequence.computed - count, first, count);
        if (sequence.computed < sequence.promptLength) continue;
        this.#parts.open.close(sequence);
        sink.evaluated(sequence.id, sequence.pooled.vector());
      } else {
        if (sequence.promptLogprobs !== null) {
          nativeMs += this.#reportPrompt(sequence, sequence.promptLogprobs, sequence.computed - count, first, count);
        }
        if (sequence.generated === 0) {
          const { computed: done, promptLength: total, cachedTokens: cached } = sequence;
          sink.event(sequence.id, { kind: 'prefill', done, total, cached: cached ?? 0 });
        }
        if (sequence.computed < sequence.tokens.length) continue;
        this.#sampled.push(sequence);
        this.#logitRows[this.#sampled.length - 1] = end - 1;
      }
    }
    nativeMs += this.#sampleRows();
    return nativeMs;
  }

  #sampleRows(): number {
    const { native, vocabSize, maxLogitRows } = this.#parts;
    let nativeMs = 0;
    for (let first = 0; first < this.#sampled.length; first += maxLogitRows) {
      const count = Math.min(maxLogitRows, this.#sampled.length - first);
      const from = this.#parts.now();
      native.logits(this.#logitRows.subarray(first, first + count), this.#logits.subarray(0, count * vocabSize));
      nativeMs += this.#parts.now() - from;
      for (let i = 0; i < count; ++i) {
        this.#sample(this.#sampled[first + i]!, this.#logits.subarray(i * vocabSize, (i + 1) * vocabSize));
      }
    }
    this.#sampled.length = 0;
    return nativeMs;
  }

  /** A format that cannot go on ends its own sequence. */
  #sample(sequence: Sequence, logits: Float32Array): void {
    try {
      this.#next(sequence, logits);
    } catch (error) {
      if (!(error instanceof MoestroError) || error.code !== 'FORMAT_FAILED') throw error;
      this.#parts.open.close(sequence);
      this.#parts.sink.failed(sequence.id, error);
    }
  }

  #next(sequence: Sequence, logits: Float32Array): void {
    const { matcher, sampler } = sequence;
    if (sequence.maxTokens === 0) {
      this.#finish(sequence, 'length');
      return;
    }
    if (matcher !== null) {
      if (matcher.mustEnd) {
        this.#finish(sequence, 'stop');
        return;
      }
      // An answer may begin with what it has to.
      if (sequence.generated === 0 && this.#jump(sequence, matcher)) return;
    }
    const { tokens, stopTokenIds: stops } = sequence;
    const allowed = matcher === null ? null : { mask: matcher.mask(), mayEnd: matcher.mayEnd };
    if (allowed?.mask.kind === 'few' && allowed.mask.ids.length === 0) {
      // It may end here, or the mask would have thrown, and no token of the vocabulary goes on.
      this.#finish(sequence, 'stop');
      return;
    }
    const mayStop = sequence.generated >= sequence.minTokens;
    const { tokenId, logprob, topLogprobs } = sampler!.sample(logits, tokens, allowed, stops, mayStop);
    sequence.sampled(this.#parts.now());
    if (stops.has(tokenId)) {
      this.#finish(sequence, 'stop');
      return;
    }
    matcher?.accept(tokenId);
    if (this.#write(sequence, { kind: 'token', tokenId, logprob, topLogprobs })) return;
    if (matcher === null) return;
    if (matcher.mustEnd) this.#finish(sequence, 'stop');
    else this.#jump(sequence, matcher);
  }

  /** Writes the tokens that are the only way on. True when there were some. */
  #jump(sequence: Sequence, matcher: Matcher): boolean {
    let forced = sequence.mayJump ? matcher.forced() : [];
    // The same text may be written without a token that would end the answer.
    if (forced.some((tokenId) => sequence.stopTokenIds.has(tokenId))) forced = [];
    if (forced.length > 0) sequence.sampled(this.#parts.now());
    for (const tokenId of forced) {
      matcher.accept(tokenId);
      if (this.#write(sequence, { kind: 'token', tokenId, logprob: null, topLogprobs: [] })) break;
    }
    return forced.length > 0;
  }

  /** True when the sequence is at its end with this token. */
  #write(sequence: Sequence, event: Extract<EngineEvent, { kind: 'token' }>): boolean {
    sequence.tokens.push(event.tokenId);
    ++sequence.unread;
    this.#parts.sink.event(sequence.id, event);
    if (sequence.generated < sequence.maxTokens && sequence.tokens.length < this.#parts.contextLength()) return false;
    this.#finish(sequence, 'length');
    return true;
  }

  /** Logits of `count` tokens of the batch from `first` on, which stand at `position` and after, as far as wanted. */
  #copyLogits(evaluation: Evaluation, position: number, first: number, count: number): number {
    const { native, maxLogitRows } = this.#parts;
    const started = this.#parts.now();
    for (let done = Math.max(0, evaluation.from - position); done < count; done += maxLogitRows) {
      const rows = Math.min(maxLogitRows, count - done);
      for (let i = 0; i < rows; ++i) this.#evaluationRows[i] = first + done + i;
      native.logits(this.#evaluationRows.subarray(0, rows), evaluation.rows(position + done, rows));
    }
    return this.#parts.now() - started;
  }

  /** Rows of hidden states that the memory of logits holds: it is there, and not in use before tokens are drawn. */
  #stateRows(): number {
    return Math.max(1, Math.floor(this.#logits.length / this.#parts.hiddenSize));
  }

  /** Hidden states of `count` tokens of the batch from `first` on, which stand at `position` and after, as far as wanted. */
  #poolStates(pooled: PooledStates, position: number, first: number, count: number): number {
    const { native, hiddenSize } = this.#parts;
    const started = this.#parts.now();
    for (let at = pooled.from(position, count); at < position + count; ) {
      const rows = Math.min(this.#stateRows(), position + count - at);
      for (let i = 0; i < rows; ++i) this.#evaluationRows[i] = first + at - position + i;
      const states = this.#logits.subarray(0, rows * hiddenSize);
      native.hiddenStates(this.#evaluationRows.subarray(0, rows), states);
      pooled.add(states, rows);
      at += rows;
    }
    return this.#parts.now() - started;
  }

  /** Logprobs of the prompt's tokens after each of the `count` tokens, one event for all of them. */
  #reportPrompt(sequence: Sequence, top: number, position: number, first: number, count: number): number {
    const { native, maxLogitRows, vocabSize, sink } = this.#parts;
    const started = this.#parts.now();
    const tokens: PromptToken[] = [];
    // Logits at a position foretell the token after it.
    const end = Math.min(position + count, sequence.promptLength - 1);
    for (let at = Math.max(position, sequence.promptReported - 1); at < end; ) {
      const rows = Math.min(maxLogitRows, end - at);
      for (let i = 0; i < rows; ++i) this.#evaluationRows[i] = first + at - position + i;
      native.logits(this.#evaluationRows.subarray(0, rows), this.#logits.subarray(0, rows * vocabSize));
      for (let i = 0; i < rows; ++i) {
        const logits = this.#logits.subarray(i * vocabSize, (i + 1) * vocabSize);
        tokens.push(tokenLogprobs(logits, sequence.tokens[at + i + 1]!, top));
      }
      at += rows;
    }
    sequence.promptReported += tokens.length;
    if (tokens.length > 0) sink.event(sequence.id, { kind: 'prompt', tokens });
    return this.#parts.now() - started;
  }

  #finish(sequence: Sequence, reason: 'stop' | 'length'): void {
    this.#parts.open.close(sequence);
    this.#parts.sink.event(sequence.id, { kind: 'finish', reason, usage: sequence.usage(this.#parts.now()) });
  }
}
