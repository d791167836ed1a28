import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import { convert } from '../../src/model/convert.js';
import { openMoe, verifyMoe } from '../../src/model/read-moe.js';
import { savePrecision } from '../../src/model/save-precision.js';
import { loadAddon } from '../../src/native/binding.js';
import { writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel } from '../helpers/tiny-models.js';

interface Json {
  readonly [key: string]: Json | undefined;
}

let directory: string;
let whole: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-read-'));
  whole = join(directory, 'whole.moe');
  const source = join(directory, 'source');
  writeHuggingFace(makeTinyModel('qwen2_moe', 3), source);
  await convert({ source, out: whole, threads: 1 });
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

let copies = 0;
function copy(): string {
  const path = join(directory, `copy-${copies++}.moe`);
  cpSync(whole, path, { recursive: true });
  return path;
}

function withManifest(change: (manifest: Json) => void): string {
  const path = copy();
  const manifest = JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8')) as Json;
  change(manifest);
  writeFileSync(join(path, 'manifest.json'), JSON.stringify(manifest));
  return path;
}

const set = (object: unknown, key: string, value: unknown): void => {
  (object as Record<string, unknown>)[key] = value;
};

/** A precision that is right but for the change. */
const precise = (manifest: Json, change: object): void =>
  set(manifest, 'precision', { tokens: 1, sensitivities: [1, 1, 1], importances: [1], ...change });

