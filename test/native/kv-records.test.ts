/** A KV block on its way to a file and back: the same bytes, and nothing that is not wholly what was written. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { kvBlockBytes } from '../../src/engine/memory-plan.js';
import type { Manifest } from '../../src/model/manifest.js';
import { type KvType, loadAddon, type NativeEngine } from '../../src/native/binding.js';

const manifest = JSON.parse(readFileSync(join(BUNDLED_MODEL, 'manifest.json'), 'utf8')) as Manifest;
const BLOCKS = 5;
const HEADER = Buffer.from('a header of a length of its own');

function open(type: KvType): NativeEngine {
  return loadAddon().createEngine({
    architecture: manifest.architecture,
    tables: manifest.tables,
    threads: 1,
    maxBatchTokens: 4,
    maxLogitRows: 1,
    contextLength: 64,
    kv: { type, blockTokens: 32, blocks: BLOCKS },
    arena: {
      bitSlots: 8,
      bitSlotBytes: manifest.geometry.bitBytes,
      scaleSlots: 1,
      scaleSlotBytes: manifest.geometry.scaleBytes,
    },
    io: { path: join(BUNDLED_MODEL, 'experts.bin'), backend: 'pread', queueDepth: 1, direct: true },
  });
}

/** A file as `saveKv` writes it, of a block whose bytes are drawn from a number. */
function record(type: KvType, seed: number): Buffer {
  const bytes = Buffer.alloc(HEADER.length + kvBlockBytes(manifest.architecture, type) + 4);
  HEADER.copy(bytes);
  let word = seed;
  for (let i = HEADER.length; i < bytes.length - 4; ++i) {
    word = (Math.imul(word, 1103515245) + 12345) >>> 0;
    bytes[i] = word >>> 16;
  }
  bytes.writeUInt32LE(loadAddon().crc32c(0, bytes.subarray(0, -4)), bytes.length - 4);
  return bytes;
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moestro-kv-'));
});
afterEach(() => {
  chmodSync(folder, 0o700);
  rmSync(folder, { recursive: true });
});
const at = (name: string): string => join(folder, name);

describe('KV records', () => {
  it.each<KvType>(['f16', 'int8'])('go out as they came in, each block by itself, copies too (%s)', (type) => {
    const engine = open(type);
    const records = Array.from({ length: BLOCKS - 1 }, (_, block) => record(type, block + 1));
    for (const [block, bytes] of records.entries()) {
      writeFileSync(at(`in${block}`), bytes);
      engine.loadKv(block, at(`in${block}`), HEADER.length);
    }
    engine.copyKv(1, BLOCKS - 1);
    for (const [block, bytes] of [...records, records[1]!].entries()) {
      engine.saveKv(block, at(`out${block}`), HEADER);
      expect(readFileSync(at(`out${block}`)).equals(bytes)).toBe(true);
      expect(statSync(at(`out${block}`)).mode & 0o777).toBe(0o600);
    }
    engine.close();
  });

  it.each<[string, (bytes: Buffer) => Buffer, RegExp]>([
    ['cut short', (bytes) => bytes.subarray(0, -1), /it has \d+ bytes, needed \d+/],
    ['empty', () => Buffer.alloc(0), /it has 0 bytes/],
    ['longer', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)]), /it has \d+ bytes/],
    ['of another header', (bytes) => Buffer.concat([Buffer.from('A'), bytes.subarray(1)]), /checksum does not match/],
    [
      'of another bit',
      (bytes) => bytes.map((byte, i) => (i === 5000 ? byte ^ 64 : byte)) as Buffer,
      /checksum does not match/,
    ],
  ])('are refused when they are %s', (_, change, reason) => {
    const engine = open('f16');
    writeFileSync(at('file'), change(record('f16', 1)));
    expect(() => engine.loadKv(0, at('file'), HEADER.length)).toThrow(
      expect.objectContaining({ code: 'IO_ERROR', message: expect.stringMatching(reason) }),
    );
    engine.close();
  });

  it('are read from files alone, and never written over one', () => {
    const engine = open('f16');
    writeFileSync(at('file'), record('f16', 1));
    symlinkSync(at('file'), at('link'));
    mkdirSync(at('folder'));
    for (const name of ['missing', 'link', 'folder']) {
      expect(() => engine.loadKv(0, at(name), HEADER.length)).toThrow(expect.objectContaining({ code: 'IO_ERROR' }));
    }
    for (const name of ['file', 'link', 'folder', 'missing/file']) {
      expect(() => engine.saveKv(0, at(name), HEADER)).toThrow(expect.objectContaining({ code: 'IO_ERROR' }));
    }
    expect(readFileSync(at('file')).equals(record('f16', 1))).toBe(true);
    for (const block of [-1, BLOCKS, 0.5]) {
      expect(() => engine.saveKv(block, at('new'), HEADER)).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
    expect(() => engine.copyKv(1, 1)).toThrow(/another block/);
    expect(existsSync(at('new'))).toBe(false);
    engine.close();
  });
});
