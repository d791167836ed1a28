/**
 * What an output directory under construction says of itself: who writes it (lock) and what in it is complete (ledger).
 */
import { open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MoestroError } from '../errors.js';
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

/** Throws OUTPUT_EXISTS when a living process holds the directory. */
export async function takeLock(partial: string, out: string): Promise<void> {
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
