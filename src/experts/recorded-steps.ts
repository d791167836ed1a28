/**
 * What did a running engine route, step by step, and with how many slots? The format that `--record-trace` writes and
 * `moestro replay` reads (`.moetrace`): a line of JSON, then steps, little-endian:
 *
 *     step   u32 bytes that follow, u32 steps that were dropped before it, u32 rows, rows of { u32 sequence, u32 tokens },
 *            then its MoE layers in turn
 *     layer  u32 bit slots, u32 scale slots; [tokens][topK] of u16 expert ids, best first; of f32 routing weights; of u8 bits
 *            wanted; of u8 bits that were resident as the layer was planned; in small steps then what the router said when it
 *            was asked a layer early (recorded-guesses.ts)
 *
 * Version 1 had no such guesses and is still read.
 * A file whose writer was killed ends in part of a step, which is left out.
 */
import { MoestroError } from '../errors.js';
import type { Routing } from './plan.js';
import {
  type GuessShape,
  guessBytes,
  type LayerGuesses,
  type RecordedGuesses,
  readGuesses,
  writeGuesses,
} from './recorded-guesses.js';
import type { Recording } from './trace.js';

/** What the first line tells; without guesses `guesses` is 0. */
export interface StepsHeader extends GuessShape {
  readonly format: 'moestro-routing';
  readonly version: 1 | 2;
  readonly model: string;
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  /** Sequences of one step at most. */
  readonly rows: number;
  readonly fullLevel: number;
  readonly levels: readonly number[];
  /** Of one bit of one expert, and of its scales. */
  readonly bitBytes: number;
  readonly scaleBytes: number;
}

/** The steps of a recording; its ids stand token by token in the order of steps, rows one after another. */
export interface RecordedSteps {
  readonly header: StepsHeader;
  readonly steps: readonly RecordedStep[];
  /** Uint8Array [tokens, layers, topK]: bits wanted, bits resident. */
  readonly levels: Uint8Array;
  readonly residentBits: Uint8Array;
  /** Null where the header says that there are none. */
  readonly guesses: RecordedGuesses | null;
  readonly droppedSteps: number;
}

export interface RecordedStep {
  readonly firstToken: number;
  readonly tokens: number;
  readonly rowIds: readonly number[];
  readonly rowTokens: readonly number[];
  /** By layer. */
  readonly bitSlots: Int32Array;
  readonly scaleSlots: Int32Array;
}

/** Bytes of an expert chosen: id, weight, bits wanted, bits resident. */
const CHOICE_BYTES = 8;
const HEADER_LINE_MAX = 4096;
/** Least and most. */
const LIMITS = {
  layers: [1, 1024],
  experts: [1, 65_536],
  topK: [1, 64],
  rows: [1, 65_536],
  fullLevel: [1, 8],
  bitBytes: [1, 2 ** 31],
  scaleBytes: [1, 2 ** 31],
  guesses: [0, 128],
  guessTokens: [0, 1024],
} as const;

/** What the length of a step goes by. */
export type StepShape = Pick<StepsHeader, 'layers' | 'topK' | 'guesses' | 'guessTokens'>;

export const headerLine = (header: StepsHeader): string => `${JSON.stringify(header)}\n`;

/** Bytes of one step in the file, its length included. */
export function stepBytes(header: StepShape, rows: number, tokens: number): number {
  return 12 + 8 * rows + header.layers * layerBytes(header, tokens);
}

function layerBytes(header: StepShape, tokens: number): number {
  return 8 + tokens * header.topK * CHOICE_BYTES + guessBytes(header, tokens);
}

/** Writes what precedes the layers. Returns the offset after it. */
export function writeStep(
  view: DataView,
  offset: number,
  bytes: number,
  dropped: number,
  rows: number,
  rowIds: ArrayLike<number>,
  rowTokens: ArrayLike<number>,
): number {
  view.setUint32(offset, bytes - 4, true);
  view.setUint32(offset + 4, dropped, true);
  view.setUint32(offset + 8, rows, true);
  let at = offset + 12;
  for (let row = 0; row < rows; ++row, at += 8) {
    view.setUint32(at, rowIds[row]! >>> 0, true);
    view.setUint32(at + 4, rowTokens[row]!, true);
  }
  return at;
}

