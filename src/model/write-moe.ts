/**
 * How does a `.moe` directory come to be, so that no reader ever meets half of one? Everything is written into
 * `OUT.partial/`, where a ledger says what is complete, and the directory is renamed to OUT at the end. A writer that
 * was killed is followed by one that goes on from the ledger.
 *
 *   OUT.partial/lock             pid of the writer, which holds a lock on this file
 *   OUT.partial/ledger.json      the key of this conversion, dense tensors and expert records that are durable
 *   OUT.partial/dense.safetensors, experts.bin, tokenizer.json, tokenizer_config.json, manifest.json (last)
 */
import { constants, existsSync } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { MoestroError } from '../errors.js';
import { loadAddon } from '../native/binding.js';
import { type DenseBits, type DenseLayout, denseLayout } from './dense-layout.js';
import { type Disk, diskFull, realDisk, replaceFile, syncDirectory, writeError } from './disk.js';
import type { DenseTensorEntry, Manifest, PlaneGeometry } from './manifest.js';
import { type Ledger, readLedger, takeLock } from './partial-output.js';

/** Bytes between two entries of the ledger: half a second of a slow disk, and what a kill may cost. */
const LEDGER_EVERY_BYTES = 256 << 20;

export interface MoeWriterOptions {
  readonly out: string;
  /** Tensors in file order with their shapes. */
  readonly dense: ReadonlyMap<string, readonly [rows: number, cols: number]>;
  /** Bits of dense matrices, see denseTensorKind(). */
  readonly denseBits: DenseBits;
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

/**
 * Opens a writer, going on from `OUT.partial` where its ledger has the same key.
 *
 * @throws {MoestroError} OUTPUT_EXISTS when OUT exists and not `force`, or when another process is writing it;
 * DISK_FULL when what is left to write does not fit; IO_ERROR when the place cannot be written.
 */
export async function openMoeWriter(options: MoeWriterOptions): Promise<MoeWriter> {
  const out = resolve(options.out);
  const disk = options.disk ?? realDisk;
  await checkPlace(out, options);
  const partial = `${out}.partial`;
  const layout = denseLayout(options.dense, options.denseBits);
  const expertBytes = options.recordCount * options.geometry.recordBytes;
  let lock: FileHandle | undefined;
  try {
    lock = await takeLock(partial, options.out);
    // Another writer may have finished while we came for the lock.
    await checkPlace(out, options);
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
    return await startWriter(options, out, partial, lock, disk, layout, ledger);
  } catch (cause) {
    if (lock !== undefined) await releaseLock(partial, lock);
    throw await writeError(disk, `Cannot write "${options.out}"`, dirname(out), layout.fileBytes + expertBytes, cause);
  }
}

async function startWriter(
  options: MoeWriterOptions,
  out: string,
  partial: string,
  lock: FileHandle,
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

  const [denseFile, expertsFile] = await openFiles(partial);
  try {
    // Bytes after what the ledger knows may be of a record cut short.
    await expertsFile.truncate(records * geometry.recordBytes);
    await disk.write(denseFile, layout.header, 0);
  } catch (error) {
    await closeAll(denseFile, expertsFile);
    throw error;
  }

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
        await moveIntoPlace(partial, out, options);
        closed = true;
        await closeAll(denseFile, expertsFile, lock);
      }),

    async close() {
      if (closed) return;
      closed = true;
      try {
        // Nothing new can be promised on a disk that refuses writes; the last ledger stands.
        await saveLedger().catch(() => {});
      } finally {
        await closeAll(denseFile, expertsFile);
        await releaseLock(partial, lock);
      }
    },
  };
}

/** Both for writing, with the content they have. */
async function openFiles(partial: string): Promise<readonly [dense: FileHandle, experts: FileHandle]> {
  const flags = constants.O_RDWR | constants.O_CREAT;
  const dense = await open(join(partial, 'dense.safetensors'), flags);
  try {
    return [dense, await open(join(partial, 'experts.bin'), flags)];
  } catch (error) {
    await dense.close();
    throw error;
  }
}

async function releaseLock(partial: string, lock: FileHandle): Promise<void> {
  await rm(join(partial, 'lock'), { force: true }).catch(() => {});
  await lock.close();
}

/** Throws OUTPUT_EXISTS where something stands, except with `force` for what a conversion may replace. */
async function checkPlace(out: string, { out: asGiven, force }: MoeWriterOptions): Promise<void> {
  if (!existsSync(out)) return;
  const refuse = (why: string): never => {
    throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${asGiven}": ${why}`, { path: asGiven });
  };
  if (!force) refuse('it exists; use --force to replace it');
  // Force is for a model made before. Whatever else stands there, a source or a home directory, is not ours to remove.
  if (!(await isModelOrEmpty(out))) refuse('found something else there, and --force replaces only a .moe directory');
}

async function isModelOrEmpty(path: string): Promise<boolean> {
  const names = await readdir(path).catch(() => undefined);
  if (names === undefined) return false;
  return names.length === 0 || (names.includes('manifest.json') && names.includes('experts.bin'));
}

async function closeAll(...files: readonly FileHandle[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

/** The rename is the moment of completion. What it replaces is set aside first and removed after. */
async function moveIntoPlace(partial: string, out: string, options: MoeWriterOptions): Promise<void> {
  const replaced = `${out}.replaced`;
  await checkPlace(out, options);
  const exists = existsSync(out);
  if (exists) {
    await rm(replaced, { recursive: true, force: true });
    await rename(out, replaced);
  }
  await rename(partial, out);
  await syncDirectory(dirname(out));
  for (const file of ['ledger.json', 'lock']) await rm(join(out, file), { force: true });
  if (exists) await rm(replaced, { recursive: true, force: true });
}
