/**
 * What does a GGUF file say, and where are its tensors? Reads metadata and the tensor list of versions 2 and 3, each
 * count and length held against the bytes that are left, so a hostile header costs no more memory than its own size.
 * Format: ggml, docs/gguf.md.
 */
import { MoestroError } from '../../errors.js';
import type { SourceDtype } from '../../native/binding.js';
import { GgufCursor } from './gguf-cursor.js';
import { type BlockSize, type RawTensor, SOURCE_BLOCKS } from './source-dtypes.js';
import type { SourceFile } from './source-file.js';

/** ggml's type numbers of the dtypes that can be converted. */
const TYPE_NAMES: readonly (readonly [number, SourceDtype])[] = [
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [6, 'Q5_0'],
  [7, 'Q5_1'],
  [8, 'Q8_0'],
  [10, 'Q2_K'],
  [11, 'Q3_K'],
  [12, 'Q4_K'],
  [13, 'Q5_K'],
  [14, 'Q6_K'],
  [30, 'BF16'],
];

/** Types that are only known in order to step over them: number, name, weights and bytes of a block. */
const OTHER_TYPES: readonly (readonly [number, string, number, number])[] = [
  [9, 'Q8_1', 32, 36],
  [15, 'Q8_K', 256, 292],
  [16, 'IQ2_XXS', 256, 66],
  [17, 'IQ2_XS', 256, 74],
  [18, 'IQ3_XXS', 256, 98],
  [19, 'IQ1_S', 256, 50],
  [20, 'IQ4_NL', 32, 18],
  [21, 'IQ3_S', 256, 110],
  [22, 'IQ2_S', 256, 82],
  [23, 'IQ4_XS', 256, 136],
  [24, 'I8', 1, 1],
  [25, 'I16', 1, 2],
  [26, 'I32', 1, 4],
  [27, 'I64', 1, 8],
  [28, 'F64', 1, 8],
  [29, 'IQ1_M', 256, 56],
  [34, 'TQ1_0', 256, 54],
  [35, 'TQ2_0', 256, 66],
  [39, 'MXFP4', 32, 17],
];

const GGML_TYPES: ReadonlyMap<number, { readonly dtype: string; readonly block: BlockSize }> = new Map([
  ...TYPE_NAMES.map(([id, dtype]) => [id, { dtype, block: SOURCE_BLOCKS[dtype] }] as const),
  ...OTHER_TYPES.map(([id, dtype, weights, bytes]) => [id, { dtype, block: { weights, bytes } }] as const),
]);

const MAGIC = 0x46554747; // "GGUF" read as a little-endian u32
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1 << 20;
const MAX_DIMENSIONS = 4;
/** Names in ggml are shorter than 64 bytes; other writers may be more generous. */
const MAX_NAME_BYTES = 1024;
const MAX_KEY_BYTES = 65_535;
/** Fewest bytes of one metadata entry (empty key, one byte) and of one tensor entry (empty name, one dimension). */
const MIN_ENTRY_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8;

export interface GgufFile {
  readonly version: number;
  /** Integers as numbers; arrays as arrays. */
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly tensors: ReadonlyMap<string, RawTensor>;
}

/** Reads the header of an open file. Throws SOURCE_INVALID, and UNSUPPORTED_DTYPE for an unknown type number. */
export function readGgufHeader(file: SourceFile): GgufFile {
  const cursor = new GgufCursor(file);
  const magic = cursor.u32('the magic');
  if (magic !== MAGIC) cursor.fail('it does not start with "GGUF"');
  const version = cursor.u32('the version');
  if (version !== 2 && version !== 3) {
    cursor.fail(
      (version & 0xffff) === 0 ? 'it is big-endian, needed little-endian' : `its version is ${version}, needed 2 or 3`,
    );
  }
  const tensorCount = cursor.count('the tensor count', MIN_TENSOR_BYTES);
  const entryCount = cursor.count('the metadata count', MIN_ENTRY_BYTES);
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.text('a metadata key', MAX_KEY_BYTES);
    if (metadata.has(key)) cursor.fail(`metadata key "${key}" is there twice`);
    metadata.set(key, cursor.value(`"${key}"`));
  }
  const alignment = readAlignment(cursor, metadata);
  const entries = Array.from({ length: tensorCount }, () => readTensorEntry(cursor));
  const dataStart = Math.ceil(cursor.offset / alignment) * alignment;
  return { version, metadata, tensors: placeTensors(cursor, file, entries, dataStart, alignment) };
}

function readAlignment(cursor: GgufCursor, metadata: ReadonlyMap<string, unknown>): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof value === 'number' && value >= 8 && value <= MAX_ALIGNMENT && Number.isInteger(Math.log2(value)))
    return value;
  return cursor.fail(`general.alignment is ${JSON.stringify(value)}, needed a power of two from 8 to ${MAX_ALIGNMENT}`);
}

interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly byteLength: number;
}

function readTensorEntry(cursor: GgufCursor): TensorEntry {
  const name = cursor.text('a tensor name', MAX_NAME_BYTES);
  const where = `tensor "${name}"`;
  const rank = cursor.u32(where);
  if (rank < 1 || rank > MAX_DIMENSIONS) cursor.fail(`${where} has ${rank} dimensions`);
  const dims = Array.from({ length: rank }, () => cursor.u64(where));
  const typeId = cursor.u32(where);
  const offset = cursor.u64(where);
  const type = GGML_TYPES.get(typeId);
  if (type === undefined) {
    throw new MoestroError(
      'UNSUPPORTED_DTYPE',
      `Cannot read ${where} of "${cursor.path}": its type number is ${typeId}, supported are ${Object.keys(SOURCE_BLOCKS).join(', ')}`,
      { tensor: name, type: typeId },
    );
  }
  const { dtype, block } = type;
  const weights = dims.reduce((product, size) => product * size, 1);
  if (dims.some((size) => size < 1) || !Number.isSafeInteger(weights)) cursor.fail(`${where} is [${dims.join(', ')}]`);
  if (dims[0]! % block.weights !== 0) {
    cursor.fail(`${where} has rows of ${dims[0]} weights, needed a multiple of ${block.weights} for ${dtype}`);
  }
  return { name, dtype, shape: dims.reverse(), offset, byteLength: (weights / block.weights) * block.bytes };
}

/** Tensors inside the file, aligned, none over another. Padding between them is allowed. */
function placeTensors(
  cursor: GgufCursor,
  file: SourceFile,
  entries: readonly TensorEntry[],
  dataStart: number,
  alignment: number,
): ReadonlyMap<string, RawTensor> {
  const tensors = new Map<string, RawTensor>();
  let end = 0;
  for (const entry of [...entries].sort((a, b) => a.offset - b.offset)) {
    const where = `tensor "${entry.name}"`;
    if (tensors.has(entry.name)) cursor.fail(`${where} is described twice`);
    if (entry.offset % alignment !== 0)
      cursor.fail(`${where} lies at ${entry.offset}, needed a multiple of ${alignment}`);
    if (entry.offset < end) cursor.fail(`${where} overlaps the one before it by ${end - entry.offset} bytes`);
    end = entry.offset + entry.byteLength;
    if (dataStart + end > file.size) {
      cursor.fail(
        `${where} ends at byte ${dataStart + end} of ${file.size}: the file is cut short or the header wrong`,
      );
    }
    tensors.set(entry.name, { ...entry, file, offset: dataStart + entry.offset });
  }
  return tensors;
}
