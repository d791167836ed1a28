/**
 * A saved reference: the distributions of one model over fixed token sequences, so that later versions can be compared
 * without running it again. Little-endian:
 *
 *   "MOESTREF", u32 version, u32 vocabSize, u32 sequence count
 *   a sequence: u32 tokens, u32 begin, u32 rows, u32 ids [tokens], then a row for each position from `begin` on:
 *     f32 top, f32 step, u16 steps [vocabSize], padded to 4 bytes: log-probability = top - step * steps
 *
 * A step is a 65535th of the row's range (some 40 nats), so a value is off by 3e-4 at most and a mean KL by less than 1e-7.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import { MoestroError } from '../errors.js';
import { logSumExp, rowOf } from './distribution.js';

const MAGIC = 'MOESTREF';
const VERSION = 1;
const HEADER_BYTES = 20;
const SEQUENCE_HEADER_BYTES = 12;
const ROW_HEADER_BYTES = 8;
/** A token this many nats below the best counts as that far: it has no weight in any sum. */
const RANGE_MAX = 1000;

const rowBytes = (vocabSize: number): number => ROW_HEADER_BYTES + Math.ceil(vocabSize / 2) * 4;

/** Writes under a temporary name and renames at the end, so that no half-written reference is ever found. */
export class ReferenceWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #vocabSize: number;
  readonly #file: number;
  #sequences = 0;

  constructor(path: string, vocabSize: number) {
    this.#path = path;
    this.#temporary = `${path}.partial`;
    this.#vocabSize = vocabSize;
    try {
      this.#file = openSync(this.#temporary, 'w');
    } catch (cause) {
      const why = (cause as Error).message;
      throw new MoestroError('INVALID_CONFIG', `Cannot save a reference to "${path}": ${why}`, { path }, cause);
    }
    writeSync(this.#file, this.#header());
  }

  /** Adds a sequence with logits [rows, vocabSize] after its positions from `begin` on. */
  add(ids: readonly number[], begin: number, logits: Float32Array): void {
    const rows = logits.length / this.#vocabSize;
    writeSync(this.#file, Buffer.from(Uint32Array.from([ids.length, begin, rows, ...ids]).buffer));
    for (let row = 0; row < rows; ++row) writeSync(this.#file, packRow(rowOf(logits, row, this.#vocabSize)));
    ++this.#sequences;
  }

  /** Completes the file. Nothing may be added afterwards. */
  finish(): void {
    writeSync(this.#file, this.#header(), 0, HEADER_BYTES, 0);
    fsyncSync(this.#file);
    closeSync(this.#file);
    renameSync(this.#temporary, this.#path);
  }

  /** Removes what was written so far. */
  abandon(): void {
    closeSync(this.#file);
    rmSync(this.#temporary, { force: true });
  }

  #header(): Buffer {
    const header = Buffer.alloc(HEADER_BYTES);
    header.write(MAGIC, 'latin1');
    header.writeUInt32LE(VERSION, 8);
    header.writeUInt32LE(this.#vocabSize, 12);
    header.writeUInt32LE(this.#sequences, 16);
    return header;
  }
}

export interface ReferenceSequenceEntry {
  readonly ids: readonly number[];
  /** Rows stand after positions [begin, begin + rows). */
  readonly begin: number;
  readonly rows: number;
}

/** An open reference. Rows are read when asked for: a reference may be larger than memory. */
export class ReferenceReader {
  readonly path: string;
  readonly vocabSize: number;
  readonly sequences: readonly ReferenceSequenceEntry[];
  readonly #file: number;
  readonly #offsets: readonly number[];

  /** Throws INVALID_REQUEST when the file is no reference, of another version, or its lengths do not fit its size. */
  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, 'r');
    try {
      const size = fstatSync(this.#file).size;
      const header = this.#read(0, HEADER_BYTES, size);
      if (header.toString('latin1', 0, 8) !== MAGIC) throw this.#refuse(`it does not begin with "${MAGIC}"`);
      const version = header.readUInt32LE(8);
      if (version !== VERSION) throw this.#refuse(`it has version ${version}, needed ${VERSION}`);
      this.vocabSize = header.readUInt32LE(12);
      const sequences: ReferenceSequenceEntry[] = [];
      const offsets: number[] = [];
      let at = HEADER_BYTES;
      for (let index = 0; index < header.readUInt32LE(16); ++index) {
        const fixed = this.#read(at, SEQUENCE_HEADER_BYTES, size);
        const [tokens, begin, rows] = [fixed.readUInt32LE(0), fixed.readUInt32LE(4), fixed.readUInt32LE(8)];
        if (begin + rows > tokens) {
          throw this.#refuse(`sequence ${index} has rows ${begin} to ${begin + rows} of ${tokens} tokens`);
        }
        const raw = this.#read(at + SEQUENCE_HEADER_BYTES, tokens * 4, size);
        const ids = Array.from({ length: tokens }, (_, i) => raw.readUInt32LE(i * 4));
        const foreign = ids.find((id) => id >= this.vocabSize);
        if (foreign !== undefined) {
          throw this.#refuse(`sequence ${index} holds token ${foreign} of a vocabulary of ${this.vocabSize}`);
        }
        at += SEQUENCE_HEADER_BYTES + tokens * 4;
        sequences.push({ ids, begin, rows });
        offsets.push(at);
        at += rows * rowBytes(this.vocabSize);
      }
      if (at !== size) throw this.#refuse(`it has ${size} bytes, needed ${at}`);
      this.sequences = sequences;
      this.#offsets = offsets;
    } catch (error) {
      closeSync(this.#file);
      throw error;
    }
  }

  /** All rows of one sequence as log-probabilities: Float32Array [rows, vocabSize]. */
  logProbabilities(sequence: number): Float32Array {
    const { rows } = this.sequences[sequence]!;
    const bytes = rowBytes(this.vocabSize);
    const raw = this.#read(this.#offsets[sequence]!, rows * bytes, fstatSync(this.#file).size);
    const out = new Float32Array(rows * this.vocabSize);
    for (let row = 0; row < rows; ++row) {
      const top = raw.readFloatLE(row * bytes);
      const step = raw.readFloatLE(row * bytes + 4);
      const first = row * bytes + ROW_HEADER_BYTES;
      for (let id = 0; id < this.vocabSize; ++id) {
        out[row * this.vocabSize + id] = top - step * raw.readUInt16LE(first + id * 2);
      }
    }
    return out;
  }

  close(): void {
    closeSync(this.#file);
  }

  #read(offset: number, bytes: number, size: number): Buffer {
    if (offset + bytes > size) throw this.#refuse(`it has ${size} bytes, needed at least ${offset + bytes}`);
    const out = Buffer.alloc(bytes);
    let done = 0;
    while (done < bytes) {
      const got = readSync(this.#file, out, done, bytes - done, offset + done);
      if (got === 0) throw this.#refuse(`it ended at byte ${offset + done}, needed ${offset + bytes}`);
      done += got;
    }
    return out;
  }

  #refuse(found: string): MoestroError {
    return new MoestroError('INVALID_REQUEST', `Cannot use reference file "${this.path}": ${found}`, {
      path: this.path,
    });
  }
}

function packRow(logits: Float32Array): Buffer {
  const sum = logSumExp(logits);
  let top = Number.NEGATIVE_INFINITY;
  let bottom = Number.POSITIVE_INFINITY;
  for (let i = 0; i < logits.length; ++i) {
    top = Math.max(top, logits[i]!);
    bottom = Math.min(bottom, logits[i]!);
  }
  // The step is used as it will be read, rounded to float32; rounded up, so that the last step stays within 16 bits.
  const step = Math.fround((Math.min(top - bottom, RANGE_MAX) / 65535) * (1 + 2 ** -22));
  const packed = Buffer.alloc(rowBytes(logits.length));
  packed.writeFloatLE(top - sum, 0);
  packed.writeFloatLE(step, 4);
  for (let i = 0; i < logits.length; ++i) {
    const steps = step === 0 ? 0 : Math.min(65535, Math.round((top - logits[i]!) / step));
    packed.writeUInt16LE(steps, ROW_HEADER_BYTES + i * 2);
  }
  return packed;
}
