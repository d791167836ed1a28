/** A quantising thread of the pool: one job in, one result out. All the work is in native/quantise. */
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { MoestroError, toMoestroError } from '../../errors.js';
import { loadAddon, type NativeAddon } from '../../native/binding.js';
import type { QuantiseDone, QuantiseJob } from './job.js';

/** The pool's task: a QuantiseResult, whose buffer goes back without a copy. */
export function quantise(job: QuantiseJob): unknown {
  try {
    const done = runQuantiseJob(loadAddon(), job);
    return move({ [transferableSymbol]: [done.out.buffer], [valueSymbol]: done });
  } catch (error) {
    const { code, message } = toMoestroError(error);
    return { ok: false, code, message };
  }
}

/** Runs one job on the calling thread. Throws what native code throws, SOURCE_INVALID for a number that is not finite. */
export function runQuantiseJob(addon: NativeAddon, job: QuantiseJob): QuantiseDone {
  if (job.kind === 'expert') {
    const out = new Uint8Array(job.out);
    const { relativeError } = addon.quantiseExpert({ ...job.request, out });
    const checksums = job.planes.map(({ offset, bytes }) => addon.crc32c(0, out.subarray(offset, offset + bytes)));
    return { ok: true, out, checksums, relativeError };
  }
  if (job.kind !== 'f32') {
    const out = new Uint8Array(job.outBytes);
    addon.quantiseDense(job.dtype, job.bytes, job.rows, job.cols, Number(job.kind[1]) as 4 | 6 | 8, out);
    return { ok: true, out, checksums: [], relativeError: {} };
  }
  const values = new Float32Array(job.count);
  addon.dequantise(job.dtype, job.bytes, job.count, values);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot convert weight ${bad}: got ${values[bad]}, needed a finite number`,
    );
  return { ok: true, out: new Uint8Array(values.buffer), checksums: [], relativeError: {} };
}
