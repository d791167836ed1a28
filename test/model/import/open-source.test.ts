import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import type { ErrorCode } from '../../../src/errors.js';
import { openSource } from '../../../src/model/import/index.js';
import type { ModelSource, SourceTensor } from '../../../src/model/import/source.js';
import { encodeValues, type PlainDtype, type WritableDtype } from '../../helpers/number-formats.js';
import { ggufMetadata, ggufTensors, writeTinyGguf } from '../../helpers/tiny-gguf.js';
import { huggingFaceConfig, huggingFaceTensors, writeHuggingFace } from '../../helpers/tiny-hugging-face.js';
import { makeTinyModel, TINY_FAMILIES, type TinyMatrix, type TinyModel } from '../../helpers/tiny-models.js';
import { type GgufTensor, type GgufValue, ggufBytes } from '../../helpers/write-gguf.js';
import { type SafetensorsEntry, safetensorsBytes } from '../../helpers/write-safetensors.js';

const root = mkdtempSync(join(tmpdir(), 'moestro-source-'));
let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(root, 'case-'));
});
afterAll(() => rmSync(root, { recursive: true }));

async function expectMatrix(tensor: SourceTensor, { rows, cols, values }: TinyMatrix, dtype: WritableDtype) {
  const bytes = encodeValues(dtype, values);
  expect(tensor).toMatchObject({ dtype, rows, cols, byteLength: bytes.length });
  expect(Buffer.compare(await tensor.read(), bytes)).toBe(0);
  // Rows on their own, at an odd place.
  const [first, count] = [Math.floor(rows / 3), Math.min(5, rows - Math.floor(rows / 3))];
  const rowBytes = bytes.length / rows;
  const part = await tensor.readRows(first, count);
  expect(Buffer.compare(part, bytes.subarray(first * rowBytes, (first + count) * rowBytes))).toBe(0);
}

async function expectModel(source: ModelSource, model: TinyModel, dtypeOf: (name: string) => WritableDtype) {
  expect(source.architecture).toEqual(model.architecture);
  expect([...source.denseNames].sort()).toEqual([...model.dense.keys()].sort());
  for (const [name, matrix] of model.dense) await expectMatrix(source.dense(name), matrix, dtypeOf(name));
  for (const [layer, experts] of model.experts.entries()) {
    for (const [index, expert] of experts.entries()) {
      const { gate, up, down } = source.expert(layer, index);
      await expectMatrix(gate, expert.gate, dtypeOf('expert'));
      await expectMatrix(up, expert.up, dtypeOf('expert'));
      await expectMatrix(down, expert.down, dtypeOf('expert'));
    }
  }
}

const small = { layerCount: 2, layerKinds: ['moe', 'moe'] as const, expertCount: 4 };

test.each(TINY_FAMILIES)('openSource() reads every tensor of a Hugging Face %s', async (family) => {
  const model = makeTinyModel(family, 3, small);
  writeHuggingFace(model, directory, { dtype: 'F16', shards: 3 });
  const source = await openSource(directory);
  await expectModel(source, model, () => 'F16');
  expect(source.describe).toBe('safetensors F16');
  expect(source.generation).toEqual({
    eosTokenIds: [model.vocabulary.eosId],
    bosTokenId: model.vocabulary.bosId,
    addBos: model.vocabulary.addBos,
  });
  expect(JSON.parse(source.tokenizerJson).model.type).toBe('BPE');
  expect(JSON.parse(source.tokenizerConfigJson).chat_template).toBe(model.vocabulary.chatTemplate);
  expect(source.byteLength).toBe(huggingFaceTensors(model).reduce((sum, { bytes }) => sum + bytes.length, 0));
  await source.close();
});

const llamaDtype = (dtype: WritableDtype) => (name: string) => (/(norm|bias|router)$/.test(name) ? 'F32' : dtype);

