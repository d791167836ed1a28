import { describe, expect, it } from 'vitest';
import type { EngineClient, EvaluateOptions, GenerateRequest } from '../../src/engine/types.js';
import { WEIGHT_BINS } from '../../src/engine/types.js';
import { klDivergence } from '../../src/eval/divergence.js';
import { measurePrecision } from '../../src/eval/measure-precision.js';

const VOCAB = 4;
/** How far logits move when the layer alone runs at the level. */
const SHIFT = { 2: [0.8, 0.4, 0], 3: [0.4, 0.2, 0] } as const;

/** Layers of known shifts; weights are all 0.5 in layer 0 and all 0.25 elsewhere. */
function scriptedEngine() {
  const log: string[] = [];
  const engine = {
    info: { contextLength: 1000, level: 4, vocabSize: VOCAB },
    async collectImportance(on: boolean) {
      log.push(on ? 'counting' : 'counted');
    },
    async *generate({ promptIds, precision }: GenerateRequest) {
      log.push(`read ${promptIds.length} ${precision?.mode}`);
      yield { kind: 'finish', reason: 'length', usage: {} };
    },
    async routingWeights() {
      const counts = new Float64Array(3 * WEIGHT_BINS);
      counts[4] = 100;
      counts[WEIGHT_BINS + 8] = 100;
      counts[2 * WEIGHT_BINS + 8] = 100;
      return counts;
    },
    async evaluate(ids: readonly number[], { from = 0, precision }: EvaluateOptions) {
      const logits = new Float32Array((ids.length - from) * VOCAB);
      const policy = precision?.policy;
      if (policy === undefined) {
        expect(precision?.mode).toBe('exact');
        return logits;
      }
      const low = policy.levels[0] as 2 | 3;
      expect(policy.levels[1]).toBe(4);
      const layers = [...policy.thresholds.entries()].filter(([, threshold]) => threshold > 0);
      expect(layers).toHaveLength(1);
      const shift = SHIFT[low][layers[0]![0]]!;
      for (let i = 0; i < logits.length; i += VOCAB) logits[i] = shift;
      return logits;
    },
  };
  return { engine: engine as unknown as EngineClient, log };
}

const relativeError = { '2': 0.1, '3': 0.02, '4': 0.005 };
const ids = Array.from({ length: 256 * 30 }, (_, i) => i % VOCAB);

describe('measurePrecision()', () => {
  it('divides the divergence of a layer by the squared weights and the error of the level', async () => {
    const { engine, log } = scriptedEngine();
    const profile = await measurePrecision({ engine, ids, layerCount: 3, expertsPerToken: 2, relativeError });
    const flat = new Float32Array(VOCAB);
    const kl = (shift: number) => klDivergence(flat, Float32Array.from([shift, 0, 0, 0]));
    const half = 2 ** -1.125;
    const quarter = 2 ** -2.125;
    const wanted = (layer: 0 | 1, weight: number) =>
      Math.sqrt((kl(SHIFT[2][layer]) / 0.1) * (kl(SHIFT[3][layer]) / 0.02)) / (2 * weight ** 2);
    expect(profile.sensitivities[0]! / wanted(0, half)).toBeCloseTo(1, 3);
    expect(profile.sensitivities[1]! / wanted(1, quarter)).toBeCloseTo(1, 3);
    expect(profile.tokens).toBe(12 * 256);
    expect(log[0]).toBe('counting');
    expect(log.slice(1, -1)).toEqual(new Array(12).fill('read 256 exact'));
    expect(log.at(-1)).toBe('counted');
  });

  it('keeps a layer that nothing touches above zero', async () => {
    const { engine } = scriptedEngine();
    const profile = await measurePrecision({ engine, ids, layerCount: 3, expertsPerToken: 2, relativeError });
    expect(profile.sensitivities[2]).toBeGreaterThan(0);
    expect(profile.importances).toEqual([...profile.importances].sort((a, b) => a - b));
    expect(profile.importances.at(-1)! / (profile.sensitivities[0]! * 2 ** -2.25)).toBeCloseTo(1, 3);
  });

  it('reads a text that is shorter than a sequence', async () => {
    const { engine, log } = scriptedEngine();
    const short = { engine, ids: ids.slice(0, 40), layerCount: 3, expertsPerToken: 2, relativeError };
    expect((await measurePrecision(short)).tokens).toBe(40);
    expect(log[1]).toBe('read 40 exact');
  });
});
