/**
 * Which experts would a real model ask for? Recorded routing, mapped onto a model of another geometry, so that a
 * benchmark of random weights asks cache and disk for what a trained router asks for. For benchmarks and replay.
 *
 * Formats, told apart by the file's ending:
 *   .jsonl  one object a token: {"tok": 1, "layers": [[ids, ascending], ...]}. Ranks and weights are lost.
 *   .csv    turn,phase,step,layer,slot,expert,weight,... with `#` comments before the header line; slot is the rank.
 *   .moetrace  what an engine wrote with --record-trace: steps, weights and slots too (recorded-steps.ts).
 *   .u8     raw bytes [token][layer][rank], best rank first: 48 layers of 8 of 128 (Qwen3-30B-A3B) unless told otherwise.
 */
import { readFileSync } from 'node:fs';
import { MoestroError } from '../errors.js';
import { type RecordedSteps, readSteps } from './recorded-steps.js';

export interface RoutingTrace {
  /** Geometry of the model it is mapped onto. */
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  /** Recorded tokens; the recording repeats beyond them. */
  readonly tokens: number;
  /**
   * Routing of `tokenCount` consecutive tokens at one MoE layer.
   *
   * @param step number of the first of them, counted from the start of the run; taken modulo `tokens`.
   * @param layer index among the model's MoE layers; taken modulo the recording's layers.
   * @param ids out: Uint16Array [tokenCount, topK], distinct per token, best first.
   * @param weights out: Float32Array [tokenCount, topK], descending, summing to 1 per token.
   */
  routingFor(step: number, layer: number, tokenCount: number, ids: Uint16Array, weights: Float32Array): void;
}

/** A recording as it was made: ids Uint16Array [tokens, layers, topK], weights alike or unknown. */
export interface Recording {
  readonly tokens: number;
  readonly layers: number;
  readonly topK: number;
  readonly ids: Uint16Array;
  readonly weights: Float32Array | null;
  /** False when ids stand in ascending order and the router's order is lost. */
  readonly isRanked: boolean;
  /** Of an engine that ran: its steps, sequences and slots. */
  readonly live?: RecordedSteps;
}

const U8_LAYERS = 48;
const U8_TOP_K = 8;
const U8_EXPERTS = 128;
/** No model of the field has more: a bound for what a foreign file may ask to allocate. */
const LAYERS_MAX = 1024;
const TOP_K_MAX = 64;
const EXPERTS_MAX = 65536;

/**
 * Reads a recording and maps it onto a model.
 *
 * @throws {MoestroError} INVALID_CONFIG when the file cannot be read, is malformed, names an expert the model does not
 * have, or holds no token.
 */
export function loadRoutingTrace(
  path: string,
  geometry: { readonly layers: number; readonly experts: number; readonly topK: number },
): RoutingTrace {
  return mapRecording(loadRecording(path), geometry, path);
}

/** What is known of the model beside the file; a `.u8` has its geometry from here. */
export interface RecordedGeometry {
  readonly layers?: number;
  readonly experts?: number;
  readonly topK?: number;
}

/**
 * Parses the bytes of a recording; `path` chooses the format and names the file in errors.
 *
 * @throws {MoestroError} INVALID_CONFIG when it is malformed, or is not of the geometry that is told.
 */
export function readRecording(path: string, bytes: Uint8Array, geometry: RecordedGeometry = {}): Recording {
  const recording = parseRecording(path, bytes, geometry);
  const { layers = recording.layers, topK = recording.topK, experts } = geometry;
  if (recording.layers !== layers || recording.topK !== topK) {
    const found = `it has ${recording.layers} layers of ${recording.topK} experts a token`;
    throw invalid(path, `${found}, not ${layers} of ${topK} as --layers and --top-k say`);
  }
  const largest = largestId(recording);
  if (experts !== undefined && largest >= experts) {
    throw invalid(path, `it names expert ${largest}, not one below ${experts} as --experts says`);
  }
  return recording;
}

