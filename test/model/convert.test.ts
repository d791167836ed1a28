import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { convert, defaultBits } from '../../src/model/convert.js';
import type { ConvertProgress } from '../../src/model/convert-progress.js';
import { type Disk, realDisk } from '../../src/model/disk.js';
import { takeLock } from '../../src/model/partial-output.js';
import { openMoe, verifyMoe } from '../../src/model/read-moe.js';
import { SYNTHETIC_SHAPES } from '../../src/model/synthetic/shapes.js';
import { loadAddon } from '../../src/native/binding.js';
import { tinyGguf } from '../helpers/tiny-gguf.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel, TINY_FAMILIES, type TinyModel } from '../helpers/tiny-models.js';

const FILES = ['dense.safetensors', 'experts.bin', 'manifest.json', 'tokenizer.json', 'tokenizer_config.json'];
const addon = loadAddon();

let directory: string;
let source: string;
let model: TinyModel;
let out: string;
let outs = 0;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-convert-'));
  source = join(directory, 'source');
  model = makeTinyModel('qwen2_moe', 5);
  writeHuggingFace(model, source);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
beforeEach(() => {
  out = join(directory, `out-${outs++}.moe`);
});

const content = (path: string) =>
  Object.fromEntries(FILES.map((file) => [file, readFileSync(join(path, file), 'base64')]));

/** A disk on which writing fails with `code` once `bytes` were written. */
function failingDisk(bytes: number, code: string): Disk {
  let written = 0;
  return {
    freeBytes: async () => (written > bytes ? 4096 : 1e12),
    async write(file, data, position) {
      written += data.length;
      if (written > bytes) throw Object.assign(new Error(`${code}: write failed`), { code });
      await realDisk.write(file, data, position);
    },
  };
}

