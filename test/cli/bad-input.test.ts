/** What the command line says of models, sources and places that are no good: one line naming found and needed. */
import { spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import type { Manifest } from '../../src/model/manifest.js';
import { MAIN, moestro } from '../helpers/moestro-process.js';
import { ggufMetadata, ggufTensors } from '../helpers/tiny-gguf.js';
import { huggingFaceConfig, writeHuggingFace } from '../helpers/tiny-hugging-face.js';
import { makeTinyModel } from '../helpers/tiny-models.js';
import { ggufBytes } from '../helpers/write-gguf.js';

const FILES = ['manifest.json', 'dense.safetensors', 'experts.bin', 'tokenizer.json', 'tokenizer_config.json'];
const manifest = JSON.parse(readFileSync(join(BUNDLED_MODEL, 'manifest.json'), 'utf8')) as Manifest;
const tiny = makeTinyModel('qwen3_moe', 1, { layerCount: 1, layerKinds: ['moe'] });

let root: string;
let source: string;
let count = 0;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'moestro-bad-'));
  source = join(root, 'source');
  writeHuggingFace(tiny, source, { shards: 2 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const place = (ending = ''): string => join(root, `${count++}${ending}`);

/** The bundled model with one file changed; undefined leaves the file out. */
function modelWith(file: string, change: (bytes: Buffer) => Buffer | undefined): string {
  const path = place('.moe');
  mkdirSync(path);
  for (const name of FILES) symlinkSync(join(BUNDLED_MODEL, name), join(path, name));
  unlinkSync(join(path, file));
  const bytes = change(readFileSync(join(BUNDLED_MODEL, file)));
  if (bytes !== undefined) writeFileSync(join(path, file), bytes);
  return path;
}

/** Flips a bit in the middle of one plane of every expert. */
const damagedPlane = (plane: number) => (bytes: Buffer) => {
  const { planes, recordBytes } = manifest.geometry;
  const { offset, bytes: length } = planes[plane]!;
  for (let at = offset + length / 2; at < bytes.length; at += recordBytes) bytes[at]! ^= 16;
  return bytes;
};
const text = (change: (text: string) => string) => (bytes: Buffer) => Buffer.from(change(bytes.toString()));

function hfWith(file: string, bytes: Buffer | string | undefined): string {
  const path = place();
  writeHuggingFace(tiny, path, { shards: 2 });
  unlinkSync(join(path, file));
  if (bytes !== undefined) writeFileSync(join(path, file), bytes);
  return path;
}

function ggufWith(
  change: (bytes: Buffer) => Buffer,
  metadata: Parameters<typeof ggufBytes>[0]['metadata'] = {},
): string {
  const path = place('.gguf');
  const whole = ggufBytes({ metadata: { ...ggufMetadata(tiny, 'F16'), ...metadata }, tensors: ggufTensors(tiny) });
  writeFileSync(path, change(Buffer.from(whole)));
  return path;
}

/** One message without a stack on standard error, nothing on standard output. */
async function expectRefusal(args: readonly string[], status: number, message: RegExp): Promise<void> {
  const outcome = await moestro(args);
  expect(outcome.stderr).toMatch(message);
  expect(outcome.stderr).toMatch(/^moestro: Cannot /);
  expect(outcome.stderr).not.toMatch(/^ +at /m);
  expect([outcome.status, outcome.stdout]).toEqual([status, '']);
}

describe('moestro chat with a model that is no good', () => {
  it.each([0, 1, 2, 3])('names the record and its checksum when plane %i is damaged', async (plane) => {
    const path = modelWith('experts.bin', damagedPlane(plane));
    await expectRefusal(
      ['chat', path, 'hi'],
      1,
      /Cannot read expert \d+\/\d+ .*checksum differs.* at offset \d+\n {2}hint: .*--verify/,
    );
    await expectRefusal(
      ['inspect', path, '--verify'],
      1,
      new RegExp(`plane ${plane} of expert 0/0 .*checksum .*needed`),
    );
  });

  it.each([
    ['experts.bin', (bytes: Buffer) => bytes.subarray(4096), 1, /experts\.bin has \d+ bytes, needed \d+/],
    ['experts.bin', () => undefined, 1, /experts\.bin is missing/],
    ['dense.safetensors', (bytes: Buffer) => bytes.fill(1, 2_000_000, 2_000_001), 1, /"layers\.3\.o".*CRC-32C is \d+/],
    ['manifest.json', text((json) => json.replace('"version": 1', '"version": 9')), 2, /version is 9, needed 1/],
    ['manifest.json', () => undefined, 2, /found no manifest\.json, needed a \.moe directory/],
    ['manifest.json', () => Buffer.alloc(0), 2, /manifest\.json is no JSON/],
    ['tokenizer.json', text((json) => json.slice(0, 1000)), 2, /tokenizer\.json": .*needed JSON/],
    ['tokenizer.json', text((json) => json.replace('"BPE"', '"Unigram"')), 2, /found "Unigram", supported are BPE/],
  ] as const)('refuses a changed %s (%#)', async (file, change, status, message) => {
    await expectRefusal(['chat', modelWith(file, change), 'hi'], status, message);
  });

  it('says what was found and needed of budgets, prompts and places', async () => {
    const tooLong = 'word '.repeat(3000);
    await expectRefusal(['chat', BUNDLED_MODEL, 'hi', '--budget', '20MiB'], 2, /in 20\.0 MiB: needed at least \d+ MiB/);
    await expectRefusal(['chat', BUNDLED_MODEL, tooLong], 2, /prompt of \d+ tokens: needed at most \d+/);
    await expectRefusal(['chat', '/dev/null', 'hi'], 2, /"\/dev\/null": found no manifest\.json/);
    await expectRefusal(['serve', '--host', ''], 2, /--host "": needed an address/);
    await expectRefusal(['eval', BUNDLED_MODEL, '--questions', '/nowhere'], 2, /Cannot read "\/nowhere"/);
    await expectRefusal(['chat', '/x\u001b[2J', 'hi'], 2, /"\/x\ufffd\[2J"/);
  });
});

describe('moestro convert with a source that is no good', () => {
  const SHARD = 'model-00002-of-00002.safetensors';
  const length = (bytes: bigint): Buffer => {
    const header = Buffer.alloc(64, ' ');
    header.writeBigUInt64LE(bytes);
    return header;
  };

  it.each([
    ['a missing shard', () => hfWith(SHARD, undefined), /00002-of-00002\.safetensors": there is no such file/],
    ['a header past the end', () => hfWith(SHARD, length(1n << 40n)), /header.*1099511627776/],
    ['an empty file', () => hfWith(SHARD, ''), /0 bytes/],
    [
      'another architecture',
      () => hfWith('config.json', JSON.stringify({ ...huggingFaceConfig(tiny), model_type: 'mamba' })),
      /mamba.*qwen3_moe/,
    ],
    ['a GGUF cut short', () => ggufWith((bytes) => bytes.subarray(0, 200)), /too many for the 184 bytes left/],
    ['absurd counts', () => ggufWith((bytes) => bytes.fill(255, 8, 16)), /tensor count is 18446744073709551615/],
    [
      'an unknown tokenizer',
      () => ggufWith((bytes) => bytes, { 'tokenizer.ggml.model': { type: 'string', value: 'rwkv' } }),
      /rwkv/,
    ],
    ['nothing', () => '/nowhere', /found nothing, needed/],
    ['no model', () => '/dev/null', /found a file of another kind, needed/],
  ])('refuses %s and writes nothing', async (_what, make, message) => {
    await expectRefusal(['convert', make(), place('.moe')], 2, message);
  });

  it('refuses to write over the source or into what is no directory', async () => {
    await expectRefusal(['convert', source, source, '--force'], 2, /the source .* lies there/);
    await expectRefusal(['convert', source, '/dev/null/x.moe'], 1, /"\/dev\/null\/x\.moe"/);
    expect(readFileSync(join(source, 'config.json'), 'utf8')).toContain('qwen3_moe');
  });
});

describe('moestro with readers that go or cannot take more', () => {
  it('says so in one line when standard output is full', async () => {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = await moestro(['inspect', '--json'], full);
    closeSync(full);
    expect(stderr).toMatch(/^moestro: Cannot write to standard output: ENOSPC[^\n]*\n$/);
    expect(status).toBe(1);
  });

  it('ends quietly when the reader of an answer has seen enough', async () => {
    const child = spawn(process.execPath, [MAIN, 'chat', BUNDLED_MODEL, 'Why?'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (data) => (stderr += data));
    child.stdout.once('data', () => child.stdout.destroy());
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect([status, stderr]).toEqual([0, '']);
  });

  it('converts to the end when nobody reads the progress', async () => {
    const out = place('.moe');
    const child = spawn(process.execPath, [MAIN, 'convert', source, out], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stderr.destroy();
    let stdout = '';
    child.stdout.on('data', (data) => (stdout += data));
    expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0);
    expect(stdout).toContain(`${out}: `);
  });
});
