/**
 * How does a `.moe` directory come to be, so that no reader ever meets half of one? Everything is written into
 * `OUT.partial/`, where a ledger says what is complete, and the directory is renamed to OUT at the end. A writer that
 * was killed is followed by one that goes on from the ledger.
 *
 *   OUT.partial/lock             pid of the writer
 *   OUT.partial/ledger.json      the key of this conversion, dense tensors and expert records that are durable
 *   OUT.partial/dense.safetensors, experts.bin, tokenizer.json, tokenizer_config.json, manifest.json (last)
 */
import { existsSync } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { MoestroError } from '../errors.js';
import { loadAddon } from '../native/binding.js';
import { denseTensorBytes, denseTensorKind } from './dense-layout.js';
import { type Disk, diskFull, realDisk, replaceFile, syncDirectory, writeError } from './disk.js';
import type { DenseTensorEntry, Manifest, PlaneGeometry } from './manifest.js';

/** Bytes between two entries of the ledger: half a second of a slow disk, and what a kill may cost. */
const LEDGER_EVERY_BYTES = 256 << 20;
/** Where tensors begin in dense.safetensors is a multiple of this, so that large direct reads start aligned. */
const DATA_ALIGNMENT = 4096;

export interface MoeWriterOptions {
  readonly out: string;
  /** Tensors in file order with their shapes. */
  readonly dense: ReadonlyMap<string, readonly [rows: number, cols: number]>;
  readonly geometry: PlaneGeometry;
  /** Expert records in all. */
  readonly recordCount: number;
  /** Says what is being converted and how: a partial output of another key is thrown away. */
  readonly key: string;
  /** Replace OUT if it exists. */
  readonly force: boolean;
  /** Bytes between two entries of the ledger; smaller in tests. */
  readonly ledgerEveryBytes?: number;
  readonly disk?: Disk;
}

/** Sums over the expert records written so far, of what their quantiser reported. */
export type ErrorSums = Readonly<Record<string, number>>;

export type ManifestParts = Omit<Manifest, 'geometry' | 'dense' | 'experts' | 'quality'>;

export interface MoeWriter {
  /** Dense tensors and expert records that an earlier writer left complete. */
  readonly resumedTensors: ReadonlySet<string>;
  readonly resumedRecords: number;
  /** Begins the next tensor of `options.dense`; its bytes are appended in order, then it is ended. */
  tensor(name: string): DenseTensorWriter;
  /** Appends the next expert record. The bytes are the caller's again when it resolves. */
  record(bytes: Uint8Array, checksums: readonly number[], relativeError: ErrorSums): Promise<void>;
  /** Syncs all, writes the manifest and renames to OUT; the writer is closed then. */
  finish(parts: ManifestParts, tokenizerJson: string, tokenizerConfigJson: string): Promise<void>;
  /** Writes the ledger and closes the files; what is there can be resumed. Safe to call twice and after finish. */
  close(): Promise<void>;
}

export interface DenseTensorWriter {
  append(bytes: Uint8Array): Promise<void>;
  end(): void;
}

interface Ledger {
  readonly key: string;
  readonly tensors: Readonly<Record<string, DenseTensorEntry>>;
  readonly records: number;
  /** base64 of uint32 little-endian, of the records that are complete. */
  readonly checksums: string;
  readonly errorSums: ErrorSums;
}

/**
 * Opens a writer, going on from `OUT.partial` where its ledger has the same key.
 *
 * @throws {MoestroError} OUTPUT_EXISTS when OUT exists and not `force`, or when another process is writing it;
 * DISK_FULL when what is left to write does not fit; IO_ERROR when the place cannot be written.
 */
export async function openMoeWriter(options: MoeWriterOptions): Promise<MoeWriter> {
  const out = resolve(options.out);
  const disk = options.disk ?? realDisk;
  if (existsSync(out) && !options.force)
    throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${options.out}": it exists; use --force to replace it`, {
      path: options.out,
    });
  const partial = `${out}.partial`;
  const layout = denseLayout(options.dense);
  const expertBytes = options.recordCount * options.geometry.recordBytes;
  let locked = false;
  try {
    await mkdir(partial, { recursive: true });
    await takeLock(partial, options.out);
    locked = true;
    let ledger = await readLedger(partial, options, layout);
    if (ledger === undefined) {
      for (const file of ['ledger.json', 'dense.safetensors', 'experts.bin', 'manifest.json'])
        await rm(join(partial, file), { force: true });
      ledger = { key: options.key, tensors: {}, records: 0, checksums: '', errorSums: {} };
    }
    const done =
      Object.values(ledger.tensors).reduce((sum, tensor) => sum + tensor.bytes, 0) +
      ledger.records * options.geometry.recordBytes;
    const needed = layout.fileBytes + expertBytes - done;
    const found = await disk.freeBytes(partial);
    if (found < needed) throw diskFull(`Cannot write "${options.out}"`, dirname(out), found, needed);
    return await startWriter(options, out, partial, disk, layout, ledger);
  } catch (cause) {
    if (locked) await rm(join(partial, 'lock'), { force: true }).catch(() => {});
    throw await writeError(disk, `Cannot write "${options.out}"`, dirname(out), layout.fileBytes + expertBytes, cause);
  }
}

