/**
 * Writes what a running engine routes to a file (experts/recorded-steps.ts) without ever making a step wait: one buffer
 * fills while another is written. Where the disk does not keep up, whole steps are left out and counted; where it is full or
 * fails, recording ends and says why, and the engine goes on.
 */
import { closeSync, openSync, statSync, write, writeSync } from 'node:fs';
import { parse } from 'node:path';
import { MoestroError } from '../errors.js';
import type { Routing } from '../experts/plan.js';
import {
  headerLine,
  type StepShape,
  type StepsHeader,
  stepBytes,
  writeLayer,
  writeStep,
} from '../experts/recorded-steps.js';
import type { Residency } from '../experts/residency.js';
import type { Batch } from './batch.js';
import type { EarlyRouter } from './early-router.js';
import type { RecordingMetrics } from './engine-metrics.js';

/** A buffer holds at least this much: seconds of decoding. */
const BUFFER_BYTES = 1 << 20;
/** With so much to write, and nothing being written, a write begins: less is not worth a system call a step. */
const WRITE_BYTES = 1 << 16;

/** Where bytes go; `written` is told once for each `write`, with an error when not all of them are there. */
export interface TraceSink {
  write(bytes: Uint8Array, written: (error: Error | null) => void): void;
  /** Writes what is left and closes, both at once. */
  end(bytes: Uint8Array): void;
}

/**
 * Opens a file for writing, under the next free number where a recording of that name is there already: a model that
 * is loaded again after others had their turn, or a second run, must not take the first one's away.
 */
