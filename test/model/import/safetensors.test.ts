import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { MoestroError } from '../../../src/errors.js';
import { openSafetensors, readSafetensorsHeader } from '../../../src/model/import/safetensors.js';
import { openSourceFile } from '../../../src/model/import/source-file.js';
import { safetensorsBytes, safetensorsFromParts } from '../../helpers/write-safetensors.js';

const root = mkdtempSync(join(tmpdir(), 'moestro-safetensors-'));
let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(root, 'case-'));
});
afterAll(() => rmSync(root, { recursive: true }));

const place = (name: string, bytes: Uint8Array | string) => writeFileSync(join(directory, name), bytes);
const data = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251);
const entry = (name: string, shape: number[], bytes: Uint8Array, dtype = 'F32') => ({ name, dtype, shape, bytes });

async function readHeader(bytes: Uint8Array) {
  place('one.safetensors', bytes);
  const file = await openSourceFile(join(directory, 'one.safetensors'));
  try {
    return await readSafetensorsHeader(file);
  } finally {
    await file.close();
  }
}

test('openSafetensors() finds tensors of several shards when there is an index', async () => {
  place('model-1.safetensors', safetensorsBytes([entry('a', [2, 3], data(24)), entry('b', [4], data(8), 'F16')]));
  place(
    'model-2.safetensors',
    safetensorsBytes([
      entry(
        'c',
        [5],
        data(10).map((x) => x + 100),
        'BF16',
      ),
    ]),
  );
  place(
    'model.safetensors.index.json',
    JSON.stringify({ weight_map: { a: 'model-1.safetensors', b: 'model-1.safetensors', c: 'model-2.safetensors' } }),
  );
  const { tensors, close } = await openSafetensors(directory);
  const c = tensors.get('c')!;
  expect([...tensors.keys()].sort()).toEqual(['a', 'b', 'c']);
  expect(tensors.get('a')).toMatchObject({ dtype: 'F32', shape: [2, 3], byteLength: 24 });
  expect(await c.file.readAt(c.offset, c.byteLength, 'c')).toEqual(data(10).map((x) => x + 100));
  await close();
});

test('readSafetensorsHeader() accepts tensors out of order, scalars and empty ones', async () => {
  const header = {
    late: { dtype: 'U8', shape: [3], data_offsets: [4, 7] },
    scalar: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
    empty: { dtype: 'F16', shape: [0, 9], data_offsets: [4, 4] },
  };
  const tensors = await readHeader(safetensorsFromParts(JSON.stringify(header), data(7)));
  expect(tensors.map(({ name, byteLength }) => [name, byteLength])).toEqual([
    ['late', 3],
    ['scalar', 4],
    ['empty', 0],
  ]);
});

const described = (fields: object, length = 16): Uint8Array =>
  safetensorsFromParts(
    JSON.stringify({ x: { dtype: 'F32', shape: [4], data_offsets: [0, 16], ...fields } }),
    data(length),
  );
const two = (first: [number, number], second: [number, number], length: number): Uint8Array => {
  const of = (offsets: [number, number]) => ({
    dtype: 'U8',
    shape: [offsets[1] - offsets[0]],
    data_offsets: offsets,
  });
  return safetensorsFromParts(JSON.stringify({ x: of(first), y: of(second) }), data(length));
};

