import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { type ErrorCode, MoestroError } from '../../../src/errors.js';
import { type GgufFile, readGgufHeader } from '../../../src/model/import/gguf.js';
import { openSourceFile } from '../../../src/model/import/source-file.js';
import { tinyGguf } from '../../helpers/tiny-gguf.js';
import { makeTinyModel, TINY_FAMILIES } from '../../helpers/tiny-models.js';
import { GGML_TYPE_IDS, type GgufParts, type GgufTensor, ggufBytes } from '../../helpers/write-gguf.js';

const directory = mkdtempSync(join(tmpdir(), 'moestro-gguf-'));
const path = join(directory, 'model.gguf');
afterAll(() => rmSync(directory, { recursive: true }));

async function readHeader(bytes: Uint8Array): Promise<GgufFile> {
  writeFileSync(path, bytes);
  const file = await openSourceFile(path);
  try {
    return readGgufHeader(file);
  } finally {
    await file.close();
  }
}

test.each(TINY_FAMILIES)('readGgufHeader() agrees with @huggingface/gguf on a tiny %s', async (family) => {
  const ours = await readHeader(tinyGguf(makeTinyModel(family), { dtype: 'Q8_0' }));
  const theirs = await gguf(path, { allowLocalFile: true });
  const plain = (value: unknown): unknown => (typeof value === 'bigint' ? Number(value) : value);
  const { version, tensor_count: _tensors, kv_count: _entries, ...metadata } = theirs.metadata;
  expect(ours.version).toBe(version);
  expect(Object.fromEntries(ours.metadata)).toEqual(
    Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, plain(value)])),
  );
  expect(ours.tensors.size).toBe(theirs.tensorInfos.length);
  for (const info of theirs.tensorInfos) {
    const tensor = ours.tensors.get(info.name)!;
    expect(tensor.shape).toEqual(info.shape.map(Number).reverse());
    expect(tensor.offset).toBe(Number(theirs.tensorDataOffset + info.offset));
    expect(GGML_TYPE_IDS[tensor.dtype as keyof typeof GGML_TYPE_IDS]).toBe(info.dtype);
  }
});

test('readGgufHeader() reads every value type and version 2', async () => {
  const { metadata, version } = await readHeader(
    ggufBytes({
      version: 2,
      tensors: [],
      metadata: {
        u8: { type: 'u8', value: 255 },
        i8: { type: 'i8', value: -1 },
        u16: { type: 'u16', value: 65535 },
        i16: { type: 'i16', value: -2 },
        u32: { type: 'u32', value: 4294967295 },
        i32: { type: 'i32', value: -3 },
        u64: { type: 'u64', value: 2 ** 40 },
        i64: { type: 'i64', value: -(2 ** 40) },
        f32: { type: 'f32', value: 0.5 },
        f64: { type: 'f64', value: 0.1 },
        bool: { type: 'bool', value: true },
        string: { type: 'string', value: 'ж🙂' },
        list: { type: 'array', of: 'string', value: ['a', '', 'c'] },
      },
    }),
  );
  expect(version).toBe(2);
  expect(Object.fromEntries(metadata)).toEqual({
    u8: 255,
    i8: -1,
    u16: 65535,
    i16: -2,
    u32: 4294967295,
    i32: -3,
    u64: 2 ** 40,
    i64: -(2 ** 40),
    f32: 0.5,
    f64: 0.1,
    bool: true,
    string: 'ж🙂',
    list: ['a', '', 'c'],
  });
});

const tensor = (name: string, fields: Partial<GgufTensor> = {}): GgufTensor => ({
  name,
  dims: [32, 2],
  type: GGML_TYPE_IDS.F32,
  bytes: new Uint8Array(256),
  ...fields,
});
const file = (parts: Partial<GgufParts>): Uint8Array =>
  ggufBytes({
    metadata: { 'general.architecture': { type: 'string', value: 'olmoe' } },
    tensors: [tensor('a'), tensor('b')],
    ...parts,
  });
/** Metadata that ends in hand-made bytes: one entry `key` of value type `type`, then `tail`. */
const rawEntry = (type: number, ...tail: number[]): Uint8Array => {
  const head = ggufBytes({ metadata: {}, tensors: [], metadataCount: 1n }).subarray(0, 24);
  return new Uint8Array([...head, 1, 0, 0, 0, 0, 0, 0, 0, 107, type, 0, 0, 0, ...tail]);
};
const huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

