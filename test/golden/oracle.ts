/**
 * llama.cpp through node-llama-cpp, as the independent implementation that the reference path is held to. Run by hand
 * only: the package is large and stands in no lock file. Install it anywhere (`npm i node-llama-cpp@3.22.1`) and name that
 * folder in ORACLE_DIRECTORY, or make it resolvable from here.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

interface TokenResult {
  readonly next: { readonly logits: Map<number, number> };
}
interface LlamaSequence {
  clearHistory(): Promise<void>;
  controlledEvaluate(input: readonly unknown[]): Promise<(TokenResult | undefined)[]>;
}
interface LlamaModel {
  tokenize(text: string): number[];
  readonly fileInfo: { readonly metadata: unknown };
  createContext(options: Record<string, unknown>): Promise<{ getSequence(): LlamaSequence }>;
  dispose(): Promise<void>;
}
interface LlamaPackage {
  getLlama(options: Record<string, unknown>): Promise<{
    loadModel(options: Record<string, unknown>): Promise<LlamaModel>;
  }>;
}

export interface Oracle {
  tokenize(text: string): number[];
  /** Raw logits after each token of one fresh sequence: Float32Array [ids.length, vocabSize]. */
  logits(ids: readonly number[]): Promise<Float32Array>;
  close(): Promise<void>;
}

/** A sequence that fills its context is shifted before its last token: positions then are no longer what they were. */
const CONTEXT_MARGIN = 256;

/** Opens a GGUF with keys and values in float32 and no flash attention: the fewest roundings llama.cpp can do. */
export async function openOracle(ggufPath: string, contextSize: number, vocabSize: number): Promise<Oracle> {
  const directory = process.env.ORACLE_DIRECTORY;
  const require = createRequire(directory === undefined ? import.meta.url : join(directory, 'package.json'));
  const entry = pathToFileURL(require.resolve('node-llama-cpp')).href;
  const { getLlama } = (await import(entry)) as LlamaPackage;
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: 2 });
  const model = await llama.loadModel({ modelPath: ggufPath });
  const context = await model.createContext({
    contextSize: contextSize + CONTEXT_MARGIN,
    batchSize: contextSize + CONTEXT_MARGIN,
    threads: 2,
    flashAttention: false,
    experimentalKvCacheKeyType: 'F32',
    experimentalKvCacheValueType: 'F32',
  });
  const sequence = context.getSequence();
  return {
    tokenize: (text) => model.tokenize(text),
    async logits(ids) {
      await sequence.clearHistory();
      const results = await sequence.controlledEvaluate(ids.map((id) => [id, { generateNext: { logits: true } }]));
      const out = new Float32Array(ids.length * vocabSize);
      for (const [position, result] of results.entries()) {
        if (result === undefined || result.next.logits.size !== vocabSize) {
          throw new Error(`llama.cpp gave ${result?.next.logits.size} logits at ${position}, needed ${vocabSize}`);
        }
        for (const [id, value] of result.next.logits) out[position * vocabSize + id] = value;
      }
      return out;
    },
    close: () => model.dispose(),
  };
}