describe('convert()', () => {
  it.each(TINY_FAMILIES)('writes a whole model of %s whose weights are those of the source', async (family) => {
    const tiny = makeTinyModel(family, 11);
    const from = join(directory, `${family}-source`);
    writeHuggingFace(tiny, from, { shards: 2 });
    await convert({ source: from, out, threads: 2 });
    const { manifest, densePath, expertsPath, expertOffset } = await verifyMoe(out);
    expect(manifest.architecture).toEqual(tiny.architecture);
    expect(readdirSync(out).sort()).toEqual(FILES);
    expect(existsSync(`${out}.partial`)).toBe(false);

    const dense = readFileSync(densePath);
    for (const [name, { rows, cols, values }] of tiny.dense) {
      const entry = manifest.dense.tensors[name]!;
      const bytes = dense.subarray(entry.offset, entry.offset + entry.bytes);
      const found = new Float32Array(rows * cols);
      if (entry.kind === 'f32') addon.dequantise('F32', bytes, rows * cols, found);
      else addon.dequantiseDense(bytes, rows, cols, 8, found);
      expect(relativeError(found, values), name).toBeLessThan(entry.kind === 'f32' ? 1e-15 : 1e-4);
    }
    const { hiddenSize, expertSize } = tiny.architecture;
    const experts = readFileSync(expertsPath);
    tiny.experts.forEach((ofLayer, layer) => {
      ofLayer.forEach((expert, index) => {
        const at = expertOffset(layer, index);
        const record = experts.subarray(at, at + manifest.geometry.recordBytes);
        const found = [0, 1, 2].map(() => new Float32Array(hiddenSize * expertSize));
        addon.dequantiseExpert(record, hiddenSize, expertSize, manifest.tables, 8, found[0]!, found[1]!, found[2]!);
        [expert.gate, expert.up, expert.down].forEach(({ values }, i) => {
          expect(relativeError(found[i]!, values), `expert ${layer}/${index}`).toBeLessThan(1.2e-4);
        });
      });
    });
  });

  // Relative squared errors of normally distributed weights are .54 and .04 %.
  it.each([
    [4, 'q6', 0.012],
    [6, 'q6', 0.0008],
  ] as const)('writes dense matrices of %i bits, the embedding as %s, when asked to', async (bits, head, limit) => {
    await convert({ source, out, denseBits: bits, threads: 2 });
    const { manifest, densePath } = await verifyMoe(out);
    const dense = readFileSync(densePath);
    for (const [name, { rows, cols, values }] of model.dense) {
      const entry = manifest.dense.tensors[name]!;
      if (entry.kind === 'f32') continue;
      expect(entry.kind, name).toBe(name === 'embedding' || name === 'head' ? head : `q${bits}`);
      const found = new Float32Array(rows * cols);
      const bytes = dense.subarray(entry.offset, entry.offset + entry.bytes);
      addon.dequantiseDense(bytes, rows, cols, Number(entry.kind[1]) as 4 | 6, found);
      expect(relativeError(found, values), name).toBeLessThan(limit);
    }
  });

  it('writes the same planes from GGUF as from safetensors when the weights are the same', async () => {
    const file = join(directory, 'tiny.gguf');
    writeFileSync(file, tinyGguf(model));
    await convert({ source: file, out, threads: 1 });
    const other = join(directory, `out-${outs++}.moe`);
    await convert({ source, out: other, threads: 2 });
    const experts = (path: string) => readFileSync(join(path, 'experts.bin'));
    expect(experts(out).equals(experts(other))).toBe(true);
    const { manifest } = await openMoe(out);
    for (const [name, entry] of Object.entries((await openMoe(other)).manifest.dense.tensors))
      expect(manifest.dense.tensors[name]?.crc32c, name).toBe(entry.crc32c);
  });

  it('writes dense.safetensors as safetensors readers expect it', async () => {
    await convert({ source, out, threads: 1 });
    const { manifest } = await openMoe(out);
    const bytes = readFileSync(join(out, 'dense.safetensors'));
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
      string,
      { dtype: string; shape: number[]; data_offsets: [number, number] }
    >;
    let end = 0;
    for (const [name, { dtype, shape, data_offsets: range }] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      expect(range[0], name).toBe(end); // no holes, in order
      end = range[1];
      expect(shape.reduce((a, b) => a * b, dtype === 'F32' ? 4 : 1)).toBe(range[1] - range[0]);
      expect(manifest.dense.tensors[name]!.offset).toBe(8 + headerBytes + range[0]);
    }
    expect(8 + headerBytes + end).toBe(bytes.length);
  });

  it('stores 4 bits and reports all weights once when asked to', async () => {
    const seen: ConvertProgress[] = [];
    await convert({ source, out, bits: 4, threads: 2, onProgress: (progress) => seen.push(progress) });
    const { manifest } = await verifyMoe(out);
    expect(manifest).toMatchObject({ levels: [2, 3, 4], defaultLevel: 4, calibration: null });
    expect(Object.keys(manifest.quality.relativeError)).toEqual(['2', '3', '4']);
    expect(seen.at(-1)).toMatchObject({ phase: 'done', doneWeights: seen[0]!.totalWeights, resumedWeights: 0 });
    expect(seen.map((one) => one.doneWeights)).toEqual(seen.map((one) => one.doneWeights).sort((a, b) => a - b));
  });

  it.each([0.1, 0.5, 0.9])(
    'goes on and ends with the same bytes when killed after %f of the weights',
    async (share) => {
      const whole = join(directory, `out-${outs++}.moe`);
      let total = 0;
      await convert({
        source,
        out: whole,
        threads: 2,
        onProgress: ({ totalWeights }) => {
          total = totalWeights;
        },
      });
      const script = fileURLToPath(new URL('../helpers/convert-and-die.mjs', import.meta.url));
      const { signal } = spawnSync(process.execPath, [script, source, out, String(share * total)], { stdio: 'pipe' });
      expect(signal).toBe('SIGKILL');
      expect(existsSync(out)).toBe(false);
      await expect(openMoe(`${out}.partial`)).rejects.toMatchObject({ code: 'MODEL_INVALID' });

      let resumed = 0;
      await convert({
        source,
        out,
        threads: 1,
        onProgress: ({ resumedWeights }) => {
          resumed = resumedWeights;
        },
      });
      expect(content(out)).toEqual(content(whole));
      if (share >= 0.5) expect(resumed).toBeGreaterThan(0.3 * share * total);
    },
  );

  it('begins anew when what was left is of another conversion', async () => {
    const partial = `${out}.partial`;
    const script = fileURLToPath(new URL('../helpers/convert-and-die.mjs', import.meta.url));
    spawnSync(process.execPath, [script, source, out, '100000']);
    expect(existsSync(join(partial, 'ledger.json'))).toBe(true);
    let resumed = -1;
    await convert({
      source,
      out,
      bits: 4,
      threads: 1,
      onProgress: ({ resumedWeights }) => {
        resumed = resumedWeights;
      },
    });
    expect(resumed).toBe(0);
    await verifyMoe(out);
  });

  it.each(['garbage', '{}', 'null', '{"key":1,"tensors":[],"records":-1}'])(
    'begins anew when the ledger reads %j',
    async (text) => {
      mkdirSync(`${out}.partial`);
      writeFileSync(join(`${out}.partial`, 'ledger.json'), text);
      await convert({ source, out, threads: 1 });
      await verifyMoe(out);
    },
  );

  it('refuses to replace a model unless forced', async () => {
    await convert({ source, out, threads: 1 });
    const before = content(out);
    await expect(convert({ source, out, bits: 4, threads: 1 })).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    expect(content(out)).toEqual(before);
    await convert({ source, out, bits: 4, threads: 1, force: true });
    expect((await verifyMoe(out)).manifest.defaultLevel).toBe(4);
    expect(readdirSync(directory).filter((name) => name.startsWith(`${basename(out)}.`))).toEqual([]);
  });

  it('refuses to write where a living process writes', async () => {
    const lock = await takeLock(`${out}.partial`, out);
    await expect(convert({ source, out, threads: 1 })).rejects.toMatchObject({
      code: 'OUTPUT_EXISTS',
      message: expect.stringContaining(`process ${process.pid}`),
    });
    await lock.close();
    await convert({ source, out, threads: 1 });
  });

  it('goes on after a killed writer even when another process has its pid now', async () => {
    mkdirSync(`${out}.partial`);
    writeFileSync(join(`${out}.partial`, 'lock'), String(process.ppid));
    await convert({ source, out, threads: 1 });
    await verifyMoe(out);
  });

  it('lets exactly one of several writers of one place through, and leaves nothing else', async () => {
    const attempts = [1, 2, 3, 4].map(() => convert({ source, out, threads: 1 }));
    const outcomes = await Promise.allSettled(attempts);
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason.code] : []));
    expect(refused).toEqual(['OUTPUT_EXISTS', 'OUTPUT_EXISTS', 'OUTPUT_EXISTS']);
    await verifyMoe(out);
    expect(readdirSync(directory).filter((name) => name.startsWith(`${basename(out)}.`))).toEqual([]);
  });

  it('replaces nothing but a model, however forced: not a file, not a directory of other things', async () => {
    mkdirSync(out);
    writeFileSync(join(out, 'precious'), 'kept');
    const file = join(directory, 'precious-file');
    writeFileSync(file, 'kept');
    for (const place of [out, file]) {
      await expect(convert({ source, out: place, threads: 1, force: true })).rejects.toMatchObject({
        code: 'OUTPUT_EXISTS',
        message: expect.stringContaining('only a .moe directory'),
      });
    }
    expect([readFileSync(join(out, 'precious'), 'utf8'), readFileSync(file, 'utf8')]).toEqual(['kept', 'kept']);
  });

  it('does not write over its own source, nor over a directory that holds it', async () => {
    const around = join(directory, 'around.moe');
    cpSync(source, join(around, 'source'), { recursive: true });
    for (const name of ['manifest.json', 'experts.bin']) writeFileSync(join(around, name), '');
    for (const place of [around, join(around, 'source')]) {
      const attempt = convert({ source: join(around, 'source'), out: place, threads: 1, force: true });
      await expect(attempt).rejects.toMatchObject({
        code: 'OUTPUT_EXISTS',
        message: expect.stringContaining('the source'),
      });
    }
    expect(existsSync(join(around, 'source', 'config.json'))).toBe(true);
  });

  it('says what is free and needed, and writes nothing, when the disk is too small', async () => {
    const disk: Disk = { ...realDisk, freeBytes: async () => 1000 };
    await expect(convert({ source, out, threads: 1, disk })).rejects.toMatchObject({
      code: 'DISK_FULL',
      details: { found: 1000, needed: expect.any(Number) },
      message: expect.stringMatching(/has 1000 B free, needed .* more/),
    });
    expect(existsSync(out)).toBe(false);
  });

  it.each([0, 100_000, 600_000])('keeps what is done when the disk fills up after %i bytes', async (bytes) => {
    const disk = failingDisk(bytes, 'ENOSPC');
    await expect(convert({ source, out, threads: 2, disk, ledgerEveryBytes: 65536 })).rejects.toMatchObject({
      code: 'DISK_FULL',
      details: { found: 4096 },
    });
    expect(existsSync(out)).toBe(false);
    await convert({ source, out, threads: 1 });
    await verifyMoe(out);
  });

  it.each([
    ['EROFS', /read-only/],
    ['EACCES', /no permission/],
    ['EIO', /EIO/],
  ])('says what is wrong when writing fails with %s', async (code, message) => {
    await expect(convert({ source, out, threads: 1, disk: failingDisk(200_000, code) })).rejects.toMatchObject({
      code: 'IO_ERROR',
      message: expect.stringMatching(message),
    });
  });

  it('says so when the place of the output is a file', async () => {
    const place = join(directory, 'a-file');
    writeFileSync(place, '');
    await expect(convert({ source, out: join(place, 'x.moe'), threads: 1 })).rejects.toMatchObject({
      code: 'IO_ERROR',
    });
  });

  it('names the expert whose weights are not numbers', async () => {
    const bad = makeTinyModel('olmoe', 6);
    bad.experts[1]![2]!.up.values[5] = Number.NaN;
    const from = join(directory, 'nan-source');
    writeHuggingFace(bad, from, { dtype: 'F32' });
    await expect(convert({ source: from, out, threads: 2 })).rejects.toMatchObject({
      code: 'SOURCE_INVALID',
      message: expect.stringContaining('expert 1/2'),
    });
  });
});

describe('defaultBits()', () => {
  it('keeps level 8 for small models only', () => {
    expect(defaultBits(model.architecture)).toBe(8);
    expect(defaultBits(SYNTHETIC_SHAPES['olmoe-1b-7b']!)).toBe(4);
  });
});

function relativeError(found: Float32Array, needed: Float32Array): number {
  let error = 0;
  let energy = 0;
  needed.forEach((value, i) => {
    error += (found[i]! - value) ** 2;
    energy += value ** 2;
  });
  return error / energy;
}
