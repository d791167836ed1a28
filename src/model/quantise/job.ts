/** What the converter hands to a quantising thread and gets back: plain data, its buffers moved and not copied. */
import type { QuantiseExpertRequest, SourceDtype } from '../../native/binding.js';

export type QuantiseJob =
  /** One expert to its record; `planes` are the byte ranges of the record that get a checksum each. */
  | {
      readonly kind: 'expert';
      readonly request: Omit<QuantiseExpertRequest, 'out'>;
      readonly out: ArrayBuffer;
      readonly planes: readonly { readonly offset: number; readonly bytes: number }[];
    }
  /** Rows of a matrix to a dense one of 4, 6 or 8 bits. */
  | {
      readonly kind: 'q4' | 'q6' | 'q8';
      readonly dtype: SourceDtype;
      readonly bytes: Uint8Array;
      readonly rows: number;
      readonly cols: number;
      readonly outBytes: number;
    }
  /** Weights to float32. */
  | { readonly kind: 'f32'; readonly dtype: SourceDtype; readonly bytes: Uint8Array; readonly count: number };

export interface QuantiseDone {
  readonly ok: true;
  readonly out: Uint8Array<ArrayBuffer>;
  /** Experts only: CRC-32C of every plane, and the relative squared error per level. */
  readonly checksums: readonly number[];
  readonly relativeError: Readonly<Record<string, number>>;
}

/** An error's code would be lost on its way between threads, so it travels as data. */
export type QuantiseResult = QuantiseDone | { readonly ok: false; readonly code: string; readonly message: string };

/** The buffers of a job that move with it. */
export function transferList(job: QuantiseJob): ArrayBuffer[] {
  const views = job.kind === 'expert' ? [job.request.gate, job.request.up, job.request.down] : [job.bytes];
  const buffers = new Set<ArrayBuffer>(job.kind === 'expert' ? [job.out] : []);
  for (const view of views) {
    // A view into a larger buffer is copied instead: moving it would take its neighbours along.
    if (view.buffer instanceof ArrayBuffer && view.byteLength === view.buffer.byteLength) buffers.add(view.buffer);
  }
  return [...buffers];
}
