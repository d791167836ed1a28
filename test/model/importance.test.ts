import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ImportanceSums, loadImportance, meanImportance, saveImportance } from '../../src/model/importance.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-importance-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const sums = (tokens: number, gateUp: number[], down: number[]): ImportanceSums => ({
  tokens,
  gateUp: Float32Array.from(gateUp),
  down: Float32Array.from(down),
});

describe('meanImportance()', () => {
  it('nears the mean of an expert that saw many tokens and the mean of the layer for one that saw none', () => {
    const out = new Float32Array(8);
    meanImportance([sums(1e6, [4e6, 2e6], [9e6, 1e6]), sums(0, [0, 0], [0, 0])], 2, 2, out);
    const needed = [4, 2, 9, 1, 4, 2, 5, 5];
    needed.forEach((value, i) => {
      expect(out[i]).toBeCloseTo(value, 2);
    });
  });

  it('is uniform when the text reached no expert of the layer', () => {
    const out = new Float32Array(3);
    meanImportance([sums(0, [0, 0], [0])], 2, 1, out);
    expect([...out]).toEqual([1, 1, 1]);
  });
});

describe('loadImportance()', () => {
  it('gives back what was saved, and nothing when size or form differ', async () => {
    const path = join(directory, 'importance.json');
    expect(await loadImportance(path, 3)).toBeUndefined();
    const values = Float32Array.of(0.1, 2, 3e-9);
    await saveImportance(path, { tokens: 7, values });
    expect(await loadImportance(path, 3)).toEqual({ tokens: 7, values });
    expect(await loadImportance(path, 4)).toBeUndefined();
    writeFileSync(path, '{"tokens":');
    expect(await loadImportance(path, 3)).toBeUndefined();
  });
});