test.each(TINY_FAMILIES)('openSource() reads every tensor of a GGUF %s', async (family) => {
  const model = makeTinyModel(family, 4, small);
  const path = join(directory, 'tiny.gguf');
  writeTinyGguf(model, path, { dtype: 'F16' });
  const source = await openSource(path);
  // GGUF keeps float32 where config.json has decimals.
  const rmsNormEps = Math.fround(model.architecture.rmsNormEps);
  await expectModel(source, { ...model, architecture: { ...model.architecture, rmsNormEps } }, llamaDtype('F16'));
  expect(source).toMatchObject({ name: 'tiny', describe: 'GGUF F16' });
  await source.close();
});

test.each<PlainDtype>(['F32', 'BF16'])('openSource() reads safetensors of %s', async (dtype) => {
  const model = makeTinyModel('qwen3_moe', 5, small);
  writeHuggingFace(model, directory, { dtype });
  const source = await openSource(directory);
  await expectModel(source, model, () => dtype);
  await source.close();
});

test.each<WritableDtype>(['Q8_0', 'Q4_0', 'BF16', 'F32'])(
  'openSource() undoes the row order of llama files in blocks of %s',
  async (dtype) => {
    const model = makeTinyModel('mixtral', 6, small);
    const path = join(directory, 'mixtral.gguf');
    writeTinyGguf(model, path, { dtype, separateExperts: dtype === 'Q4_0' });
    const source = await openSource(path);
    const rmsNormEps = Math.fround(model.architecture.rmsNormEps);
    await expectModel(source, { ...model, architecture: { ...model.architecture, rmsNormEps } }, llamaDtype(dtype));
    await source.close();
  },
);

function writeParts(model: TinyModel, numbers: readonly number[]): string {
  const tensors = ggufTensors(model);
  const share = Math.ceil(tensors.length / 3);
  for (const [part, number] of numbers.entries()) {
    const split = { 'split.no': { type: 'u16', value: number }, 'split.count': { type: 'u16', value: 3 } } as const;
    const metadata = part === 0 ? { ...ggufMetadata(model, 'F16'), ...split } : split;
    const bytes = ggufBytes({ metadata, tensors: tensors.slice(part * share, (part + 1) * share) });
    writeFileSync(join(directory, `big-0000${part + 1}-of-00003.gguf`), bytes);
  }
  return join(directory, 'big-00002-of-00003.gguf');
}

test('openSource() puts the parts of a split GGUF together by the name of any of them', async () => {
  const model = makeTinyModel('mixtral', 12, small);
  const source = await openSource(writeParts(model, [0, 1, 2]));
  const rmsNormEps = Math.fround(model.architecture.rmsNormEps);
  await expectModel(source, { ...model, architecture: { ...model.architecture, rmsNormEps } }, llamaDtype('F16'));
  expect(source.name).toBe('big');
  await source.close();
});

test('openSource() refuses a split GGUF when a part is missing or another one', async () => {
  const model = makeTinyModel('olmoe', 13, small);
  await expect(openSource(writeParts(model, [0, 2, 1]))).rejects.toThrow(
    /00002-of-00003.*part 2 of 3, needed part 1 of 3/,
  );
  rmSync(join(directory, 'big-00001-of-00003.gguf'));
  await expect(openSource(join(directory, 'big-00003-of-00003.gguf'))).rejects.toThrow(
    expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(/00001-of-00003.*no such file/) }),
  );
});

test('openSource() cuts experts out of fused tensors', async () => {
  const model = makeTinyModel('olmoe', 7, small);
  writeHuggingFace(model, directory, { fused: true });
  const source = await openSource(directory);
  await expectModel(source, model, () => 'F16');
  await source.close();
});