async function startWriter(
  options: MoeWriterOptions,
  out: string,
  partial: string,
  disk: Disk,
  layout: DenseLayout,
  ledger: Ledger,
): Promise<MoeWriter> {
  const { geometry } = options;
  const { crc32c } = loadAddon();
  const planeCount = geometry.planes.length;
  const checksums = Buffer.alloc(options.recordCount * planeCount * 4);
  checksums.write(ledger.checksums, 'base64');
  const tensors: Record<string, DenseTensorEntry> = { ...ledger.tensors };
  const errorSums: Record<string, number> = { ...ledger.errorSums };
  let records = ledger.records;
  let sinceLedger = 0;
  let closed = false;

  const denseFile = await open(
    join(partial, 'dense.safetensors'),
    existsSync(join(partial, 'dense.safetensors')) ? 'r+' : 'w+',
  );
  const expertsFile = await open(join(partial, 'experts.bin'), existsSync(join(partial, 'experts.bin')) ? 'r+' : 'w+');
  // Bytes after what the ledger knows may be of a record cut short.
  await expertsFile.truncate(records * geometry.recordBytes);
  await disk.write(denseFile, layout.header, 0);

  const left = (): number => (options.recordCount - records) * geometry.recordBytes;
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      throw await writeError(disk, `Cannot write "${options.out}"`, dirname(out), left(), cause);
    }
  };
  /** What the ledger counts must be on the disk before it says so. */
  const saveLedger = async (): Promise<void> => {
    await denseFile.datasync();
    await expertsFile.datasync();
    const text: Ledger = {
      key: options.key,
      tensors,
      records,
      checksums: checksums.subarray(0, records * planeCount * 4).toString('base64'),
      errorSums,
    };
    await replaceFile(disk, join(partial, 'ledger.json'), JSON.stringify(text));
    sinceLedger = 0;
  };
  const wrote = async (bytes: number): Promise<void> => {
    sinceLedger += bytes;
    if (sinceLedger >= (options.ledgerEveryBytes ?? LEDGER_EVERY_BYTES)) await saveLedger();
  };

  return {
    resumedTensors: new Set(Object.keys(ledger.tensors)),
    resumedRecords: ledger.records,

    tensor(name) {
      const place = layout.places.get(name);
      if (place === undefined) throw new MoestroError('INTERNAL', `Cannot write tensor "${name}": not in the layout`);
      let done = 0;
      let crc = 0;
      return {
        append: (bytes) =>
          guarded(async () => {
            if (done + bytes.length > place.bytes)
              throw new MoestroError(
                'INTERNAL',
                `Cannot write tensor "${name}": got ${done + bytes.length} bytes, needed ${place.bytes}`,
              );
            await disk.write(denseFile, bytes, place.offset + done);
            crc = crc32c(crc, bytes);
            done += bytes.length;
            await wrote(bytes.length);
          }),
        end() {
          if (done !== place.bytes)
            throw new MoestroError(
              'INTERNAL',
              `Cannot write tensor "${name}": got ${done} bytes, needed ${place.bytes}`,
            );
          tensors[name] = { ...place, crc32c: crc };
        },
      };
    },

    record: (bytes, planeChecksums, relativeError) =>
      guarded(async () => {
        await disk.write(expertsFile, bytes, records * geometry.recordBytes);
        planeChecksums.forEach((crc, plane) => {
          checksums.writeUInt32LE(crc, (records * planeCount + plane) * 4);
        });
        for (const [level, error] of Object.entries(relativeError)) errorSums[level] = (errorSums[level] ?? 0) + error;
        records++;
        await wrote(bytes.length);
      }),

    finish: (parts, tokenizerJson, tokenizerConfigJson) =>
      guarded(async () => {
        const missing = [...layout.places.keys()].filter((name) => tensors[name] === undefined);
        if (missing.length > 0 || records !== options.recordCount)
          throw new MoestroError(
            'INTERNAL',
            `Cannot finish "${options.out}": ${missing.length} tensors and ${options.recordCount - records} records are missing`,
          );
        const manifest: Manifest = {
          ...parts,
          geometry,
          dense: { file: 'dense.safetensors', bytes: layout.fileBytes, tensors },
          experts: {
            file: 'experts.bin',
            bytes: options.recordCount * geometry.recordBytes,
            checksums: checksums.toString('base64'),
          },
          quality: {
            relativeError: Object.fromEntries(
              parts.levels.map((level) => [String(level), (errorSums[String(level)] ?? 0) / options.recordCount]),
            ),
          },
        };
        await saveLedger();
        await replaceFile(disk, join(partial, 'tokenizer.json'), tokenizerJson);
        await replaceFile(disk, join(partial, 'tokenizer_config.json'), tokenizerConfigJson);
        await replaceFile(disk, join(partial, 'manifest.json'), `${JSON.stringify(manifest, null, 1)}\n`);
        closed = true;
        await closeAll(denseFile, expertsFile);
        await moveIntoPlace(partial, out, options.force);
      }),

    async close() {
      if (closed) return;
      closed = true;
      try {
        // Nothing new can be promised on a disk that refuses writes; the last ledger stands.
        await saveLedger().catch(() => {});
      } finally {
        await closeAll(denseFile, expertsFile);
        await unlink(join(partial, 'lock')).catch(() => {});
      }
    },
  };
}