/** Reads a recording from disk. @throws {MoestroError} INVALID_CONFIG, as `readRecording`, or when it cannot be read. */
export function loadRecording(path: string, geometry: RecordedGeometry = {}): Recording {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new MoestroError('INVALID_CONFIG', `Cannot read routing trace "${path}"`, { path }, cause);
  }
  return readRecording(path, bytes, geometry);
}

/** The largest expert id in the recording. */
export function largestId(recording: Recording): number {
  return recording.ids.reduce((max, id) => Math.max(max, id), 0);
}

function parseRecording(path: string, bytes: Uint8Array, geometry: RecordedGeometry): Recording {
  const text = () => new TextDecoder().decode(bytes);
  if (path.endsWith('.jsonl')) return readJsonLines(path, text());
  if (path.endsWith('.csv')) return readCsv(path, text());
  if (path.endsWith('.u8')) return readBytes(path, bytes, geometry);
  if (path.endsWith('.moetrace')) return readSteps(path, bytes);
  throw invalid(path, 'its name does not end in .jsonl, .csv, .u8 or .moetrace');
}

/**
 * Maps a recording onto a model of `layers` MoE layers with `experts` experts and top-k `topK`:
 *
 * - A layer beyond the recording's takes the recorded layer modulo their number.
 * - Where the order of ranks is lost, a hash of (token, layer, expert) orders them, the same in every run.
 * - A larger recorded top-k is cut to its best ranks. A smaller one is filled with the experts of the next recorded tokens
 *   at the same layer (those nearest in time, so locality is kept), then with the lowest ids not yet chosen.
 * - Known weights are cut and normalised again. Unknown ones follow 1 / (rank + 3.2), normalised: it fits the mean measured
 *   for Qwen3-30B-A3B at top-6 (.272 .200 .164 .139 .120 .105) within .005.
 */
export function mapRecording(
  recording: Recording,
  geometry: { readonly layers: number; readonly experts: number; readonly topK: number },
  path: string,
): RoutingTrace {
  const { layers, experts, topK } = geometry;
  if (topK > experts) throw invalid(path, `the model's top-k ${topK} is above its ${experts} experts`);
  const largest = largestId(recording);
  if (largest >= experts) {
    throw invalid(path, `it names expert ${largest}, and the model has experts 0 to ${experts - 1}`);
  }
  // Everything is laid out at load, so that a step only copies. Weights only where they are known: a recording of thousands
  // of tokens must not take the memory that it is there to measure.
  const ids = new Uint16Array(recording.tokens * recording.layers * topK);
  for (let at = 0; at < recording.tokens * recording.layers; ++at) {
    const token = Math.floor(at / recording.layers);
    ids.set(chooseExperts(recording, token, at % recording.layers, topK, experts), at * topK);
  }
  const weights = recording.weights === null || topK > recording.topK ? null : cutWeights(recording, topK);
  const profile = normalise(Float32Array.from({ length: topK }, (_, rank) => 1 / (rank + 3.2)));
  return {
    layers,
    experts,
    topK,
    tokens: recording.tokens,
    routingFor(step, layer, tokenCount, idsOut, weightsOut) {
      const recordedLayer = layer % recording.layers;
      for (let i = 0; i < tokenCount; ++i) {
        const from = (((step + i) % recording.tokens) * recording.layers + recordedLayer) * topK;
        for (let rank = 0; rank < topK; ++rank) {
          idsOut[i * topK + rank] = ids[from + rank]!;
          weightsOut[i * topK + rank] = weights === null ? profile[rank]! : weights[from + rank]!;
        }
      }
    },
  };
}

/** The best `topK` of the recorded weights, normalised again: Float32Array [tokens, layers, topK]. */
function cutWeights(recording: Recording, topK: number): Float32Array {
  const weights = new Float32Array(recording.tokens * recording.layers * topK);
  for (let at = 0; at < recording.tokens * recording.layers; ++at) {
    const from = at * recording.topK;
    weights.set(normalise(recording.weights!.slice(from, from + topK)), at * topK);
  }
  return weights;
}

