/** What the instruments need of a model, whether the product's engine or the reference path computes it. */
import type { EngineClient, Mode } from '../engine/types.js';
import { GREEDY } from '../engine/types.js';
import type { ReferencePool } from './reference-pool.js';

export interface Evaluator {
  readonly model: string;
  /** The level in bits, or "f32" for the reference path. */
  readonly level: number | 'f32';
  readonly mode: Mode | 'reference';
  readonly vocabSize: number;
  /** Tokens of one sequence at most. */
  readonly contextLength: number;
  /** Sequences it pays to have open at once. */
  readonly concurrency: number;
  /** Teacher-forced logits after positions [begin, end) of `ids`: Float32Array [end - begin, vocabSize]. */
  logits(ids: readonly number[], begin: number, end: number): Promise<Float32Array>;
  /** Greedy answer, without the stop token. */
  answer(promptIds: readonly number[], maxTokens: number, stopTokenIds: readonly number[]): Promise<number[]>;
  /** Mean bits a weight of all that was computed so far; undefined for the reference path. */
  meanBits(): Promise<number | undefined>;
  close(): Promise<void>;
}

/** The product: what users get, at the client's level and mode. */
export function engineEvaluator(client: EngineClient, concurrency: number): Evaluator {
  const { modelName, level, mode, vocabSize, contextLength } = client.info;
  return {
    model: modelName,
    level,
    mode,
    vocabSize,
    contextLength,
    concurrency,
    logits: (ids, begin, end) => client.evaluate(ids.slice(0, end), { from: begin }),
    async answer(promptIds, maxTokens, stopTokenIds) {
      const answer: number[] = [];
      for await (const event of client.generate({ promptIds, maxTokens, stopTokenIds, sampling: GREEDY })) {
        if (event.kind === 'token') answer.push(event.tokenId);
      }
      return answer;
    },
    async meanBits() {
      const { pairs, pairBits } = await client.metrics();
      return pairs === 0 ? undefined : pairBits / pairs;
    },
    close: () => client.close(),
  };
}

/** The plain float32 path over a Hugging Face directory or a GGUF. */
export function referenceEvaluator(model: string, pool: ReferencePool): Evaluator {
  const { vocabSize, contextLength } = pool.architecture;
  return {
    model,
    level: 'f32',
    mode: 'reference',
    vocabSize,
    contextLength,
    concurrency: pool.threads,
    logits: (ids, begin, end) => pool.logits(ids.slice(0, end), begin),
    answer: (promptIds, maxTokens, stopTokenIds) => pool.answer(promptIds, maxTokens, stopTokenIds),
    meanBits: async () => undefined,
    close: () => pool.close(),
  };
}
