/**
 * Tiny random models of every supported family; tiny-hugging-face.ts and tiny-gguf.ts write them to files. Weights are
 * exact in F16, so that F32 and F16 files hold the same model.
 */
import { denseTensorShapes } from '../../src/model/architecture-limits.js';
import type { Architecture } from '../../src/model/manifest.js';
import { fromHalf, toHalf } from './number-formats.js';
import { byteLevelVocabulary, sentencePieceVocabulary, type TinyVocabulary } from './tiny-vocabularies.js';

export type TinyFamily = 'qwen3_moe' | 'qwen2_moe' | 'olmoe' | 'mixtral';
export const TINY_FAMILIES: readonly TinyFamily[] = ['qwen3_moe', 'qwen2_moe', 'olmoe', 'mixtral'];

export interface TinyMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
}

export interface TinyModel {
  readonly architecture: Architecture;
  readonly vocabulary: TinyVocabulary;
  /** By canonical name; norms and biases are [1, n]. */
  readonly dense: ReadonlyMap<string, TinyMatrix>;
  /** [layer][expert]; empty for layers without experts. */
  readonly experts: readonly (readonly {
    readonly gate: TinyMatrix;
    readonly up: TinyMatrix;
    readonly down: TinyMatrix;
  }[])[];
}

/** Sizes in which the families differ: hidden 64 with wider attention for Qwen3, hidden = heads * headDim elsewhere. */
const FAMILY_SIZES: Readonly<Record<TinyFamily, Partial<Architecture>>> = {
  qwen3_moe: {
    hiddenSize: 64,
    headCount: 4,
    kvHeadCount: 2,
    topK: 3,
    qkNorm: 'head',
    rmsNormEps: 1e-6,
    normTopK: true,
  },
  qwen2_moe: {
    hiddenSize: 128,
    headCount: 4,
    kvHeadCount: 2,
    topK: 3,
    attentionBias: true,
    sharedExpertSize: 96,
    sharedExpertGate: true,
    rmsNormEps: 1e-6,
    normTopK: false,
  },
  olmoe: { hiddenSize: 128, headCount: 4, kvHeadCount: 4, topK: 4, qkNorm: 'full', normTopK: false },
  mixtral: { hiddenSize: 128, headCount: 4, kvHeadCount: 2, topK: 2, normTopK: true, ropeTheta: 1_000_000 },
};

/** The same seed gives the same model. `overrides` replaces numbers, e.g. layerCount or layerKinds. */
export function makeTinyModel(family: TinyFamily, seed = 1, overrides: Partial<Architecture> = {}): TinyModel {
  const vocabulary =
    family === 'mixtral' ? sentencePieceVocabulary() : byteLevelVocabulary(family === 'olmoe' ? 'olmo' : 'qwen2');
  const layerCount = overrides.layerCount ?? 3;
  const architecture: Architecture = {
    family,
    hiddenSize: 64,
    layerCount,
    headCount: 4,
    kvHeadCount: 2,
    headDim: 32,
    vocabSize: vocabulary.tokens.length,
    contextLength: 512,
    ropeTheta: 10_000,
    rmsNormEps: 1e-5,
    qkNorm: 'none',
    attentionBias: false,
    tiedEmbeddings: false,
    expertCount: 8,
    topK: 2,
    expertSize: 64,
    normTopK: true,
    sharedExpertSize: 0,
    sharedExpertGate: false,
    denseFfnSize: 0,
    layerKinds: Array.from({ length: layerCount }, () => 'moe' as const),
    slidingWindow: null,
    ...FAMILY_SIZES[family],
    ...overrides,
  };
  const random = gaussian(seed);
  const matrix = (rows: number, cols: number, mean: number, spread: number): TinyMatrix => ({
    rows,
    cols,
    values: Float32Array.from({ length: rows * cols }, () => fromHalf(toHalf(mean + spread * random()))),
  });
  const dense = new Map<string, TinyMatrix>();
  for (const [name, [rows, cols]] of denseTensorShapes(architecture)) {
    const isNorm = name.endsWith('norm');
    // Routers spread wide, so that experts are chosen clearly; embeddings of unit size.
    const gain = name === 'embedding' ? Math.sqrt(cols) : name.endsWith('router') ? 2 : name.endsWith('bias') ? 4 : 1;
    dense.set(name, isNorm ? matrix(rows, cols, 1, 0.2) : matrix(rows, cols, 0, gain / Math.sqrt(cols)));
  }
  const { hiddenSize, expertSize, expertCount } = architecture;
  const experts = architecture.layerKinds.map((kind) =>
    Array.from({ length: kind === 'moe' ? expertCount : 0 }, () => ({
      gate: matrix(expertSize, hiddenSize, 0, 1.5 / Math.sqrt(hiddenSize)),
      up: matrix(expertSize, hiddenSize, 0, 1.5 / Math.sqrt(hiddenSize)),
      down: matrix(hiddenSize, expertSize, 0, 1.5 / Math.sqrt(expertSize)),
    })),
  );
  return { architecture, vocabulary, dense, experts };
}

/** Normal deviates (Box and Muller) from a 32-bit linear congruential generator with a mixed output. */
export function gaussian(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x45d9f3b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0x45d9f3b);
    return (((mixed ^ (mixed >>> 16)) >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
