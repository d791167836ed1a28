/** Models whose dense matrices have 4, 6 or 8 bits: the engine computes with the weights that the file says. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { klDivergence } from '../../src/eval/divergence.js';
import { openEvaluated } from '../../src/eval/open-evaluated.js';
import { ReferenceSequence } from '../../src/eval/reference.js';
import type { ReferenceExpert, ReferenceWeights } from '../../src/eval/reference-weights.js';
import { convert } from '../../src/model/convert.js';
import { openMoe } from '../../src/model/read-moe.js';
import { loadAddon } from '../../src/native/binding.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel, TINY_FAMILIES } from '../helpers/tiny-models.js';

const addon = loadAddon();
const IDS = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 256);

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-dense-bits-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Every weight of a model with 8 bits stored, as its files say it. */
async function storedWeights(path: string): Promise<ReferenceWeights> {
  const { manifest, densePath, expertsPath, expertOffset } = await openMoe(path);
  const { architecture, geometry, tables } = manifest;
  const file = readFileSync(densePath);
  const dense = new Map<string, Float32Array>();
  for (const [name, { kind, rows, cols, offset, bytes }] of Object.entries(manifest.dense.tensors)) {
    const values = new Float32Array(rows * cols);
    const part = file.subarray(offset, offset + bytes);
    if (kind === 'f32') addon.dequantise('F32', part, rows * cols, values);
    else addon.dequantiseDense(part, rows, cols, Number(kind[1]) as 4 | 6 | 8, values);
    dense.set(name, values);
  }
  const records = readFileSync(expertsPath);
  const { hiddenSize, expertSize, expertCount } = architecture;
  const expert = (layer: number, index: number): ReferenceExpert => {
    const at = expertOffset(layer, index);
    const [gate, up, down] = Array.from({ length: 3 }, () => new Float32Array(hiddenSize * expertSize));
    const record = records.subarray(at, at + geometry.recordBytes);
    addon.dequantiseExpert(record, hiddenSize, expertSize, tables, 8, gate!, up!, down!);
    return { gate: gate!, up: up!, down: down! };
  };
  const experts = architecture.layerKinds.map((kind, layer) =>
    Array.from({ length: kind === 'moe' ? expertCount : 0 }, (_, index) => expert(layer, index)),
  );
  return { architecture, dense, experts };
}

async function engineLogits(path: string, settings: Record<string, string | number>): Promise<Float32Array> {
  const { evaluator } = await openEvaluated(
    engineConfig(path, { level: 8, budget: '1GiB', threads: 2, ...settings }, {}),
  );
  try {
    return await evaluator.logits(IDS, 0, IDS.length);
  } finally {
    await evaluator.close();
  }
}

describe.each([4, 6, 8] as const)('dense matrices of %i bits', (denseBits) => {
  it.each(TINY_FAMILIES)('give the distributions of their stored weights, of %s', async (family) => {
    const source = join(directory, `${family}-${denseBits}`);
    const out = `${source}.moe`;
    writeHuggingFace(makeTinyModel(family, 3), source);
    await convert({ source, out, bits: 8, denseBits, threads: 2 });
    const weights = await storedWeights(out);
    const expected = new ReferenceSequence(weights, IDS.length).append(IDS);
    const found = await engineLogits(out, {});
    const { vocabSize } = weights.architecture;
    const divergences: number[] = [];
    for (let t = 0; t < IDS.length; t++) {
      const row = (logits: Float32Array) => logits.subarray(t * vocabSize, (t + 1) * vocabSize);
      divergences.push(klDivergence(row(expected), row(found)));
    }
    // What is left is the rounding of activations to 8 bits, whatever the weights. Where it turns a router's near tie a
    // single position may stand out; wrong weights move all.
    expect(divergences.sort((a, b) => a - b)[IDS.length / 2]).toBeLessThan(3e-3);
  });

  it('give the same logits with every instruction set, thread count and chunk', async () => {
    const out = join(directory, `qwen2_moe-${denseBits}.moe`);
    const expected = await engineLogits(out, { threads: 1, chunk: 1 });
    for (const isa of addon.cpuFeatures().detected) expect(await engineLogits(out, { isa }), isa).toEqual(expected);
  });
});