/** Writes one layer. Returns the offset after it. */
export function writeLayer(
  view: DataView,
  offset: number,
  header: StepShape,
  routing: Routing,
  residency: {
    readonly experts: number;
    readonly bitSlots: number;
    readonly scaleSlots: number;
    readonly residentBits: Uint8Array;
  },
  guesses: LayerGuesses | null,
): number {
  const count = routing.tokens * routing.topK;
  const first = routing.layer * residency.experts;
  view.setUint32(offset, residency.bitSlots, true);
  view.setUint32(offset + 4, residency.scaleSlots, true);
  const ids = offset + 8;
  const weights = ids + 2 * count;
  const levels = weights + 4 * count;
  for (let i = 0; i < count; ++i) {
    const id = routing.ids[i]!;
    view.setUint16(ids + 2 * i, id, true);
    view.setFloat32(weights + 4 * i, routing.weights[i]!, true);
    view.setUint8(levels + i, routing.levels[i]!);
    view.setUint8(levels + count + i, residency.residentBits[first + id]!);
  }
  return writeGuesses(view, levels + 2 * count, header, routing.tokens, guesses);
}

/** @throws {MoestroError} INVALID_CONFIG when it is no such file, or names what its first line rules out. */
export function readSteps(path: string, bytes: Uint8Array): Recording {
  const end = bytes.subarray(0, HEADER_LINE_MAX).indexOf(10);
  if (end < 0) throw invalid(path, `it has no line end within ${HEADER_LINE_MAX} bytes`);
  const header = readHeader(path, new TextDecoder().decode(bytes.subarray(0, end)));
  const body = bytes.subarray(end + 1);
  const steps = findSteps(path, body, header);
  const tokens = steps.reduce((sum, step) => sum + step.tokens, 0);
  if (tokens === 0) throw invalid(path, 'it holds no token');
  const perToken = header.layers * header.topK;
  const out = {
    ids: new Uint16Array(tokens * perToken),
    weights: new Float32Array(tokens * perToken),
    levels: new Uint8Array(tokens * perToken),
    residentBits: new Uint8Array(tokens * perToken),
    guesses: createGuesses(header, steps, tokens),
  };
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (const step of steps) readLayers(path, view, step, header, out);
  const droppedSteps = steps.reduce((sum, step) => sum + step.dropped, 0);
  const { ids, weights, levels, residentBits, guesses } = out;
  const live = { header, steps, levels, residentBits, guesses, droppedSteps };
  return { tokens, layers: header.layers, topK: header.topK, ids, weights, isRanked: true, live };
}

/** Room for the guesses that the steps hold: no more than their bytes are asked for, however many tokens have none. */
function createGuesses(header: StepsHeader, steps: readonly RecordedStep[], tokens: number): RecordedGuesses | null {
  const { guesses: perToken, guessTokens, layers } = header;
  if (perToken === 0) return null;
  const indexOf = new Int32Array(tokens).fill(-1);
  let guessed = 0;
  for (const step of steps) {
    if (step.tokens > guessTokens) continue;
    for (let i = 0; i < step.tokens; ++i) indexOf[step.firstToken + i] = guessed++;
  }
  const count = guessed * layers * perToken;
  return { perToken, indexOf, ids: new Uint16Array(count), codes: new Int8Array(count) };
}

interface FoundStep extends RecordedStep {
  readonly layersAt: number;
  readonly dropped: number;
}

function readHeader(path: string, line: string): StepsHeader {
  let header: StepsHeader;
  try {
    header = JSON.parse(line) as StepsHeader;
  } catch (cause) {
    throw invalid(path, 'its first line is not JSON', cause);
  }
  if (header?.format !== 'moestro-routing' || (header.version !== 1 && header.version !== 2)) {
    throw invalid(
      path,
      `its first line is "${line.slice(0, 60)}", not that of a moestro-routing file of version 1 or 2`,
    );
  }
  if (header.version === 1) header = { ...header, guesses: 0, guessTokens: 0 };
  for (const [name, [least, most]] of Object.entries(LIMITS)) {
    const found: unknown = header[name as keyof typeof LIMITS];
    if (Number.isInteger(found) && (found as number) >= least && (found as number) <= most) continue;
    throw invalid(path, `its ${name} are ${JSON.stringify(found)}, not ${least} to ${most}`);
  }
  if (header.guesses > header.experts) {
    throw invalid(path, `its guesses are ${header.guesses}, of ${header.experts} experts`);
  }
  const areLevels = Array.isArray(header.levels) && header.levels.every((level) => [2, 3, 4, 8].includes(level));
  if (!areLevels || !header.levels.includes(header.fullLevel)) {
    throw invalid(
      path,
      `its levels are ${JSON.stringify(header.levels)}, not some of 2, 3, 4, 8 with ${header.fullLevel}`,
    );
  }
  return header;
}