test.each<[string, Uint8Array, RegExp]>([
  ['is empty', new Uint8Array(0), /0 bytes are too few/],
  ['is shorter than a header length', data(7), /7 bytes are too few/],
  [
    'has an absurd header length',
    safetensorsFromParts('{}', data(0), 2n ** 63n),
    /header length is 9223372036854775808/,
  ],
  ['has a header past the end', safetensorsFromParts('{}', data(0), 4096n), /ends past the file/],
  ['is cut inside the header', safetensorsBytes([entry('x', [4], data(16))]).subarray(0, 40), /ends past the file/],
  ['is cut inside the data', safetensorsBytes([entry('x', [4], data(16))]).slice(0, -1), /of 15 data bytes/],
  ['has bytes left over', new Uint8Array([...safetensorsBytes([entry('x', [4], data(16))]), 0]), /tensors end at/],
  ['has a header that is not JSON', safetensorsFromParts('{"x": ', data(0)), /JSON/],
  ['has a header that is a list', safetensorsFromParts('[]', data(0)), /needed a JSON object/],
  ['has a header that is not UTF-8', safetensorsFromParts('{}', data(0)).fill(0xff, 8), /not UTF-8/],
  ['describes a tensor by a number', safetensorsFromParts('{"x": 3}', data(0)), /not described by an object/],
  ['has an unknown dtype', described({ dtype: 'F4' }), /dtype "F4"/],
  ['has a dtype from the prototype', described({ dtype: 'constructor' }), /dtype "constructor"/],
  ['has no shape', described({ shape: undefined }), /no valid shape/],
  ['has a negative shape', described({ shape: [-2, -2] }), /no valid shape/],
  ['has a broken shape', described({ shape: [1.5] }), /no valid shape/],
  ['has too many dimensions', described({ shape: Array(9).fill(1) }), /no valid shape/],
  ['has a shape of more bytes', described({ shape: [5] }), /needs 20 bytes and has 16/],
  ['has a shape beyond numbers', described({ shape: [2 ** 50, 2 ** 50, 2 ** 50] }), /needs .* and has 16/],
  ['has offsets past the end', described({ data_offsets: [8, 24] }), /of 16 data bytes/],
  ['has offsets backwards', described({ data_offsets: [16, 0] }), /lies at 16 to 0/],
  ['has one offset', described({ data_offsets: [0] }), /no valid data_offsets/],
  ['has offsets that are texts', described({ data_offsets: ['0', '16'] }), /no valid data_offsets/],
  ['has overlapping tensors', two([0, 10], [8, 16], 16), /"y" overlaps/],
  ['has equal tensors', two([0, 16], [0, 16], 16), /overlaps/],
  ['has a hole', two([0, 4], [8, 16], 16), /hole of 4 bytes before tensor "y"/],
  ['has a hole at the start', described({ data_offsets: [4, 20] }, 20), /hole of 4 bytes/],
  [
    'describes a tensor twice',
    safetensorsFromParts(
      '{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"\\u0078":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
      data(4),
    ),
    /2 tensors under 1 names/,
  ],
])('readSafetensorsHeader() refuses a file that %s', async (_, bytes, message) => {
  await expect(readHeader(bytes)).rejects.toThrow(
    expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(message) }),
  );
});

const INDEX = 'model.safetensors.index.json';
const good = () => safetensorsBytes([entry('a', [4], data(16))]);

test.each<[string, () => void, RegExp]>([
  ['holds no weights', () => undefined, /no .safetensors file/],
  [
    'holds two files and no index',
    () => {
      place('a.safetensors', good());
      place('b.safetensors', good());
    },
    /2 .safetensors files and no index/,
  ],
  [
    'lacks a shard of the index',
    () => {
      place('a.safetensors', good());
      place(INDEX, JSON.stringify({ weight_map: { a: 'a.safetensors', b: 'b.safetensors' } }));
    },
    /b\.safetensors.*no such file/,
  ],
  [
    'has a shard without its tensor',
    () => {
      place('a.safetensors', good());
      place(INDEX, JSON.stringify({ weight_map: { a: 'a.safetensors', z: 'a.safetensors' } }));
    },
    /a\.safetensors.*no tensor "z"/,
  ],
  [
    'has one tensor in two shards',
    () => {
      place('a.safetensors', good());
      place('b.safetensors', good());
      place(INDEX, JSON.stringify({ weight_map: { a: 'a.safetensors', b: 'b.safetensors' } }));
    },
    /b\.safetensors.*"a" is also in "a\.safetensors"/,
  ],
  [
    'names a shard elsewhere',
    () => place(INDEX, '{"weight_map":{"a":"../a.safetensors"}}'),
    /shard "..\/a.safetensors"/,
  ],
  ['names no shard', () => place(INDEX, '{"weight_map":{}}'), /needed 1 to/],
  ['has an index without a map', () => place(INDEX, '{"weight_map":[]}'), /no weight_map/],
  ['has an index that is not JSON', () => place(INDEX, '{'), /JSON/],
])('openSafetensors() refuses a directory that %s', async (_, fill, message) => {
  fill();
  await expect(openSafetensors(directory)).rejects.toThrow(
    expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(message) }),
  );
});

test('readSafetensorsHeader() gives tensors inside the file or a MoestroError whatever bytes change', async () => {
  const bytes = safetensorsBytes([entry('layer.weight', [4, 6], data(96)), entry('bias', [6], data(12), 'F16')]);
  const headerEnd = bytes.length - 108;
  const change = fc.record({
    at: fc.nat(headerEnd - 1),
    to: fc.oneof(fc.nat(255), fc.constantFrom(0x22, 0x39, 0x5b, 0x7b)),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), fc.nat(24), async (changes, cut) => {
      const mutated = bytes.slice(0, bytes.length - cut);
      for (const { at, to } of changes) mutated[at] = to;
      const result = await readHeader(mutated).catch((error: unknown) => error);
      if (result instanceof MoestroError) expect(result.code).toBe('SOURCE_INVALID');
      else {
        const tensors = result as Awaited<ReturnType<typeof readHeader>>;
        for (const { offset, byteLength } of tensors) expect(offset + byteLength).toBeLessThanOrEqual(mutated.length);
      }
    }),
    { numRuns: 400, seed: 20 },
  );
});