/** Divided by their sum. */
function normalise(weights: Float32Array): Float32Array {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function chooseExperts(recording: Recording, token: number, layer: number, topK: number, experts: number): number[] {
  const chosen: number[] = [];
  // Eight tokens ahead nearly always complete a set; the lowest ids are for recordings of fewer experts than top-k.
  for (let ahead = 0; ahead < 8 && chosen.length < topK; ++ahead) {
    const from = (((token + ahead) % recording.tokens) * recording.layers + layer) * recording.topK;
    const own = Array.from(recording.ids.subarray(from, from + recording.topK));
    if (!recording.isRanked) own.sort((a, b) => hash(token, layer, a) - hash(token, layer, b));
    for (const id of own) if (chosen.length < topK && !chosen.includes(id)) chosen.push(id);
  }
  for (let id = 0; id < experts && chosen.length < topK; ++id) if (!chosen.includes(id)) chosen.push(id);
  return chosen;
}

/** A well-mixed number of three small ones (the finaliser of MurmurHash3). */
function hash(token: number, layer: number, expert: number): number {
  let h = (Math.imul(token, 0x9e3779b1) ^ Math.imul(layer + 1, 0x85ebca6b) ^ Math.imul(expert + 1, 0xc2b2ae35)) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function readJsonLines(path: string, text: string): Recording {
  const ids: number[] = [];
  let layers = 0;
  let topK = 0;
  let tokens = 0;
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (cause) {
      throw invalid(path, `line ${index + 1} is not JSON`, cause);
    }
    const lists = (row as { layers?: unknown } | null)?.layers;
    if (!Array.isArray(lists) || !lists.every(Array.isArray)) throw invalid(path, `line ${index + 1} has no layers`);
    if (tokens === 0) {
      layers = lists.length;
      topK = (lists[0] as unknown[] | undefined)?.length ?? 0;
      checkGeometry(path, layers, topK);
    }
    if (lists.length !== layers || lists.some((list: unknown[]) => list.length !== topK)) {
      throw invalid(path, `line ${index + 1} is not ${layers} layers of ${topK} experts as the first line is`);
    }
    for (const list of lists as unknown[][]) {
      for (const id of list) ids.push(expertId(path, `line ${index + 1}`, id));
      if (new Set(list).size !== topK) throw invalid(path, `line ${index + 1} names an expert twice in one layer`);
    }
    ++tokens;
  }
  if (tokens === 0) throw invalid(path, 'it holds no token');
  return { tokens, layers, topK, ids: Uint16Array.from(ids), weights: null, isRanked: false };
}

interface CsvToken {
  readonly layers: Map<number, Map<number, { readonly expert: number; readonly weight: number }>>;
}

/** Tokens whose every layer was recorded, in file order; a token of which some layer is missing is left out. */
function readCsv(path: string, text: string): Recording {
  const columns = ['turn', 'phase', 'step', 'layer', 'slot', 'expert', 'weight'];
  const byToken = new Map<string, CsvToken>();
  let header = false;
  let layers = 0;
  let topK = 0;
  for (const [index, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue;
    const fields = line.trimEnd().split(',');
    if (!header) {
      if (columns.some((name, at) => fields[at] !== name)) {
        throw invalid(path, `its header is "${line.slice(0, 80)}", not "${columns.join(',')},..."`);
      }
      header = true;
      continue;
    }
    const where = `line ${index + 1}`;
    const layer = integer(path, where, fields[3], LAYERS_MAX);
    const slot = integer(path, where, fields[4], TOP_K_MAX);
    const expert = integer(path, where, fields[5], EXPERTS_MAX);
    const weight = Number(fields[6]);
    if (!(weight >= 0 && weight <= 1)) throw invalid(path, `${where} has weight "${fields[6]}", not 0 to 1`);
    const key = `${fields[0]},${fields[1]},${fields[2]}`;
    const token = byToken.get(key) ?? { layers: new Map() };
    byToken.set(key, token);
    const ranks = token.layers.get(layer) ?? new Map();
    token.layers.set(layer, ranks);
    if (ranks.has(slot)) throw invalid(path, `${where} repeats slot ${slot} of layer ${layer}`);
    ranks.set(slot, { expert, weight });
    layers = Math.max(layers, layer + 1);
    topK = Math.max(topK, slot + 1);
  }
  checkGeometry(path, layers, topK);
  const whole = [...byToken.values()].filter(
    (token) =>
      token.layers.size === layers &&
      [...token.layers.values()].every(
        (ranks) => ranks.size === topK && new Set([...ranks.values()].map((rank) => rank.expert)).size === topK,
      ),
  );
  if (whole.length === 0) throw invalid(path, 'it holds no token with every layer');
  const ids = new Uint16Array(whole.length * layers * topK);
  const weights = new Float32Array(ids.length);
  let at = 0;
  for (const token of whole) {
    for (let layer = 0; layer < layers; ++layer) {
      const ranks = [...token.layers.get(layer)!.values()].sort((a, b) => b.weight - a.weight);
      for (const rank of ranks) {
        ids[at] = rank.expert;
        weights[at++] = rank.weight;
      }
    }
  }
  const isWeighted = weights.every((_, i) => i % topK !== 0 || weights[i]! > 0);
  return { tokens: whole.length, layers, topK, ids, weights: isWeighted ? weights : null, isRanked: true };
}

function readBytes(path: string, bytes: Uint8Array, geometry: RecordedGeometry): Recording {
  const { layers = U8_LAYERS, topK = U8_TOP_K, experts = U8_EXPERTS } = geometry;
  checkGeometry(path, layers, topK);
  if (experts > 256) throw invalid(path, `its ids are bytes and ${experts} experts need more`);
  const tokenBytes = layers * topK;
  if (bytes.length === 0 || bytes.length % tokenBytes !== 0) {
    const needed = `not a multiple of ${tokenBytes} (${layers} layers of ${topK} experts)`;
    throw invalid(path, `it has ${bytes.length} bytes, ${needed}`);
  }
  const foreign = bytes.findIndex((id) => id >= experts);
  if (foreign >= 0) throw invalid(path, `byte ${foreign} is ${bytes[foreign]}, not an expert below ${experts}`);
  for (let first = 0; first < bytes.length; first += topK) {
    if (new Set(bytes.subarray(first, first + topK)).size !== topK) {
      throw invalid(path, `bytes ${first} to ${first + topK - 1} name an expert twice in one layer`);
    }
  }
  return {
    tokens: bytes.length / tokenBytes,
    layers,
    topK,
    ids: Uint16Array.from(bytes),
    weights: null,
    isRanked: true,
  };
}

function checkGeometry(path: string, layers: number, topK: number): void {
  if (layers < 1 || layers > LAYERS_MAX || topK < 1 || topK > TOP_K_MAX) {
    throw invalid(path, `it has ${layers} layers of ${topK} experts, not 1 to ${LAYERS_MAX} of 1 to ${TOP_K_MAX}`);
  }
}

function expertId(path: string, where: string, id: unknown): number {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < EXPERTS_MAX) return id;
  throw invalid(path, `${where} names expert ${JSON.stringify(id)}, not a number from 0 to ${EXPERTS_MAX - 1}`);
}

function integer(path: string, where: string, field: string | undefined, limit: number): number {
  const value = field !== undefined && /^\d+$/.test(field) ? Number(field) : -1;
  if (value >= 0 && value < limit) return value;
  throw invalid(path, `${where} has "${field ?? ''}" where a number from 0 to ${limit - 1} belongs`);
}

function invalid(path: string, found: string, cause?: unknown): MoestroError {
  return new MoestroError('INVALID_CONFIG', `Cannot use routing trace "${path}": ${found}`, { path }, cause);
}
