/**
 * What an output directory under construction says of itself: who writes it (lock) and what in it is complete (ledger).
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MoestroError } from '../errors.js';
import { loadAddon } from '../native/binding.js';
import type { DenseLayout } from './dense-layout.js';
import type { DenseTensorEntry, PlaneGeometry } from './manifest.js';

/** What a ledger must be of, to be gone on from. */
export interface Conversion {
  readonly key: string;
  readonly recordCount: number;
  readonly geometry: PlaneGeometry;
}

export interface Ledger {
  readonly key: string;
  readonly tensors: Readonly<Record<string, DenseTensorEntry>>;
  readonly records: number;
  /** base64 of uint32 little-endian, of the records that are complete. */
  readonly checksums: string;
  readonly errorSums: Readonly<Record<string, number>>;
}

/**
 * Makes the directory and takes its lock, a file that is locked as long as it is open: a writer that was killed holds
 * nothing, whoever has its pid now. The caller closes the file, after it has removed it.
 *
 * @throws {MoestroError} OUTPUT_EXISTS when another process holds it.
 */
export async function takeLock(partial: string, out: string): Promise<FileHandle> {
  const path = join(partial, 'lock');
  const { lockFile } = loadAddon();
  for (;;) {
    await makeDirectory(partial);
    const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
    try {
      if (!lockFile(file.fd)) {
        const pid = (await file.readFile('utf8')).trim();
        const who = pid === '' ? 'another process' : `process ${pid}`;
        throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${out}": ${who} is writing it`, { pid });
      }
      if (await isStillAt(file, path)) {
        await file.truncate(0);
        await file.write(String(process.pid), 0);
        return file;
      }
    } catch (error) {
      await file.close();
      throw error;
    }
    // Between opening and locking, the one before finished and took the file away.
    await file.close();
  }
}

/** Not in one recursive call: that says ENOENT on a read-only file system. */
async function makeDirectory(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  try {
    await mkdir(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST' || !(await stat(path)).isDirectory()) throw cause;
  }
}

async function isStillAt(file: FileHandle, path: string): Promise<boolean> {
  const [held, there] = await Promise.all([file.stat(), stat(path).catch(() => undefined)]);
  return held.ino === there?.ino && held.dev === there.dev;
}

/** The ledger of the same conversion, as far as the files bear it out; undefined to begin anew. */
export async function readLedger(
  partial: string,
  conversion: Conversion,
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
  if (!isLedger(ledger)) return undefined;
  const { recordBytes, planes } = conversion.geometry;
  if (ledger.key !== conversion.key || !(ledger.records >= 0 && ledger.records <= conversion.recordCount))
    return undefined;
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

/** The form alone; whether its content fits this conversion is asked after. */
function isLedger(value: unknown): value is Ledger {
  const fields = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const isObject = (one: unknown): boolean => typeof one === 'object' && one !== null && !Array.isArray(one);
  return (
    typeof fields.key === 'string' &&
    typeof fields.checksums === 'string' &&
    Number.isInteger(fields.records) &&
    isObject(fields.tensors) &&
    Object.values(fields.tensors as object).every(isObject) &&
    isObject(fields.errorSums)
  );
}
