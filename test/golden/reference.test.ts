import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReferenceSequence } from '../../src/eval/reference.js';
import { loadReferenceWeights } from '../../src/eval/reference-weights.js';
import { openSource } from '../../src/model/import/index.js';
import { writeTinyGguf } from '../helpers/tiny-gguf.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { TINY_FAMILIES } from '../helpers/tiny-models.js';
import { goldenDivergence, parseGolden } from './golden-file.js';
import { goldenTinyModel } from './golden-tiny.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-golden-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

async function divergenceOf(path: string, family: string) {
  const source = await openSource(path);
  const weights = await loadReferenceWeights(source).finally(() => source.close());
  const golden = parseGolden(readFileSync(new URL(`./tiny-${family}.golden`, import.meta.url)));
  expect(golden.vocabSize).toBe(weights.architecture.vocabSize);
  const sequence = golden.sequences[0]!;
  const logits = new ReferenceSequence(weights, sequence.ids.length).append(sequence.ids);
  return goldenDivergence(golden, sequence, logits);
}

describe('ReferenceSequence', () => {
  // llama.cpp on the same float32 weights is 1.6e-13 nats away over all tokens; what is measured here is the rounding of
  // the file's float32 log-probabilities.
  it.each(TINY_FAMILIES)('append() gives the logits of llama.cpp for a GGUF of %s', async (family) => {
    const path = join(directory, 'tiny.gguf');
    writeTinyGguf(goldenTinyModel(family), path, { dtype: 'F32' });
    const { kl, same } = await divergenceOf(path, family);
    expect(Math.abs(kl)).toBeLessThan(1e-7);
    expect(same).toBe(1);
  });

  it.each(TINY_FAMILIES)('append() gives the same logits for the Hugging Face files of %s', async (family) => {
    const path = join(directory, 'tiny');
    writeHuggingFace(goldenTinyModel(family), path, { dtype: 'F16' });
    const { kl, same } = await divergenceOf(path, family);
    expect(Math.abs(kl)).toBeLessThan(1e-7);
    expect(same).toBe(1);
  });
});
