/** The reference path on several threads: sequences are independent, so each goes to a thread of its own. */
import { Piscina } from 'piscina';
import type { Architecture } from '../model/manifest.js';
import { workerFile } from '../worker-file.js';
import type { ReferenceWeights } from './reference-weights.js';

export class ReferencePool {
  readonly architecture: Architecture;
  readonly threads: number;
  readonly #pool: Piscina;

  constructor(weights: ReferenceWeights, threads: number) {
    this.architecture = weights.architecture;
    this.threads = threads;
    this.#pool = new Piscina({
      filename: workerFile(import.meta.url, './reference-worker.js'),
      minThreads: threads,
      maxThreads: threads,
      workerData: weights,
    });
  }

  /** Logits after each token from the `begin`-th on: Float32Array [ids.length - begin, vocabSize]. */
  async logits(ids: readonly number[], begin: number): Promise<Float32Array> {
    const rows: ArrayBuffer = await this.#pool.run({ ids, begin }, { name: 'logits' });
    return new Float32Array(rows);
  }

  /** Greedy answer, without the stop token. */
  answer(promptIds: readonly number[], maxTokens: number, stopTokenIds: readonly number[]): Promise<number[]> {
    return this.#pool.run({ promptIds, maxTokens, stopTokenIds }, { name: 'answer' });
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}
