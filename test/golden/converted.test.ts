import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { openEvaluated } from '../../src/eval/open-evaluated.js';
import { convert } from '../../src/model/convert.js';
import { writeTinyGguf } from '../helpers/tiny-gguf.js';
import { TINY_FAMILIES } from '../helpers/tiny-models.js';
import { goldenDivergence, parseGolden } from './golden-file.js';
import { goldenTinyModel } from './golden-tiny.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-converted-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

describe('a converted model', () => {
  it.each(TINY_FAMILIES)('of %s gives the distributions of llama.cpp at 8 bits within 5e-3 nats', async (family) => {
    const source = join(directory, 'tiny.gguf');
    const out = join(directory, 'tiny.moe');
    writeTinyGguf(goldenTinyModel(family), source, { dtype: 'F32' });
    await convert({ source, out, bits: 8, threads: 2 });
    const { evaluator } = await openEvaluated(engineConfig(out, { level: 8, budget: '1GiB', threads: 2 }, {}));
    try {
      const golden = parseGolden(readFileSync(new URL(`./tiny-${family}.golden`, import.meta.url)));
      const sequence = golden.sequences[0]!;
      const logits = await evaluator.logits(sequence.ids, 0, sequence.ids.length);
      const { kl, same } = goldenDivergence(golden, sequence, logits);
      expect(kl).toBeLessThan(5e-3);
      expect(same).toBeGreaterThan(0.9);
    } finally {
      await evaluator.close();
    }
  });
});
