import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Disk } from '../../src/model/disk.js';
import {
  type ExpertImportance,
  ImportanceFile,
  type ImportanceSums,
  importanceWidth,
  meanImportance,
} from '../../src/model/importance.js';
import type { Architecture } from '../../src/model/manifest.js';

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

const architecture = (hiddenSize: number, expertSize: number, expertCount: number, layers: number) =>
  ({
    hiddenSize,
    expertSize,
    expertCount,
    layerKinds: Array.from({ length: layers }, () => 'moe'),
  }) as unknown as Architecture;

describe('importanceWidth()', () => {
  it('holds all columns of small experts and what fits of large ones', () => {
    expect(importanceWidth(architecture(256, 128, 32, 8))).toBe(256);
    expect(importanceWidth(architecture(96, 64, 8, 2))).toBe(128);
    expect(importanceWidth(architecture(2048, 1024, 64, 16))).toBe(64);
    expect(importanceWidth(architecture(7168, 2048, 256, 58))).toBe(1);
  });
});

describe('meanImportance()', () => {
  it('nears the mean of an expert that saw many tokens and the mean of the layer for one that saw none', () => {
    const [seen, unseen] = meanImportance([sums(1e6, [4e6, 2e6], [9e6, 1e6]), sums(0, [0, 0], [0, 0])], 1);
    const close = (found: Float32Array, needed: number[]) => {
      needed.forEach((value, i) => {
        expect(found[i]).toBeCloseTo(value, 2);
      });
    };
    close(seen!.gateUp, [4, 2]);
    close(seen!.down, [9, 1]);
    close(unseen!.gateUp, [4, 2]);
    close(unseen!.down, [5, 5]);
  });

  it('lends products of the layer to gate and up, and only squares to down', () => {
    const gateUp = [4e6, 1e6, 1e6, 2e6];
    const [, unseen] = meanImportance(
      [sums(1e6, gateUp, [9e6, 3e6, 3e6, 1e6]), sums(0, [0, 0, 0, 0], [0, 0, 0, 0])],
      2,
    );
    expect([...unseen!.gateUp].map((value) => Math.round(value * 100) / 100)).toEqual([4, 1, 1, 2]);
    expect([...unseen!.down].map((value) => Math.round(value * 100) / 100)).toEqual([5, 0, 0, 5]);
  });

  it('is uniform when the text reached no expert of the layer', () => {
    const [only] = meanImportance([sums(0, [0, 0], [0])], 1);
    expect([...only!.gateUp, ...only!.down]).toEqual([1, 1, 1]);
  });
});

describe('ImportanceFile', () => {
  const shape = architecture(2, 1, 2, 1);
  const experts = [1, 2].map(
    (k): ExpertImportance => ({ gateUp: Float32Array.of(k, 2 * k, 3 * k, 4 * k), down: Float32Array.of(5 * k, 0) }),
  );
  async function* layers() {
    yield experts;
  }

  it('gives back each expert that was written, and nothing when size or form differ', async () => {
    const path = join(directory, 'importance.bin');
    expect(await ImportanceFile.open(path, shape, 2)).toBeUndefined();
    await ImportanceFile.write(path, 7, 2, 72, layers());
    const file = await ImportanceFile.open(path, shape, 2);
    expect(file).toMatchObject({ tokens: 7, width: 2 });
    expect(file!.read(1)).toEqual(experts[1]);
    expect(file!.read(0)).toEqual(experts[0]);
    expect(() => file!.read(2)).toThrow(expect.objectContaining({ code: 'IO_ERROR' }));
    file!.close();
    expect(await ImportanceFile.open(path, shape, 3)).toBeUndefined();
    truncateSync(path, 30);
    expect(await ImportanceFile.open(path, shape, 2)).toBeUndefined();
    writeFileSync(path, '');
    expect(await ImportanceFile.open(path, shape, 2)).toBeUndefined();
  });

  it('leaves no file when the experts cannot be had', async () => {
    const path = join(directory, 'failed.bin');
    async function* failing() {
      yield experts;
      throw new Error('lost');
    }
    await expect(ImportanceFile.write(path, 7, 2, 72, failing())).rejects.toThrow('lost');
    expect(await ImportanceFile.open(path, shape, 2)).toBeUndefined();
  });

  it('says what the disk lacks, and leaves no file, when it is full', async () => {
    const path = join(directory, 'full.bin');
    const full: Disk = {
      freeBytes: async () => 10,
      write: async () => {
        throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      },
    };
    const writing = ImportanceFile.write(path, 7, 2, 72, layers(), full);
    await expect(writing).rejects.toMatchObject({ code: 'DISK_FULL', details: { found: 10, needed: 48 } });
    expect(existsSync(`${path}.partial`)).toBe(false);
  });
});
