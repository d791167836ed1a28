import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { logSumExp, rowOf } from '../../src/eval/distribution.js';
import { klDivergence } from '../../src/eval/divergence.js';
import { ReferenceReader, ReferenceWriter } from '../../src/eval/reference-file.js';
import { gaussian, randomWords } from '../../src/model/synthetic/random-pool.js';

const VOCAB = 101;
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-reference-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function logitsOf(rows: number, seed: number): Float32Array {
  const next = randomWords(seed);
  return Float32Array.from({ length: rows * VOCAB }, () => 6 * gaussian(next));
}

function writeTwo(path: string): Float32Array {
  const writer = new ReferenceWriter(path, VOCAB);
  const first = logitsOf(3, 1);
  writer.add([5, 6, 7, 8], 1, first);
  writer.add([9, 10], 0, logitsOf(1, 2));
  writer.finish();
  return first;
}

describe('ReferenceReader', () => {
  it('logProbabilities() gives back what was written within half a step', () => {
    const path = join(directory, 'a.ref');
    const logits = writeTwo(path);
    const reader = new ReferenceReader(path);
    expect(reader.vocabSize).toBe(VOCAB);
    expect(reader.sequences).toEqual([
      { ids: [5, 6, 7, 8], begin: 1, rows: 3 },
      { ids: [9, 10], begin: 0, rows: 1 },
    ]);
    const saved = reader.logProbabilities(0);
    for (let row = 0; row < 3; ++row) {
      const own = rowOf(logits, row, VOCAB);
      const sum = logSumExp(own);
      const worst = own.reduce((max, value, id) => Math.max(max, Math.abs(value - sum - saved[row * VOCAB + id]!)), 0);
      expect(worst).toBeLessThan(5e-4);
      expect(klDivergence(own, rowOf(saved, row, VOCAB))).toBeLessThan(1e-7);
    }
    reader.close();
  });

  it('ReferenceReader refuses a file that is cut off at any byte, or longer than it says', () => {
    const path = join(directory, 'a.ref');
    writeTwo(path);
    const whole = readFileSync(path);
    const broken = join(directory, 'broken.ref');
    for (let length = 0; length < whole.length; length += 13) {
      writeFileSync(broken, whole.subarray(0, length));
      expect(() => new ReferenceReader(broken), `${length} bytes`).toThrow('Cannot use reference file');
    }
    writeFileSync(broken, Buffer.concat([whole, Buffer.from([0])]));
    expect(() => new ReferenceReader(broken)).toThrow(`it has ${whole.length + 1} bytes, needed ${whole.length}`);
  });

  it('ReferenceReader refuses absurd counts, foreign files, versions and tokens', () => {
    const path = join(directory, 'a.ref');
    writeTwo(path);
    const cases: [number, number, string][] = [
      [0, 0, 'it does not begin with "MOESTREF"'],
      [8, 2, 'it has version 2, needed 1'],
      [12, 5, 'sequence 0 holds token 5 of a vocabulary of 5'],
      [16, 0xffffffff, 'bytes, needed at least'],
      [20, 0xffffffff, 'bytes, needed at least'],
      [24, 4, 'sequence 0 has rows 4 to 7 of 4 tokens'],
      [32, VOCAB, `sequence 0 holds token ${VOCAB} of a vocabulary of ${VOCAB}`],
    ];
    for (const [offset, value, message] of cases) {
      const bytes = readFileSync(path);
      bytes.writeUInt32LE(value, offset);
      const broken = join(directory, 'broken.ref');
      writeFileSync(broken, bytes);
      expect(() => new ReferenceReader(broken)).toThrow(message);
    }
  });

  it('ReferenceWriter leaves nothing behind when abandoned, and no temporary name when finished', () => {
    const writer = new ReferenceWriter(join(directory, 'b.ref'), VOCAB);
    writer.add([1, 2], 0, logitsOf(1, 3));
    writer.abandon();
    expect(readdirSync(directory)).toEqual([]);
    writeTwo(join(directory, 'a.ref'));
    expect(readdirSync(directory)).toEqual(['a.ref']);
  });
});
