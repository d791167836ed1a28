/** Walks a GGUF header value by value, reading the file in pieces and never believing a length before checking it. */
import { readSync } from 'node:fs';
import { MoestroError } from '../../errors.js';
import type { SourceFile } from './source-file.js';

const CHUNK_BYTES = 1 << 20;
/** Real vocabularies have under 300 thousand tokens and about as many merges. */
const MAX_ELEMENTS = 1 << 24;
/** Chat templates are tens of kilobytes. */
const MAX_TEXT_BYTES = 16 << 20;
const MAX_NESTING = 3;

/** Bytes of one value by type number, for strings and arrays the fewest. Source: ggml/docs/gguf.md. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8] as const;
const STRING = 8;
const ARRAY = 9;

export class GgufCursor {
  readonly path: string;
  private readonly file: SourceFile;
  private readonly decoder = new TextDecoder('utf-8', { fatal: true });
  private chunk = new Uint8Array(0);
  private view = new DataView(this.chunk.buffer);
  /** File offset of the chunk's first byte, and position in the chunk. */
  private base = 0;
  private at = 0;
  /** Array elements made so far, over all arrays: what bounds the memory that a header can ask for. */
  private elements = 0;

  constructor(file: SourceFile) {
    this.file = file;
    this.path = file.path;
  }

  get offset(): number {
    return this.base + this.at;
  }

  fail(found: string): never {
    throw new MoestroError('SOURCE_INVALID', `Cannot read "${this.path}": ${found}`, { file: this.file.name });
  }

  u32(what: string): number {
    this.need(4, what);
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  /** A u64 that must fit a JavaScript integer. */
  u64(what: string): number {
    this.need(8, what);
    this.at += 8;
    return this.safe(this.view.getBigUint64(this.at - 8, true), what);
  }

  /** A u64 that counts things of at least `minBytes` each, all of which must still fit in the file. */
  count(what: string, minBytes: number): number {
    const count = this.u64(what);
    const left = this.file.size - this.offset;
    if (count * minBytes > left) this.fail(`${what} is ${count}, too many for the ${left} bytes left`);
    if (count > MAX_ELEMENTS) this.fail(`${what} is ${count}, at most ${MAX_ELEMENTS} expected`);
    return count;
  }

  text(what: string, maxBytes: number): string {
    const length = this.u64(what);
    if (length > this.file.size - this.offset)
      this.fail(`${what} of ${length} bytes ends past the file's ${this.file.size}`);
    if (length > maxBytes) this.fail(`${what} has ${length} bytes, at most ${maxBytes} expected`);
    this.need(length, what);
    this.at += length;
    try {
      return this.decoder.decode(this.chunk.subarray(this.at - length, this.at));
    } catch {
      this.fail(`${what} is not UTF-8`);
    }
  }

  /** A metadata value with its type number before it. */
  value(what: string): unknown {
    return this.typed(this.u32(what), what, 0);
  }

  private typed(type: number, what: string, depth: number): unknown {
    if (type === STRING) return this.text(what, MAX_TEXT_BYTES);
    if (type === ARRAY) return this.array(what, depth + 1);
    const bytes = VALUE_BYTES[type];
    if (bytes === undefined) this.fail(`${what} has value type ${type}`);
    this.need(bytes, what);
    this.at += bytes;
    const at = this.at - bytes;
    switch (type) {
      case 0:
        return this.view.getUint8(at);
      case 1:
        return this.view.getInt8(at);
      case 2:
        return this.view.getUint16(at, true);
      case 3:
        return this.view.getInt16(at, true);
      case 4:
        return this.view.getUint32(at, true);
      case 5:
        return this.view.getInt32(at, true);
      case 6:
        return this.view.getFloat32(at, true);
      case 7:
        return this.view.getUint8(at) !== 0;
      case 10:
        return this.safe(this.view.getBigUint64(at, true), what);
      case 11:
        return this.safe(this.view.getBigInt64(at, true), what);
      default:
        return this.view.getFloat64(at, true);
    }
  }

  private array(what: string, depth: number): unknown[] {
    if (depth > MAX_NESTING) this.fail(`${what} nests arrays deeper than ${MAX_NESTING}`);
    const type = this.u32(what);
    const minBytes = VALUE_BYTES[type];
    if (minBytes === undefined) this.fail(`${what} is an array of value type ${type}`);
    const length = this.count(`the length of ${what}`, minBytes);
    this.elements += length;
    if (this.elements > MAX_ELEMENTS) this.fail(`its arrays have more than ${MAX_ELEMENTS} elements`);
    const values: unknown[] = [];
    for (let i = 0; i < length; i++) values.push(this.typed(type, what, depth));
    return values;
  }

  private safe(value: bigint, what: string): number {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) this.fail(`${what} is ${value}, which no file can hold`);
    return number;
  }

  /** Makes `bytes` bytes available from `at`, or fails where the file ends before them. */
  private need(bytes: number, what: string): void {
    if (this.at + bytes <= this.chunk.length) return;
    const offset = this.offset;
    if (offset + bytes > this.file.size) this.fail(`the header ends in ${what}, at byte ${this.file.size}`);
    const length = Math.min(Math.max(bytes, CHUNK_BYTES), this.file.size - offset);
    const chunk = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const got = readSync(this.file.descriptor, chunk, done, length - done, offset + done);
      if (got === 0) this.fail(`the file ends at ${offset + done} of ${this.file.size} bytes`);
      done += got;
    }
    this.chunk = chunk;
    this.view = new DataView(chunk.buffer);
    this.base = offset;
    this.at = 0;
  }
}
