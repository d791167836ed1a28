/** A tiny model of seeded random weights, of any supported family's features. */
import type { ReferenceWeights } from '../../src/eval/reference-weights.js';
import { denseTensorShapes } from '../../src/model/architecture-limits.js';
import type { Architecture } from '../../src/model/manifest.js';
import { gaussian, randomWords } from '../../src/model/synthetic/random-pool.js';

export function randomReference(change: Partial<Architecture>, seed = 1): ReferenceWeights {
  const architecture: Architecture = {
    family: 'qwen3_moe',
    hiddenSize: 32,
    layerCount: 2,
    headCount: 2,
    kvHeadCount: 1,
    headDim: 32,
    vocabSize: 40,
    contextLength: 64,
    ropeTheta: 10_000,
    rmsNormEps: 1e-6,
    qkNorm: 'head',
    attentionBias: false,
    tiedEmbeddings: true,
    expertCount: 4,
    topK: 2,
    expertSize: 32,
    normTopK: true,
    sharedExpertSize: 0,
    sharedExpertGate: false,
    denseFfnSize: 0,
    layerKinds: ['moe', 'moe'],
    slidingWindow: null,
    ...change,
  };
  // Each tensor has a generator of its own, so that adding one leaves the others as they are.
  const random = (name: string, count: number, deviation: number, mean = 0) => {
    const next = randomWords([...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), seed));
    return Float32Array.from({ length: count }, () => mean + deviation * gaussian(next));
  };
  const dense = new Map<string, Float32Array>();
  for (const [name, [rows, cols]] of denseTensorShapes(architecture)) {
    const isNorm = name.endsWith('norm');
    dense.set(name, random(name, rows * cols, isNorm ? 0.2 : 2 / Math.sqrt(cols), isNorm ? 1 : 0));
  }
  const { hiddenSize, expertSize } = architecture;
  const experts = architecture.layerKinds.map((kind, layer) =>
    kind === 'dense'
      ? []
      : Array.from({ length: architecture.expertCount }, (_, index) => {
          const matrix = (name: string, cols: number) =>
            random(`${layer}.${index}.${name}`, hiddenSize * expertSize, 2 / Math.sqrt(cols));
          return {
            gate: matrix('gate', hiddenSize),
            up: matrix('up', hiddenSize),
            down: matrix('down', expertSize),
          };
        }),
  );
  return { architecture, dense, experts };
}