function findSteps(path: string, body: Uint8Array, header: StepsHeader): FoundStep[] {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const steps: FoundStep[] = [];
  let firstToken = 0;
  for (let at = 0; at + 12 <= body.length; ) {
    const bytes = view.getUint32(at, true) + 4;
    if (at + bytes > body.length) break;
    const rows = view.getUint32(at + 8, true);
    if (rows < 1 || rows > header.rows || 12 + 8 * rows > bytes) {
      throw invalid(path, `step ${steps.length} has ${rows} rows, not 1 to ${header.rows} within ${bytes} bytes`);
    }
    const at8 = (row: number, more: number) => view.getUint32(at + 12 + 8 * row + more, true);
    const rowIds = Array.from({ length: rows }, (_, row) => at8(row, 0));
    const rowTokens = Array.from({ length: rows }, (_, row) => at8(row, 4));
    const tokens = rowTokens.reduce((sum, count) => sum + count, 0);
    if (rowTokens.includes(0) || stepBytes(header, rows, tokens) !== bytes) {
      throw invalid(path, `step ${steps.length} has ${bytes} bytes, not those of ${tokens} tokens in ${rows} rows`);
    }
    steps.push({
      firstToken,
      tokens,
      rowIds,
      rowTokens,
      bitSlots: new Int32Array(header.layers),
      scaleSlots: new Int32Array(header.layers),
      layersAt: at + 12 + 8 * rows,
      dropped: view.getUint32(at + 4, true),
    });
    firstToken += tokens;
    at += bytes;
  }
  return steps;
}

function readLayers(
  path: string,
  view: DataView,
  step: FoundStep,
  header: StepsHeader,
  out: {
    readonly ids: Uint16Array;
    readonly weights: Float32Array;
    readonly levels: Uint8Array;
    readonly residentBits: Uint8Array;
    readonly guesses: RecordedGuesses | null;
  },
): void {
  const { layers, experts, topK, fullLevel, levels } = header;
  const count = step.tokens * topK;
  const index = out.guesses?.indexOf[step.firstToken] ?? -1;
  for (let layer = 0; layer < layers; ++layer) {
    const at = step.layersAt + layer * layerBytes(header, step.tokens);
    step.bitSlots[layer] = Math.min(view.getUint32(at, true), layers * experts * fullLevel);
    step.scaleSlots[layer] = Math.min(view.getUint32(at + 4, true), layers * experts);
    for (let i = 0; i < count; ++i) {
      const to = ((step.firstToken + Math.floor(i / topK)) * layers + layer) * topK + (i % topK);
      const id = view.getUint16(at + 8 + 2 * i, true);
      const weight = view.getFloat32(at + 8 + 2 * count + 4 * i, true);
      const level = view.getUint8(at + 8 + 6 * count + i);
      const resident = view.getUint8(at + 8 + 7 * count + i);
      const isTwice = out.ids.subarray(to - (i % topK), to).includes(id);
      if (id >= experts || isTwice || !Number.isFinite(weight) || !levels.includes(level) || resident > fullLevel) {
        const found = `expert ${id}${isTwice ? ' twice' : ''}, weight ${weight}, ${level} bits of which ${resident} were resident`;
        throw invalid(path, `token ${step.firstToken + Math.floor(i / topK)} has ${found} in layer ${layer}`);
      }
      out.ids[to] = id;
      out.weights[to] = weight;
      out.levels[to] = level;
      out.residentBits[to] = resident;
    }
    if (index < 0) continue;
    const guessesAt = at + 8 + count * CHOICE_BYTES;
    const wrong = readGuesses(view, guessesAt, step.tokens, { layer, layers, experts, index }, out.guesses!);
    if (wrong !== null)
      throw invalid(path, `token ${step.firstToken} or one of its step has ${wrong} in layer ${layer}`);
  }
}

function invalid(path: string, found: string, cause?: unknown): MoestroError {
  return new MoestroError('INVALID_CONFIG', `Cannot use routing trace "${path}": ${found}`, { path }, cause);
}
