/**
 * Prefixes on disk: a folder with a file for each KV block, which outlives the process. Owns the folder while it is open. What
 * goes wrong with it costs only what it would have saved: a bad file is removed and named, a full disk ends writing, and
 * requests go on.
 */
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { formatBytes } from '../../bytes.js';
import type { MoestroError } from '../../errors.js';
import type { NativeEngine } from '../../native/binding.js';
import type { PrefixNode } from './prefix-index.js';
import {
  type FoundRecord,
  orderRecords,
  RECORDS_MAX,
  WRITE_AHEAD_BYTES,
  type WrittenToday,
  writeOn,
} from './prefix-policy.js';
import {
  type Crc32c,
  decodeHeader,
  encodeHeader,
  headerBytes,
  type RecordShape,
  recordBytes,
} from './prefix-record.js';

export interface PrefixStoreParts {
  /** Made if it is not there, for its owner alone. */
  readonly directory: string;
  readonly shape: RecordShape;
  readonly diskBytes: number;
  /** Bytes written a day at most. */
  readonly dailyBytes: number;
  readonly native: Pick<NativeEngine, 'saveKv' | 'loadKv'>;
  readonly crc32c: Crc32c;
  /** Resolves when the first `bytes` of a file can be read without waiting for the disk; see read-ahead.ts. */
  readonly readAhead: (path: string, bytes: number) => Promise<void>;
  /** As NativeAddon.lockFile. */
  readonly lockFile: (fd: number) => boolean;
  /** Milliseconds since 1970. */
  readonly today: () => number;
  /** Is told what went wrong, a sentence each. */
  readonly warn: (text: string) => void;
}

/** Names of ours; nothing else in the folder is touched. */
const RECORD = /^[0-9a-f]{32}\.kv$/;
const UNFINISHED = /^[0-9a-f]{32}\.kv\.part$/;
const ACCOUNT = 'written.json';

interface FileRecord extends FoundRecord {
  readonly path: string;
}

export class PrefixStore {
  readonly #parts: PrefixStoreParts;
  readonly #lock: number;
  readonly #recordBytes: number;
  readonly #records: LRUCache<string, PrefixNode>;
  /** Called when a record had to go to make room. */
  onEvicted: (node: PrefixNode) => void = () => {};
  #written: WrittenToday;
  /** What `written.json` says of the day, ahead of what was written. */
  #accounted = 0;
  /** Why nothing is written any more, or today. */
  #stopped: string | null = null;
  evictions = 0;
  writtenBytes = 0;
  readBytes = 0;
  rejected = 0;

  /**
   * Opens the folder and reads the headers of what it holds.
   *
   * @returns null, with a word to `warn`, when it cannot be used: requests go on without.
   */
  static open(parts: PrefixStoreParts): { readonly store: PrefixStore; readonly found: readonly FoundRecord[] } | null {
    const { directory, diskBytes, shape, warn } = parts;
    if (diskBytes < recordBytes(shape)) {
      warn(`cannot store prefixes in ${formatBytes(diskBytes)}: one block takes ${formatBytes(recordBytes(shape))}`);
      return null;
    }
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      const lock = openSync(
        join(directory, 'lock'),
        constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
        0o600,
      );
      if (!parts.lockFile(lock)) {
        closeSync(lock);
        warn(`cannot store prefixes in "${directory}": another process does`);
        return null;
      }
      const store = new PrefixStore(parts, lock);
      return { store, found: store.#readAll() };
    } catch (error) {
      warn(`cannot store prefixes in "${directory}": ${(error as Error).message}`);
      return null;
    }
  }