describe('openMoe()', () => {
  it('refuses a manifest that is a pipe or a directory, without waiting for it', async () => {
    for (const make of [(path: string) => execFileSync('mkfifo', [path]), (path: string) => mkdirSync(path)]) {
      const path = copy();
      unlinkSync(join(path, 'manifest.json'));
      make(join(path, 'manifest.json'));
      await expect(openMoe(path)).rejects.toMatchObject({
        code: 'MODEL_INVALID',
        message: expect.stringContaining('manifest.json is no file'),
      });
    }
  });

  it('gives offsets and checksums of every plane when the model is whole', async () => {
    const model = await openMoe(whole);
    const { geometry, architecture } = model.manifest;
    const bytes = readFileSync(model.expertsPath);
    const { crc32c } = loadAddon();
    for (const [layer, expert] of [
      [0, 0],
      [1, 5],
      [2, architecture.expertCount - 1],
    ] as const) {
      for (const [plane, { offset, bytes: length }] of geometry.planes.entries()) {
        const at = model.expertOffset(layer, expert) + offset;
        expect(crc32c(0, bytes.subarray(at, at + length))).toBe(model.planeCrc(layer, expert, plane));
      }
    }
    expect(model.moeLayerIndex).toEqual([0, 1, 2]);
    expect(() => model.expertOffset(0, architecture.expertCount)).toThrow(MoestroError);
    expect(() => model.planeCrc(3, 0, 0)).toThrow(MoestroError);
  });

  it('keeps the precision that calibration wrote', async () => {
    const path = withManifest((m) => precise(m, {}));
    await savePrecision(path, { tokens: 9, sensitivities: [1, 2, 3], importances: [0, 0.5] });
    const { precision } = (await openMoe(path)).manifest;
    expect(precision).toEqual({ tokens: 9, sensitivities: [1, 2, 3], importances: [0, 0.5] });
    const wrong = { tokens: 9, sensitivities: [1], importances: [1] };
    await expect(savePrecision(path, wrong)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    expect((await openMoe(path)).manifest.precision).toEqual(precision);
  });

  it.each<[string, string, RegExp, (manifest: Json) => void]>([
    ['another version', 'MODEL_VERSION', /version is 2, needed 1/, (m) => set(m, 'version', 2)],
    ['a missing version', 'MODEL_VERSION', /missing/, (m) => set(m, 'version', undefined)],
    ['another format', 'MODEL_INVALID', /format "gguf"/, (m) => set(m, 'format', 'gguf')],
    ['no architecture', 'MODEL_INVALID', /architecture missing/, (m) => set(m, 'architecture', undefined)],
    ['a text for a number', 'MODEL_INVALID', /hiddenSize/, (m) => set(m.architecture, 'hiddenSize', '128')],
    ['too many layers', 'MODEL_INVALID', /layerCount/, (m) => set(m.architecture, 'layerCount', 1e9)],
    ['a layer of no kind', 'MODEL_INVALID', /layerKinds\[1\]/, (m) => set(m.architecture!.layerKinds, '1', 'other')],
    ['more experts', 'MODEL_INVALID', /router.*rows|experts\.bytes/, (m) => set(m.architecture, 'expertCount', 9)],
    ['other planes', 'MODEL_INVALID', /planes\[1\]\.offset/, (m) => set(m.geometry!.planes![1], 'offset', 0)],
    ['a negative record', 'MODEL_INVALID', /recordBytes/, (m) => set(m.geometry, 'recordBytes', -4096)],
    ['other bits', 'MODEL_INVALID', /bitsStored 6/, (m) => set(m.geometry, 'bitsStored', 6)],
    ['a level that is not stored', 'MODEL_INVALID', /levels/, (m) => set(m, 'levels', [2, 3, 4])],
    ['a default that is no level', 'MODEL_INVALID', /defaultLevel/, (m) => set(m, 'defaultLevel', 5)],
    ['a table entry of -128', 'MODEL_INVALID', /t4\[0\]/, (m) => set(m.tables!.t4, '0', -128)],
    ['a residual step of 0', 'MODEL_INVALID', /residualStep/, (m) => set(m.tables, 'residualStep', 0)],
    [
      'a tensor too few',
      'MODEL_INVALID',
      /tensors\["layers\.1\.q"\] missing/,
      (m) => set(m.dense!.tensors, 'layers.1.q', undefined),
    ],
    ['a tensor too many', 'MODEL_INVALID', /tensors\["other"\]/, (m) => set(m.dense!.tensors, 'other', {})],
    ['a tensor past the end', 'MODEL_INVALID', /ends inside/, (m) => set(m.dense!.tensors!.embedding, 'offset', 1e12)],
    [
      'tensors that overlap',
      'MODEL_INVALID',
      /reaches there/,
      (m) => set(m.dense!.tensors!.final_norm, 'offset', 4096),
    ],
    ['a tensor in the header', 'MODEL_INVALID', /offset/, (m) => set(m.dense!.tensors!.embedding, 'offset', 0)],
    ['a tensor of another shape', 'MODEL_INVALID', /rows/, (m) => set(m.dense!.tensors!.embedding, 'rows', 1)],
    ['a tensor of another kind', 'MODEL_INVALID', /kind/, (m) => set(m.dense!.tensors!.embedding, 'kind', 'f32')],
    ['a tensor of no kind', 'MODEL_INVALID', /kind "q5"/, (m) => set(m.dense!.tensors!.embedding, 'kind', 'q5')],
    ['a matrix said to be smaller', 'MODEL_INVALID', /bytes/, (m) => set(m.dense!.tensors!.embedding, 'kind', 'q4')],
    ['an experts file elsewhere', 'MODEL_INVALID', /experts\.file/, (m) => set(m.experts, 'file', '../x')],
    ['fewer checksums', 'MODEL_INVALID', /checksums/, (m) => set(m.experts, 'checksums', 'AAAA')],
    [
      'an eos beyond the vocabulary',
      'MODEL_INVALID',
      /eosTokenIds\[0\]/,
      (m) => set(m.generation, 'eosTokenIds', [1e6]),
    ],
    ['a precision of no layers', 'MODEL_INVALID', /precision\.sensitivities/, (m) => precise(m, { sensitivities: [] })],
    [
      'a sensitivity of nothing',
      'MODEL_INVALID',
      /precision\.sensitivities\[0\] 0,/,
      (m) => precise(m, { sensitivities: [0, 1, 1] }),
    ],
    ['no importances', 'MODEL_INVALID', /precision\.importances/, (m) => precise(m, { importances: [] })],
    [
      'an importance that is no number',
      'MODEL_INVALID',
      /precision\.importances\[1\] "x"/,
      (m) => precise(m, { importances: [1, 'x'] }),
    ],
    ['a quality of no level', 'MODEL_INVALID', /relativeError/, (m) => set(m.quality!.relativeError, '7', 0.1)],
  ])('refuses %s as %s', async (_, code, message, change) => {
    await expect(openMoe(withManifest(change))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it.each(['', '{', 'null', '[]', '"text"', '1e999'])('refuses a manifest that reads %j', async (text) => {
    const path = copy();
    writeFileSync(join(path, 'manifest.json'), text);
    await expect(openMoe(path)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  });

  it.each(['experts.bin', 'dense.safetensors'])('says found and needed when %s is cut short', async (file) => {
    const path = copy();
    const { length } = readFileSync(join(path, file));
    truncateSync(join(path, file), length - 1);
    await expect(openMoe(path)).rejects.toMatchObject({
      code: 'MODEL_CORRUPT',
      message: expect.stringContaining(`${file} has ${length - 1} bytes, needed ${length}`),
    });
  });

  it.each(['experts.bin', 'dense.safetensors', 'tokenizer.json', 'tokenizer_config.json'])(
    'says so when %s is missing or a link to nothing',
    async (file) => {
      const path = copy();
      unlinkSync(join(path, file));
      await expect(openMoe(path)).rejects.toMatchObject({ code: 'MODEL_CORRUPT' });
      symlinkSync('nowhere', join(path, file));
      await expect(openMoe(path)).rejects.toMatchObject({ code: 'MODEL_CORRUPT' });
    },
  );

  it('says what is needed when the path is no model', async () => {
    await expect(openMoe(join(directory, 'nothing'))).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    await expect(openMoe(join(whole, 'manifest.json'))).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  });

  it('opens or refuses with a code of its own when any value of the manifest is changed', async () => {
    const text = readFileSync(join(whole, 'manifest.json'), 'utf8');
    const paths = leaves(JSON.parse(text));
    const path = copy();
    await fc.assert(
      fc.asyncProperty(fc.nat(paths.length - 1), fc.jsonValue(), fc.boolean(), async (index, value, remove) => {
        const manifest = JSON.parse(text) as Record<string, unknown>;
        const keys = paths[index]!;
        let at = manifest;
        for (const key of keys.slice(0, -1)) at = at[key] as Record<string, unknown>;
        if (remove) delete at[keys.at(-1)!];
        else at[keys.at(-1)!] = value;
        writeFileSync(join(path, 'manifest.json'), JSON.stringify(manifest));
        await openOrRefuse(path);
      }),
      { numRuns: 400, seed: 1 },
    );
  });

  it('opens or refuses with a code of its own when bytes of the manifest are overwritten', async () => {
    const bytes = readFileSync(join(whole, 'manifest.json'));
    const path = copy();
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.uint8Array({ minLength: 1, maxLength: 4 }), async (at, patch) => {
        const changed = Buffer.from(bytes);
        changed.set(patch.subarray(0, changed.length - at), at);
        writeFileSync(join(path, 'manifest.json'), changed);
        await openOrRefuse(path);
      }),
      { numRuns: 400, seed: 2 },
    );
  });
});

describe('verifyMoe()', () => {
  it('counts every byte once when the model is whole', async () => {
    const seen: number[] = [];
    const { manifest } = await verifyMoe(whole, ({ doneBytes, totalBytes }) => seen.push(doneBytes / totalBytes));
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(manifest.levels).toEqual([2, 3, 4, 8]);
  });

  it('names the expert plane when one bit of it is flipped', async () => {
    const path = copy();
    const model = await openMoe(path);
    flipBit(model.expertsPath, model.expertOffset(2, 3) + model.manifest.geometry.planes[2]!.offset + 77);
    await expect(verifyMoe(path)).rejects.toMatchObject({
      code: 'MODEL_CORRUPT',
      message: expect.stringContaining('plane 2 of expert 2/3'),
    });
  });

  it('names the tensor when one bit of it is flipped', async () => {
    const path = copy();
    const model = await openMoe(path);
    flipBit(model.densePath, model.manifest.dense.tensors['layers.1.router']!.offset);
    await expect(verifyMoe(path)).rejects.toMatchObject({
      code: 'MODEL_CORRUPT',
      message: expect.stringContaining('"layers.1.router"'),
    });
  });
});

function flipBit(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 16;
  writeFileSync(file, bytes);
}

/** A changed manifest may still be a valid one (another name, another checksum); nothing else may get through. */
async function openOrRefuse(path: string): Promise<void> {
  try {
    const { manifest } = await openMoe(path);
    expect(manifest.experts.bytes).toBeGreaterThan(0);
  } catch (error) {
    expect(error).toBeInstanceOf(MoestroError);
    expect(['MODEL_INVALID', 'MODEL_VERSION', 'MODEL_CORRUPT']).toContain((error as MoestroError).code);
  }
}

/** Key paths of everything in a JSON value. */
function leaves(value: unknown, path: readonly string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [[...path]];
  return Object.entries(value).flatMap(([key, child]) => [[...path, key], ...leaves(child, [...path, key])]);
}
