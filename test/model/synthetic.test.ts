import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_TABLES } from '../../src/model/manifest.js';
import { openMoe, verifyMoe } from '../../src/model/read-moe.js';
import { crc32cByTable } from '../../src/model/synthetic/checksum.js';
import { SYNTHETIC_SHAPES } from '../../src/model/synthetic/shapes.js';
import { writeSynthetic } from '../../src/model/synthetic/write-synthetic.js';
import { loadAddon } from '../../src/native/binding.js';

const SHAPE = SYNTHETIC_SHAPES['olmoe-1b-7b']!;
/** One layer of the real thing's proportions, small enough for a test. */
const SMALL = {
  ...SHAPE,
  hiddenSize: 128,
  headDim: 32,
  headCount: 4,
  kvHeadCount: 4,
  vocabSize: 1000,
  expertCount: 9,
  expertSize: 64,
  layerCount: 2,
  layerKinds: ['moe', 'moe'] as const,
};

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-synthetic-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const write = (name: string, bitsStored: 4 | 8, seed = 1) =>
  writeSynthetic({ name, architecture: SMALL, bitsStored, seed, out: join(directory, name) });

describe('writeSynthetic()', () => {
  it.each([4, 8] as const)('writeSynthetic() makes a model whose every checksum is right at %i bits', async (bits) => {
    write('a.moe', bits);
    const { manifest } = await verifyMoe(join(directory, 'a.moe'));
    expect(manifest).toMatchObject({ synthetic: true, defaultLevel: bits });
    expect(existsSync(join(directory, 'a.moe.partial'))).toBe(false);
  });

  it('writeSynthetic() gives the same bytes for the same seed and others for another', () => {
    write('a.moe', 4, 1);
    write('b.moe', 4, 1);
    write('c.moe', 4, 2);
    const experts = (name: string) => readFileSync(join(directory, name, 'experts.bin'));
    expect(experts('a.moe').equals(experts('b.moe'))).toBe(true);
    expect(experts('a.moe').equals(experts('c.moe'))).toBe(false);
  });

  it('writeSynthetic() makes weights of about unit gain at every level', async () => {
    write('a.moe', 8);
    const { manifest, expertsPath, expertOffset } = await openMoe(join(directory, 'a.moe'));
    const { hiddenSize, expertSize } = SMALL;
    const bytes = readFileSync(expertsPath);
    for (const [layer, expert] of [
      [0, 0],
      [1, 8],
    ] as const) {
      const at = expertOffset(layer, expert);
      const record = Uint8Array.from(bytes.subarray(at, at + manifest.geometry.recordBytes));
      for (const level of [2, 3, 4, 8] as const) {
        const matrices = Array.from({ length: 3 }, () => new Float32Array(hiddenSize * expertSize));
        const [gate, up, down] = matrices as [Float32Array, Float32Array, Float32Array];
        loadAddon().dequantiseExpert(record, hiddenSize, expertSize, DEFAULT_TABLES, level, gate, up, down);
        for (const [matrix, cols] of [
          [gate, hiddenSize],
          [up, hiddenSize],
          [down, expertSize],
        ] as const) {
          const gain = Math.sqrt((matrix.reduce((sum, w) => sum + w * w, 0) / matrix.length) * cols);
          expect(gain, `level ${level}`).toBeGreaterThan(0.7);
          expect(gain, `level ${level}`).toBeLessThan(1.4);
        }
      }
    }
  });

  it.each([4, 6, 8] as const)(
    'writeSynthetic() makes dense matrices of %i bits and of about unit gain',
    async (bits) => {
      writeSynthetic({
        name: 'a',
        architecture: SMALL,
        bitsStored: 4,
        denseBits: bits,
        seed: 1,
        out: join(directory, 'a.moe'),
      });
      const { manifest, densePath } = await verifyMoe(join(directory, 'a.moe'));
      const { rows, cols, offset, bytes, kind } = manifest.dense.tensors['layers.1.q']!;
      expect(kind).toBe(`q${bits}`);
      const values = new Float32Array(rows * cols);
      loadAddon().dequantiseDense(readFileSync(densePath).subarray(offset, offset + bytes), rows, cols, bits, values);
      const gain = Math.sqrt((values.reduce((sum, w) => sum + w * w, 0) / values.length) * cols);
      expect(gain).toBeGreaterThan(0.85);
      expect(gain).toBeLessThan(1.15);
    },
  );

  it('writeSynthetic() refuses to overwrite', () => {
    write('a.moe', 4);
    const before = statSync(join(directory, 'a.moe')).mtimeMs;
    expect(() => write('a.moe', 4)).toThrow('it exists already');
    expect(statSync(join(directory, 'a.moe')).mtimeMs).toBe(before);
  });

  it('crc32cByTable() gives the check value of the standard, in one part or two', () => {
    const bytes = new TextEncoder().encode('123456789');
    expect(crc32cByTable(0, bytes)).toBe(0xe3069283);
    expect(crc32cByTable(crc32cByTable(0, bytes.subarray(0, 4)), bytes.subarray(4))).toBe(0xe3069283);
  });
});