function openFresh(path: string): number {
  const { dir, name, ext } = parse(path);
  for (let number = 1; ; ++number) {
    const file = number === 1 ? path : `${dir === '' ? '' : `${dir}/`}${name}-${number}${ext}`;
    const found = statSync(file, { throwIfNoEntry: false });
    // Pipes and devices take what comes; an empty file holds nothing to lose.
    if (found !== undefined && (!found.isFile() || found.size === 0)) return openSync(file, 'w');
    try {
      const fd = openSync(file, 'wx');
      if (number > 1) process.stderr.write(`moestro: "${path}" is there already, so routing goes to "${file}"\n`);
      return fd;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/**
 * A file to write to, see `openFresh`. When that fails later on it is said on standard error, once.
 *
 * @throws {MoestroError} IO_ERROR when the file cannot be opened for writing.
 */
export function openTraceFile(path: string): TraceSink {
  const warn = ({ message }: Error) => process.stderr.write(`moestro: no more is recorded to "${path}": ${message}\n`);
  let fd: number;
  try {
    fd = openFresh(path);
  } catch (cause) {
    throw new MoestroError('IO_ERROR', `Cannot write the routing trace to "${path}"`, { path }, cause);
  }
  const writeFrom = (bytes: Uint8Array, from: number, written: (error: Error | null) => void): void => {
    write(fd, bytes, from, bytes.length - from, (error, count) => {
      if (error !== null) warn(error);
      if (error !== null || from + count === bytes.length) written(error);
      else writeFrom(bytes, from + count, written);
    });
  };
  return {
    write: (bytes, written) => writeFrom(bytes, 0, written),
    end: (bytes) => {
      try {
        for (let from = 0; from < bytes.length; ) from += writeSync(fd, bytes, from, bytes.length - from);
      } catch (error) {
        warn(error as Error);
        throw error;
      } finally {
        closeSync(fd);
      }
    },
  };
}

/** Memory of both buffers: what a recording takes while the engine runs. */
export function recorderBytes(shape: StepShape & Pick<StepsHeader, 'rows'>, tokens: number): number {
  return 2 * bufferBytesFor(shape, tokens, BUFFER_BYTES);
}

/** A buffer holds a whole step: the largest, or as many tokens as may have guesses. */
function bufferBytesFor(shape: StepShape & Pick<StepsHeader, 'rows'>, tokens: number, least: number): number {
  const small = Math.min(tokens, shape.guessTokens);
  return Math.max(least, stepBytes(shape, shape.rows, tokens), stepBytes(shape, shape.rows, small));
}

export class TraceRecorder {
  readonly #header: StepsHeader;
  readonly #sink: TraceSink;
  /** Filled now, and written now or free. */
  #filling: Uint8Array;
  #other: Uint8Array;
  #used = 0;
  readonly #early: EarlyRouter | null;
  #isWriting = false;
  #onWritten: () => void = () => {};
  #tokens = 0;
  /** Offset behind what is recorded of the step under way; -1 while none is. */
  #at = -1;
  #stepEnd = 0;
  #dropped = 0;
  #droppedBefore = 0;
  #steps = 0;
  #bytes = 0;
  #failure: string | null = null;

  /**
   * @param tokens of one step at most.
   * @param early whom to ask a layer early; null where routers do not choose.
   */
  constructor(
    header: Omit<StepsHeader, 'guesses' | 'guessTokens'>,
    tokens: number,
    sink: TraceSink,
    early: EarlyRouter | null = null,
    bufferBytes = BUFFER_BYTES,
  ) {
    this.#header = { ...header, ...(early?.shape ?? { guesses: 0, guessTokens: 0 }) };
    this.#sink = sink;
    this.#early = early;
    const line = new TextEncoder().encode(headerLine(this.#header));
    const most = Math.max(bufferBytesFor(this.#header, tokens, bufferBytes), line.length);
    this.#filling = new Uint8Array(most);
    this.#other = new Uint8Array(most);
    this.#filling.set(line);
    this.#used = line.length;
  }

  beginStep(batch: Batch): void {
    this.#at = -1;
    if (this.#failure !== null) return;
    const bytes = stepBytes(this.#header, batch.rowCount, batch.tokens);
    if (this.#used + bytes > this.#filling.length) this.#write();
    if (this.#used + bytes > this.#filling.length) {
      ++this.#dropped;
      ++this.#droppedBefore;
      return;
    }
    const view = viewOf(this.#filling);
    this.#tokens = batch.tokens;
    if (this.#early !== null) this.#early.layer = -1;
    this.#stepEnd = this.#used + bytes;
    this.#at = writeStep(view, this.#used, bytes, this.#droppedBefore, batch.rowCount, batch.rowIds, batch.rowTokens);
  }

  /** The layer before MoE layer `moe`, which is `modelLayer` of the model, has run: its router is asked in small steps. */
  layerAhead(moe: number, modelLayer: number): void {
    if (this.#at < 0 || this.#early === null || this.#tokens > this.#early.shape.guessTokens) return;
    this.#early.ask(moe, modelLayer, this.#tokens);
  }

  /** A layer was routed and is about to be planned. */
  layer(routing: Routing, residency: Residency): void {
    if (this.#at < 0) return;
    const guesses = this.#early?.layer === routing.layer ? this.#early : null;
    this.#at = writeLayer(viewOf(this.#filling), this.#at, this.#header, routing, residency, guesses);
  }

  /** The step has run through; one that threw is never told of and is written over. */
  endStep(): void {
    if (this.#at < 0 || this.#at !== this.#stepEnd) return;
    this.#at = -1;
    this.#used = this.#stepEnd;
    this.#droppedBefore = 0;
    ++this.#steps;
    if (this.#used >= WRITE_BYTES) this.#write();
  }

  metrics(): RecordingMetrics {
    return { steps: this.#steps, droppedSteps: this.#dropped, bytes: this.#bytes, failure: this.#failure };
  }

  /** Waits for what is being written and writes the rest; nothing is recorded afterwards. */
  async close(): Promise<void> {
    if (this.#isWriting) {
      await new Promise<void>((resolve) => {
        this.#onWritten = resolve;
      });
    }
    const rest = this.#failure === null ? this.#filling.subarray(0, this.#used) : new Uint8Array(0);
    this.#used = 0;
    this.#at = -1;
    try {
      this.#sink.end(rest);
      this.#bytes += rest.length;
    } catch (error) {
      this.#failure ??= (error as Error).message;
    }
    this.#failure ??= 'it was closed';
  }

  #write(): void {
    if (this.#isWriting || this.#used === 0) return;
    const bytes = this.#filling.subarray(0, this.#used);
    this.#isWriting = true;
    [this.#filling, this.#other] = [this.#other, this.#filling];
    this.#used = 0;
    this.#sink.write(bytes, (error) => {
      this.#isWriting = false;
      if (error === null) this.#bytes += bytes.length;
      else this.#failure ??= error.message;
      this.#onWritten();
    });
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