test('openSource() reads tied embeddings and layers without experts', async () => {
  const model = makeTinyModel('qwen3_moe', 8, {
    ...small,
    layerKinds: ['dense', 'moe'],
    denseFfnSize: 96,
    tiedEmbeddings: true,
  });
  writeHuggingFace(model, directory);
  const source = await openSource(directory);
  await expectModel(source, model, () => 'F16');
  expect(source.denseNames).not.toContain('head');
  expect(() => source.expert(0, 0)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  expect(() => source.dense('head')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  await source.close();
});

test('openSource() takes the ends, the template and the begin token from wherever newer checkpoints keep them', async () => {
  const model = makeTinyModel('mixtral', 9, small);
  writeHuggingFace(model, directory);
  writeFileSync(join(directory, 'generation_config.json'), JSON.stringify({ eos_token_id: [2, 7, 99999] }));
  writeFileSync(join(directory, 'chat_template.jinja'), 'from a file');
  const config = JSON.parse(readFileSync(join(directory, 'tokenizer_config.json'), 'utf8'));
  delete config.add_bos_token;
  config.bos_token = { content: '<s>', special: true };
  writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(config));
  const source = await openSource(directory);
  // add_bos_token is not said, but the post-processor of tokenizer.json puts <s> first.
  expect(source.generation).toEqual({ eosTokenIds: [2, 7], bosTokenId: 1, addBos: true });
  expect(JSON.parse(source.tokenizerConfigJson).chat_template).toBe('from a file');
  await source.close();
});

test('openSource() gives a source whose reads fail clearly after close and when the file shrinks', async () => {
  const model = makeTinyModel('olmoe', 10, small);
  const path = join(directory, 'tiny.gguf');
  writeTinyGguf(model, path);
  const source = await openSource(path);
  writeFileSync(path, readFileSync(path).subarray(0, 200_000));
  const { down } = source.expert(1, 3);
  await expect(down.read()).rejects.toThrow(
    expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(/got \d+ of 16384 bytes/) }),
  );
  await source.close();
  await source.close();
  await expect(down.read()).rejects.toThrow(expect.objectContaining({ code: 'IO_ERROR' }));
  await expect(down.readRows(127, 2)).rejects.toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});

const base = makeTinyModel('qwen3_moe', 11, small);

function writeChanged(change: {
  readonly config?: Record<string, unknown>;
  readonly tensors?: (entries: SafetensorsEntry[]) => SafetensorsEntry[];
  readonly files?: Readonly<Record<string, string | null>>;
}): string {
  writeHuggingFace(base, directory);
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...huggingFaceConfig(base), ...change.config }));
  const entries = huggingFaceTensors(base);
  writeFileSync(join(directory, 'model.safetensors'), safetensorsBytes(change.tensors?.(entries) ?? entries));
  for (const [name, text] of Object.entries(change.files ?? {})) {
    if (text === null) rmSync(join(directory, name));
    else writeFileSync(join(directory, name), text);
  }
  return directory;
}

const ROUTER = 'model.layers.1.mlp.gate.weight';
const without = (name: string) => (entries: SafetensorsEntry[]) => entries.filter((one) => one.name !== name);
const reshaped =
  (shape: number[], dtype = 'F16') =>
  (entries: SafetensorsEntry[]) =>
    entries.map((one) => (one.name === ROUTER ? { ...one, shape, dtype } : one));