  private constructor(parts: PrefixStoreParts, lock: number) {
    this.#parts = parts;
    this.#lock = lock;
    this.#recordBytes = recordBytes(parts.shape);
    this.#records = new LRUCache({
      max: RECORDS_MAX,
      maxSize: parts.diskBytes,
      sizeCalculation: () => this.#recordBytes,
      disposeAfter: (node, _, reason) => {
        if (reason !== 'evict') return;
        ++this.evictions;
        this.#unlink(node.key);
        node.isStored = false;
        this.onEvicted(node);
      },
    });
    this.#written = this.#readAccount();
    this.#accounted = this.#written.bytes;
  }

  get directory(): string {
    return this.#parts.directory;
  }

  get bytes(): number {
    return this.#records.calculatedSize;
  }

  /** A record that `open` found belongs to this node. Least useful ones come first. */
  adopt(node: PrefixNode): void {
    node.isStored = true;
    this.#records.set(node.key, node);
  }

  /** It is of use: others go before it. */
  touch(node: PrefixNode): void {
    this.#records.get(node.key);
  }

  /** Writes the node's block; false when it may not or cannot. */
  write(node: PrefixNode): boolean {
    const { native, shape, crc32c, today, dailyBytes, warn } = this.#parts;
    if (this.#stopped !== null) return false;
    const day = new Date(today()).toISOString().slice(0, 10);
    const written = writeOn(this.#written, day, this.#recordBytes, dailyBytes);
    if (written === null) return false;
    const path = this.#path(node.key);
    const part = `${path}.part`;
    try {
      this.#account(written);
      const header = { key: node.key, parentKey: node.parent!.key, depth: node.depth, tokens: node.tokens };
      native.saveKv(node.block, part, encodeHeader(header, shape, crc32c));
      renameSync(part, path);
    } catch (error) {
      rmSync(part, { force: true });
      this.#stopped = (error as Error).message;
      warn(`no more prefixes are stored: ${this.#stopped}`);
      return false;
    }
    this.writtenBytes += this.#recordBytes;
    node.isStored = true;
    this.#records.set(node.key, node);
    return true;
  }

  /** Brings the node's record from the disk to where `read` finds it at once. Rejects where `read` would fail. */
  fetch(node: PrefixNode): Promise<void> {
    return this.#parts.readAhead(this.#path(node.key), this.#recordBytes);
  }

  /** Reads the node's record into a KV block; false when it is not what was written, and then it is gone. */
  read(node: PrefixNode, block: number): boolean {
    const { native, shape, warn, today } = this.#parts;
    const path = this.#path(node.key);
    try {
      native.loadKv(block, path, headerBytes(shape));
    } catch (error) {
      if ((error as MoestroError).code !== 'IO_ERROR') throw error;
      ++this.rejected;
      warn(`a stored prefix is dropped: ${(error as MoestroError).message}`);
      this.remove(node);
      return false;
    }
    this.readBytes += this.#recordBytes;
    const seconds = today() / 1000;
    try {
      utimesSync(path, seconds, seconds);
    } catch {
      // A folder that can only be read still serves; after a restart this record counts as old.
    }
    return true;
  }

  remove(node: PrefixNode): void {
    if (!node.isStored) return;
    this.#records.delete(node.key);
    node.isStored = false;
    this.#unlink(node.key);
  }

  close(): void {
    if (this.#written.bytes !== this.#accounted) this.#saveAccount(this.#written);
    closeSync(this.#lock);
  }

  #path(key: string): string {
    return join(this.#parts.directory, `${key}.kv`);
  }

  #unlink(key: string): void {
    this.#discard(this.#path(key), null);
  }

  /** Removes a file of ours, saying why unless it only had to make room. */
  #discard(path: string, reason: string | null): void {
    const { warn } = this.#parts;
    if (reason !== null) warn(`a stored prefix is dropped: "${path}": ${reason}`);
    try {
      unlinkSync(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      this.#stopped ??= (error as Error).message;
      warn(`cannot remove "${path}": ${(error as Error).message}`);
    }
  }

  #readAll(): readonly FoundRecord[] {
    const { directory } = this.#parts;
    const found: FileRecord[] = [];
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (UNFINISHED.test(name)) {
        this.#discard(path, null);
        continue;
      }
      if (!RECORD.test(name)) continue;
      const record = this.#readRecord(path, name);
      if (typeof record !== 'string') {
        found.push(record);
        continue;
      }
      ++this.rejected;
      this.#discard(path, record);
    }
    const { known, orphans } = orderRecords(found);
    for (const { path } of orphans) this.#discard(path, 'what it goes on from is gone');
    // Those that are of least use go first where the folder may hold less than before.
    const most = Math.min(RECORDS_MAX, Math.floor(this.#parts.diskBytes / this.#recordBytes));
    const extra = Math.max(0, known.length - most);
    for (const { path } of known.slice(0, extra)) this.#discard(path, null);
    return known.slice(extra);
  }

  /** The record at `path`, or why it is none. */
  #readRecord(path: string, name: string): FileRecord | string {
    const { shape, crc32c } = this.#parts;
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      return (error as Error).message;
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return 'it is no file';
      const bytes = Buffer.alloc(headerBytes(shape));
      const got = readSync(fd, bytes, 0, bytes.length, 0);
      const header = decodeHeader(bytes.subarray(0, got), stat.size, shape, crc32c);
      if (typeof header === 'string') return header;
      if (name !== `${header.key}.kv`) return 'its name is not its key';
      return { ...header, usedMs: stat.mtimeMs, path };
    } catch (error) {
      return (error as Error).message;
    } finally {
      closeSync(fd);
    }
  }

  #readAccount(): WrittenToday {
    try {
      const { day, bytes } = JSON.parse(readFileSync(join(this.#parts.directory, ACCOUNT), 'utf8')) as WrittenToday;
      if (typeof day === 'string' && Number.isFinite(bytes) && bytes >= 0) return { day, bytes };
    } catch {
      // None yet, or cut short by a crash: the day begins anew.
    }
    return { day: '', bytes: 0 };
  }

  #account(written: WrittenToday): void {
    if (written.day !== this.#written.day || written.bytes > this.#accounted) {
      this.#saveAccount({ day: written.day, bytes: written.bytes + WRITE_AHEAD_BYTES });
    }
    this.#written = written;
  }

  #saveAccount(written: WrittenToday): void {
    const path = join(this.#parts.directory, ACCOUNT);
    writeFileSync(`${path}.part`, JSON.stringify(written), { mode: 0o600 });
    renameSync(`${path}.part`, path);
    this.#accounted = written.bytes;
  }
}
