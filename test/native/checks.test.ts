/** The checks that live beside the native code: every SIMD variant against scalar, and the foundations under load. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadAddon } from '../../src/native/binding.js';

const scratch = mkdtempSync(join(tmpdir(), 'moestro-checks-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe('native checks', () => {
  it.each([1, 20, 300])('checkKernels() finds every variant equal to scalar, bit for bit, with seed %i', (seed) => {
    expect(loadAddon().checkKernels(seed)).toEqual([]);
  });

  it.each([1, 20])('checkBase() finds pool, checksums, slots and read queue sound with seed %i', (seed) => {
    expect(loadAddon().checkBase(seed, scratch)).toEqual([]);
  });

  it('cpuFeatures() chooses the best detected set and ends with scalar', () => {
    const { detected, chosen } = loadAddon().cpuFeatures();
    expect(detected.at(-1)).toBe('scalar');
    expect(detected).toContain(chosen);
  });

  it.each([['auto'], ['']])('cpuFeatures() chooses the best detected set when MOESTRO_ISA is "%s"', (wanted) => {
    const before = process.env.MOESTRO_ISA;
    process.env.MOESTRO_ISA = wanted;
    try {
      const { detected, chosen } = loadAddon().cpuFeatures();
      expect(chosen).toBe(detected[0]);
    } finally {
      if (before === undefined) delete process.env.MOESTRO_ISA;
      else process.env.MOESTRO_ISA = before;
    }
  });
});
