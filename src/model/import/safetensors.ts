/**
 * Which tensors does a safetensors file hold, and where? Reads headers only, and believes nothing in them: the format
 * allows no overlaps and no holes, so every byte of the file must belong to exactly one tensor.
 * Format: huggingface/safetensors, README, "Format".
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { MoestroError } from '../../errors.js';
import type { RawTensor } from './source-dtypes.js';
import { openSourceFile, parseJsonObject, readSourceText, type SourceFile } from './source-file.js';

/** The reference implementation's own limit on a header. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_INDEX_BYTES = 256 << 20;
const MAX_SHARDS = 4096;
const MAX_RANK = 8;

/** Bytes of one element of each dtype of the format. */
const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
};

export interface TensorFiles {
  readonly tensors: ReadonlyMap<string, RawTensor>;
  close(): Promise<void>;
}

/** Opens every safetensors file of a Hugging Face directory: by its index where there is one, else the single file. */
export async function openSafetensors(directory: string): Promise<TensorFiles> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.safetensors')).sort();
  const indexName = 'model.safetensors.index.json';
  const weightMap = (await readdir(directory)).includes(indexName) ? await readIndex(join(directory, indexName)) : null;
  const shards = weightMap === null ? singleFile(directory, names) : [...new Set(weightMap.values())].sort();
  const files: SourceFile[] = [];
  const tensors = new Map<string, RawTensor>();
  try {
    for (const shard of shards) {
      const file = await openSourceFile(join(directory, shard));
      files.push(file);
      for (const tensor of await readSafetensorsHeader(file)) {
        if (tensors.has(tensor.name))
          fail(file, `tensor "${tensor.name}" is also in "${tensors.get(tensor.name)!.file.name}"`);
        tensors.set(tensor.name, tensor);
      }
    }
    for (const [name, shard] of weightMap ?? []) {
      const found = tensors.get(name);
      if (found?.file.name !== shard) {
        const file = files.find((one) => one.name === shard)!;
        fail(file, `it has no tensor "${name}", which ${indexName} places there`);
      }
    }
  } catch (error) {
    await Promise.all(files.map((file) => file.close()));
    throw error;
  }
  return { tensors, close: async () => void (await Promise.all(files.map((file) => file.close()))) };
}

function singleFile(directory: string, names: readonly string[]): readonly string[] {
  if (names.length === 1) return names;
  if (names.includes('model.safetensors')) return ['model.safetensors'];
  const found = names.length === 0 ? 'no .safetensors file' : `${names.length} .safetensors files and no index`;
  throw new MoestroError(
    'SOURCE_INVALID',
    `Cannot read the weights in "${directory}": found ${found}, needed model.safetensors or model.safetensors.index.json`,
  );
}

async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  const index = parseJsonObject(await readSourceText(path, MAX_INDEX_BYTES), `"${path}"`);
  const map = index.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new MoestroError('SOURCE_INVALID', `Cannot read "${path}": it has no weight_map object`);
  }
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    // A plain name in the same directory: an index must not open files elsewhere.
    if (typeof shard !== 'string' || !/^[\w][\w.-]*\.safetensors$/.test(shard)) {
      throw new MoestroError(
        'SOURCE_INVALID',
        `Cannot read "${path}": tensor "${tensor}" has shard ${JSON.stringify(shard)}`,
      );
    }
    shards.set(tensor, shard);
  }
  if (new Set(shards.values()).size > MAX_SHARDS || shards.size === 0) {
    throw new MoestroError('SOURCE_INVALID', `Cannot read "${path}": needed 1 to ${MAX_SHARDS} shards`);
  }
  return shards;
}

/** Tensors of one file, checked against its size. Throws SOURCE_INVALID naming the file. */
export async function readSafetensorsHeader(file: SourceFile): Promise<readonly RawTensor[]> {
  if (file.size < 8) fail(file, `${file.size} bytes are too few for a header`);
  const prefix = await file.readAt(0, 8, 'the header length');
  const headerBytes = new DataView(prefix.buffer).getBigUint64(0, true);
  if (headerBytes > BigInt(MAX_HEADER_BYTES))
    fail(file, `its header length is ${headerBytes}, at most ${MAX_HEADER_BYTES} allowed`);
  const length = Number(headerBytes);
  if (8 + length > file.size) fail(file, `its header of ${length} bytes ends past the file's ${file.size}`);
  const text = decodeUtf8(file, await file.readAt(8, length, 'the header'));
  const header = parseJsonObject(text, `the header of "${file.path}"`);
  checkNoDuplicates(file, text, header);
  const dataStart = 8 + length;
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => parseEntry(file, name, entry, dataStart));
  checkCoverage(file, tensors, dataStart);
  return tensors;
}

function parseEntry(file: SourceFile, name: string, entry: unknown, dataStart: number): RawTensor {
  const where = `tensor "${name}"`;
  if (typeof entry !== 'object' || entry === null) fail(file, `${where} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(ELEMENT_BYTES, dtype))
    fail(file, `${where} has dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || shape.length > MAX_RANK || !shape.every(isCount))
    fail(file, `${where} has no valid shape`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    fail(file, `${where} has no valid data_offsets`);
  const [begin, end] = offsets as [number, number];
  if (end < begin || dataStart + end > file.size) {
    fail(file, `${where} lies at ${begin} to ${end} of ${file.size - dataStart} data bytes`);
  }
  const needed = (shape as number[]).reduce((product, size) => product * size, ELEMENT_BYTES[dtype]!);
  if (needed !== end - begin)
    fail(file, `${where} is ${dtype} [${shape.join(', ')}], which needs ${needed} bytes and has ${end - begin}`);
  return { name, dtype, shape: shape as number[], file, offset: dataStart + begin, byteLength: end - begin };
}

/** No byte twice and none left over. */
function checkCoverage(file: SourceFile, tensors: readonly RawTensor[], dataStart: number): void {
  const sorted = [...tensors].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let at = dataStart;
  for (const tensor of sorted) {
    if (tensor.offset < at)
      fail(file, `tensor "${tensor.name}" overlaps the one before it by ${at - tensor.offset} bytes`);
    if (tensor.offset > at) fail(file, `there is a hole of ${tensor.offset - at} bytes before tensor "${tensor.name}"`);
    at = tensor.offset + tensor.byteLength;
  }
  if (at !== file.size) fail(file, `its tensors end at ${at} of ${file.size} bytes`);
}

/**
 * JSON.parse keeps the last of two equal keys, so keys at depth one are counted in the text, which is known to parse.
 * A loop and not a pattern, because a hostile string may be a hundred megabytes long.
 */
function checkNoDuplicates(file: SourceFile, text: string, header: Readonly<Record<string, unknown>>): void {
  let depth = 0;
  let keys = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') depth--;
    else if (char === ':' && depth === 1) keys++;
    else if (char === '"') {
      at++;
      while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    }
  }
  const distinct = Object.keys(header).length;
  if (keys !== distinct) fail(file, `its header describes ${keys} tensors under ${distinct} names`);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function decodeUtf8(file: SourceFile, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new MoestroError('SOURCE_INVALID', `Cannot read "${file.path}": its header is not UTF-8`, {}, error);
  }
}

function fail(file: SourceFile, found: string): never {
  throw new MoestroError('SOURCE_INVALID', `Cannot read "${file.path}": ${found}`, { file: file.name });
}
