import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { openEvaluated } from '../../src/eval/open-evaluated.js';
import { goldenDivergence, parseGolden } from './golden-file.js';

const POCKET = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));

describe('the bundled model', () => {
  // Bars of quality: at 8 bits 5e-3 nats to llama.cpp on the F16 weights. Lower levels as measured when they were made,
  // with room for another rounding, so that a kernel that breaks one level is noticed.
  it.each([
    [8, 5e-3, 0.97],
    [4, 1e-2, 0.93],
    [3, 3e-2, 0.88],
    [2, 2e-1, 0.7],
  ])('gives the distributions of llama.cpp at level %i within %f nats', async (level, klMax, sameMin) => {
    const golden = parseGolden(readFileSync(new URL('./pocket.golden', import.meta.url)));
    const config = engineConfig(POCKET, { level, budget: '1GiB', threads: 2, mode: 'exact' }, {});
    const { evaluator } = await openEvaluated(config);
    try {
      expect(evaluator).toMatchObject({ level, mode: 'exact', vocabSize: golden.vocabSize });
      for (const sequence of golden.sequences) {
        const logits = await evaluator.logits(sequence.ids, 0, sequence.ids.length);
        const { kl, same } = goldenDivergence(golden, sequence, logits);
        expect(kl).toBeLessThan(klMax);
        expect(same).toBeGreaterThan(sameMin);
      }
    } finally {
      await evaluator.close();
    }
  });
});