test.each<[string, Uint8Array, ErrorCode, RegExp]>([
  ['is empty', new Uint8Array(0), 'SOURCE_INVALID', /header ends in the magic/],
  ['has another magic', file({ magic: 'GGML' }), 'SOURCE_INVALID', /does not start with "GGUF"/],
  ['has version 1', file({ version: 1 }), 'SOURCE_INVALID', /version is 1, needed 2 or 3/],
  ['is big-endian', file({ version: 3 << 24 }), 'SOURCE_INVALID', /big-endian/],
  ['has absurdly many tensors', file({ tensorCount: 2n ** 62n }), 'SOURCE_INVALID', /tensor count/],
  ['has more tensors than bytes', file({ tensorCount: 1000n }), 'SOURCE_INVALID', /too many for the/],
  ['has absurdly many entries', file({ metadataCount: 2n ** 40n }), 'SOURCE_INVALID', /metadata count/],
  ['has a missing entry', file({ metadataCount: 2n }), 'SOURCE_INVALID', /value type|ends past|at most/],
  ['has a key past the end', rawEntry(8, ...huge), 'SOURCE_INVALID', /"k" is \d+, which no file can hold/],
  ['has a text past the end', rawEntry(8, 200, 0, 0, 0, 0, 0, 0, 0, 1), 'SOURCE_INVALID', /"k" of 200 bytes ends past/],
  ['has a text that is not UTF-8', rawEntry(8, 1, 0, 0, 0, 0, 0, 0, 0, 0xff), 'SOURCE_INVALID', /not UTF-8/],
  ['has an unknown value type', rawEntry(13, 0), 'SOURCE_INVALID', /value type 13/],
  ['has an array of unknown type', rawEntry(9, 99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), 'SOURCE_INVALID', /value type 99/],
  ['has an absurd array', rawEntry(9, 0, 0, 0, 0, ...huge), 'SOURCE_INVALID', /length of "k"/],
  ['has arrays nested deep', rawEntry(...nested(20)), 'SOURCE_INVALID', /nests arrays deeper/],
  ['ends inside a value', rawEntry(10, 1, 2, 3), 'SOURCE_INVALID', /header ends in "k"/],
  [
    'repeats a key',
    new Uint8Array([...file({ metadataCount: 2n }).subarray(0, 24), ...repeatedEntry()]),
    'SOURCE_INVALID',
    /"k" is there twice/,
  ],
  ...[0, 7, 48, 2 ** 31].map((value): [string, Uint8Array, ErrorCode, RegExp] => [
    `has alignment ${value}`,
    file({ metadata: { 'general.alignment': { type: 'u32', value } } }),
    'SOURCE_INVALID',
    /general.alignment is/,
  ]),
  [
    'has an unknown tensor type',
    file({ tensors: [tensor('a', { type: 77 })] }),
    'UNSUPPORTED_DTYPE',
    /"a".*number is 77.*Q4_K/,
  ],
  ['has a tensor without dimensions', file({ tensors: [tensor('a', { dims: [] })] }), 'SOURCE_INVALID', /0 dimensions/],
  [
    'has five dimensions',
    file({ tensors: [tensor('a', { dims: [1, 1, 1, 1, 1] })] }),
    'SOURCE_INVALID',
    /5 dimensions/,
  ],
  ['has an empty tensor', file({ tensors: [tensor('a', { dims: [32, 0] })] }), 'SOURCE_INVALID', /"a" is \[32, 0\]/],
  [
    'has absurd dimensions',
    file({ tensors: [tensor('a', { dims: [2 ** 40, 2 ** 40] })] }),
    'SOURCE_INVALID',
    /"a" is \[1099511627776, /,
  ],
  [
    'has rows of broken blocks',
    file({ tensors: [tensor('a', { dims: [48, 2], type: GGML_TYPE_IDS.Q8_0 })] }),
    'SOURCE_INVALID',
    /rows of 48 weights, needed a multiple of 32 for Q8_0/,
  ],
  [
    'has a tensor past the end',
    file({ tensors: [tensor('a', { offset: 4096 })] }),
    'SOURCE_INVALID',
    /"a" ends at byte/,
  ],
  ['is cut short', file({}).slice(0, -1), 'SOURCE_INVALID', /"b" ends at byte \d+ of \d+: the file is cut short/],
  [
    'has a tensor off alignment',
    file({ tensors: [tensor('a', { offset: 4 })] }),
    'SOURCE_INVALID',
    /needed a multiple of 32/,
  ],
  [
    'has overlapping tensors',
    file({ tensors: [tensor('a'), tensor('b', { offset: 128 })] }),
    'SOURCE_INVALID',
    /"b" overlaps the one before it by 128/,
  ],
  ['names a tensor twice', file({ tensors: [tensor('a'), tensor('a')] }), 'SOURCE_INVALID', /"a" is described twice/],
  ['has an endless name', file({ tensors: [tensor('a'.repeat(2000))] }), 'SOURCE_INVALID', /name has 2000 bytes/],
])('readGgufHeader() refuses a file that %s', async (_, bytes, code, message) => {
  await expect(readHeader(bytes)).rejects.toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});

/** Value type and payload of arrays inside arrays; padded so that counts fit. */
function nested(depth: number): [number, ...number[]] {
  const level = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
  return [9, ...Array.from({ length: depth }, () => level).flat(), ...new Array(64).fill(0)];
}

function repeatedEntry(): number[] {
  const one = [1, 0, 0, 0, 0, 0, 0, 0, 107, 7, 0, 0, 0, 1];
  // Room for the two tensors that the count promises.
  return [...one, ...one, ...new Array(64).fill(0)];
}

test('readGgufHeader() gives tensors inside the file or a MoestroError whatever bytes change', async () => {
  const model = makeTinyModel('olmoe', 1, { layerCount: 1, layerKinds: ['moe'], expertCount: 4 });
  const bytes = tinyGguf(model, { dtype: 'Q4_0' });
  const { tensors } = await readHeader(bytes);
  const headerEnd = Math.min(...[...tensors.values()].map(({ offset }) => offset));
  const change = fc.record({
    // Tensor entries and the counts matter most; the vocabulary is most of the header.
    at: fc.oneof(fc.nat(60), fc.nat(headerEnd - 1), fc.integer({ min: headerEnd - 1200, max: headerEnd - 1 })),
    to: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 5 }), fc.nat(64), async (changes, cut) => {
      const mutated = bytes.slice(0, bytes.length - cut);
      for (const { at, to } of changes) mutated[at] = to;
      const result = await readHeader(mutated).catch((error: unknown) => error);
      if (result instanceof Error) {
        expect(result).toBeInstanceOf(MoestroError);
        expect(['SOURCE_INVALID', 'UNSUPPORTED_DTYPE']).toContain((result as MoestroError).code);
      } else {
        for (const { offset, byteLength } of (result as GgufFile).tensors.values()) {
          expect(offset + byteLength).toBeLessThanOrEqual(mutated.length);
        }
      }
    }),
    { numRuns: 400, seed: 21 },
  );
});