async function closeAll(...files: readonly FileHandle[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

/** The rename is the moment of completion. What it replaces is set aside first and removed after. */
async function moveIntoPlace(partial: string, out: string, force: boolean): Promise<void> {
  const replaced = `${out}.replaced`;
  const exists = existsSync(out);
  if (exists && !force) throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${out}": it appeared meanwhile`);
  if (exists) {
    await rm(replaced, { recursive: true, force: true });
    await rename(out, replaced);
  }
  await rename(partial, out);
  await syncDirectory(dirname(out));
  for (const file of ['ledger.json', 'lock']) await rm(join(out, file), { force: true });
  if (exists) await rm(replaced, { recursive: true, force: true });
}

async function takeLock(partial: string, out: string): Promise<void> {
  const path = join(partial, 'lock');
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const file = await open(path, 'wx');
      await file.write(String(process.pid));
      await file.close();
      return;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
    }
    const pid = Number(await readFile(path, 'utf8').catch(() => ''));
    if (Number.isInteger(pid) && pid > 0 && isAlive(pid))
      throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${out}": process ${pid} is writing it`, { pid });
    await rm(path, { force: true }); // its writer was killed
  }
  throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${out}": another process took it`);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM'; // alive, and another user's
  }
}

/** The ledger of the same conversion, as far as the files bear it out; undefined to begin anew. */
async function readLedger(
  partial: string,
  options: MoeWriterOptions,
  layout: DenseLayout,
): Promise<Ledger | undefined> {
  const text = await readFile(join(partial, 'ledger.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  let ledger: Ledger;
  try {
    ledger = JSON.parse(text) as Ledger;
  } catch {
    return undefined; // not ours
  }
  const { recordBytes, planes } = options.geometry;
  if (ledger.key !== options.key || !(ledger.records >= 0 && ledger.records <= options.recordCount)) return undefined;
  if (Buffer.from(ledger.checksums, 'base64').length !== ledger.records * planes.length * 4) return undefined;
  const size = async (file: string): Promise<number> =>
    stat(join(partial, file)).then(
      (found) => found.size,
      () => 0,
    );
  if ((await size('experts.bin')) < ledger.records * recordBytes) return undefined;
  const denseEnd = Math.max(0, ...Object.values(ledger.tensors).map((tensor) => tensor.offset + tensor.bytes));
  if ((await size('dense.safetensors')) < denseEnd) return undefined;
  const known = Object.entries(ledger.tensors).every(([name, entry]) => {
    const place = layout.places.get(name);
    return place !== undefined && place.offset === entry.offset && place.bytes === entry.bytes;
  });
  return known ? ledger : undefined;
}

interface DenseLayout {
  readonly header: Uint8Array;
  readonly places: ReadonlyMap<string, Omit<DenseTensorEntry, 'crc32c'>>;
  readonly fileBytes: number;
}

/** The header of dense.safetensors and the place of every tensor: matrices as U8 blocks, the rest as F32. */
function denseLayout(dense: MoeWriterOptions['dense']): DenseLayout {
  const entries: Record<string, unknown> = { __metadata__: { format: 'moestro' } };
  const relative = new Map<string, Omit<DenseTensorEntry, 'crc32c'>>();
  let end = 0;
  for (const [name, [rows, cols]] of dense) {
    const kind = denseTensorKind(name);
    const bytes = denseTensorBytes(kind, rows, cols);
    entries[name] = {
      dtype: kind === 'q8' ? 'U8' : 'F32',
      shape: kind === 'q8' ? [bytes] : [rows, cols],
      data_offsets: [end, end + bytes],
    };
    relative.set(name, { kind, rows, cols, offset: end, bytes });
    end += bytes;
  }
  const json = Buffer.from(JSON.stringify(entries));
  // Spaces after the JSON are part of the header's length, as the format allows.
  const dataStart = Math.ceil((8 + json.length) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  const header = Buffer.alloc(dataStart, ' ');
  header.writeBigUInt64LE(BigInt(dataStart - 8), 0);
  json.copy(header, 8);
  const places = new Map([...relative].map(([name, place]) => [name, { ...place, offset: dataStart + place.offset }]));
  return { header, places, fileBytes: dataStart + end };
}