test.each<[string, Parameters<typeof writeChanged>[0], ErrorCode, RegExp]>([
  ['an unknown architecture', { config: { model_type: 'gpt_oss' } }, 'UNSUPPORTED_ARCHITECTURE', /"gpt_oss"/],
  ['a config that is no object', { files: { 'config.json': '3' } }, 'SOURCE_INVALID', /config.json.*JSON object/],
  ['a config that is not JSON', { files: { 'config.json': '{' } }, 'SOURCE_INVALID', /config.json/],
  ['quantised weights', { config: { quantization_config: { quant_method: 'fp8' } } }, 'UNSUPPORTED_DTYPE', /"fp8"/],
  ['no tokenizer', { files: { 'tokenizer.json': null } }, 'SOURCE_INVALID', /tokenizer.json is missing/],
  [
    'another tokenizer',
    { files: { 'tokenizer.json': '{"model":{"type":"Unigram"}}' } },
    'UNSUPPORTED_TOKENIZER',
    /"Unigram", supported is "BPE"/,
  ],
  ['a tokenizer without model', { files: { 'tokenizer.json': '{}' } }, 'UNSUPPORTED_TOKENIZER', /null/],
  ['a missing tensor', { tensors: without(ROUTER) }, 'SOURCE_INVALID', /"model.layers.1.mlp.gate.weight" is missing/],
  [
    'a missing expert',
    { tensors: without('model.layers.0.mlp.experts.2.up_proj.weight') },
    'SOURCE_INVALID',
    /experts.2.up_proj.weight" is missing/,
  ],
  ['a turned matrix', { tensors: reshaped([64, 4]) }, 'SOURCE_INVALID', /is \[64, 4\], needed 4 rows of 64/],
  ['a folded matrix', { tensors: reshaped([2, 2, 64]) }, 'SOURCE_INVALID', /is \[2, 2, 64\]/],
  ['an integer matrix', { tensors: reshaped([4, 64], 'I16') }, 'UNSUPPORTED_DTYPE', /mlp.gate.weight.*dtype is I16/],
  ['more experts than told', { config: { num_experts: 3 } }, 'SOURCE_INVALID', /needed 3 rows of 64/],
  [
    'a tensor too many',
    { tensors: (all) => [...all, { ...all[0]!, name: 'model.layers.0.self_attn.o_proj.bias' }] },
    'UNSUPPORTED_ARCHITECTURE',
    /o_proj.bias" is not one that qwen3_moe has/,
  ],
])('openSource() refuses a Hugging Face directory with %s', async (_, change, code, message) => {
  await expect(openSource(writeChanged(change))).rejects.toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});

test.each<[string, Record<string, GgufValue>, (tensors: GgufTensor[]) => GgufTensor[], ErrorCode, RegExp]>([
  [
    'one part of several',
    { 'split.count': { type: 'u16', value: 3 } },
    (t) => t,
    'SOURCE_INVALID',
    /it is part 0 of 3, needed part 0 of 1/,
  ],
  [
    'rotary factors',
    {},
    (t) => [...t, { ...t[2]!, name: 'rope_freqs.weight' }],
    'UNSUPPORTED_ARCHITECTURE',
    /"rope_freqs.weight" is not one/,
  ],
  [
    'blocks we cannot read',
    {},
    (t) =>
      t.map((one) =>
        one.name === 'blk.0.attn_v.weight'
          ? { ...one, type: 20, bytes: one.bytes.slice(0, one.bytes.length / 2) }
          : one,
      ),
    'UNSUPPORTED_DTYPE',
    /attn_v.weight.*IQ4_NL/,
  ],
  [
    'fewer experts than told',
    { 'qwen3moe.expert_count': { type: 'u32', value: 8 } },
    (t) => t,
    'SOURCE_INVALID',
    /ffn_gate_inp.weight" is \[4, 64\], needed 8 rows/,
  ],
])('openSource() refuses a GGUF file with %s', async (_, metadata, change, code, message) => {
  const path = join(directory, 'changed.gguf');
  const parts = { metadata: { ...ggufMetadata(base, 'F16'), ...metadata }, tensors: change(ggufTensors(base)) };
  writeFileSync(path, ggufBytes(parts));
  await expect(openSource(path)).rejects.toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});

test.each<[string, (path: string) => void, RegExp]>([
  ['nothing', () => undefined, /found nothing/],
  ['a file of another kind', (path) => writeFileSync(path, 'text'), /found a file of another kind/],
  ['an empty directory', (path) => mkdirSync(path), /without config.json/],
  [
    'a converted model',
    (path) => {
      mkdirSync(path);
      writeFileSync(join(path, 'manifest.json'), '{}');
    },
    /already converted/,
  ],
])('openSource() says what it found when there is %s', async (_, make, message) => {
  const path = join(directory, 'model');
  make(path);
  await expect(openSource(path)).rejects.toThrow(
    expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(message) }),
  );
});
