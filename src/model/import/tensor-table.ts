/**
 * From a file's own tensors to the canonical names: finds every tensor that the architecture needs, checks its shape
 * and dtype, and refuses those it does not know, since a tensor left out would silently change every answer.
 */
import { MoestroError } from '../../errors.js';
import type { ExpertLayout, Spelling } from '../architecture.js';
import { denseTensorShapes } from '../architecture-limits.js';
import type { Architecture } from '../manifest.js';
import type { SourceExpert, SourceTensor } from './source.js';
import { type RawTensor, SOURCE_BLOCKS, supportedDtype } from './source-dtypes.js';

export interface TensorTable {
  readonly denseNames: readonly string[];
  readonly byteLength: number;
  /** The dtype that most bytes have. */
  readonly mainDtype: string;
  dense(name: string): SourceTensor;
  expert(layer: number, expert: number): SourceExpert;
}

/** A run of rows of a raw tensor, its leading dimensions flattened. */
interface View {
  readonly raw: RawTensor;
  readonly firstRow: number;
  readonly rows: number;
  readonly cols: number;
}

/**
 * @param pairedHeadRows rows of q and k heads are stored in interleaved pairs (GGUF llama): reads undo it.
 * @throws SOURCE_INVALID for a tensor missing or of a wrong shape, UNSUPPORTED_DTYPE, UNSUPPORTED_ARCHITECTURE for a
 * tensor that the family does not have.
 */
export function makeTensorTable(
  raws: ReadonlyMap<string, RawTensor>,
  spelling: Spelling,
  model: Architecture,
  source: string,
  pairedHeadRows: boolean,
): TensorTable {
  const used = new Set<string>();
  const find = (name: string): RawTensor => {
    const raw = raws.get(name);
    if (raw === undefined)
      throw new MoestroError('SOURCE_INVALID', `Cannot convert "${source}": tensor "${name}" is missing`);
    used.add(name);
    return raw;
  };
  const dense = new Map<string, View>();
  for (const [name, [rows, cols]] of denseTensorShapes(model)) {
    dense.set(name, viewOf(find(sourceName(name, spelling)), 0, rows, cols, rows));
  }
  const experts = model.layerKinds.map((kind, layer) => {
    if (kind === 'dense') return null;
    const layout = chooseLayout(spelling, raws, layer, source);
    return Array.from({ length: model.expertCount }, (_, expert) => expertViews(layout, find, model, layer, expert));
  });
  refuseUnknown(raws, used, spelling, model, source);
  const bytesByDtype = new Map<string, number>();
  for (const name of used) {
    const { dtype, byteLength } = raws.get(name)!;
    bytesByDtype.set(dtype, (bytesByDtype.get(dtype) ?? 0) + byteLength);
  }
  return {
    denseNames: [...dense.keys()],
    byteLength: [...bytesByDtype.values()].reduce((sum, bytes) => sum + bytes, 0),
    mainDtype: [...bytesByDtype].sort((a, b) => b[1] - a[1])[0]![0],
    dense(name) {
      const view = dense.get(name);
      if (view === undefined)
        throw new MoestroError('INVALID_ARGUMENT', `Cannot read tensor "${name}": the model has none`);
      const isRotary = /\.[qk]$/.test(name);
      return tensorOf(view, pairedHeadRows && isRotary ? model.headDim : 0);
    },
    expert(layer, expert) {
      const views = experts[layer]?.[expert];
      if (views === undefined)
        throw new MoestroError('INVALID_ARGUMENT', `Cannot read expert ${layer}/${expert}: the model has none`);
      return { gate: tensorOf(views.gate, 0), up: tensorOf(views.up, 0), down: tensorOf(views.down, 0) };
    },
  };
}

function sourceName(canonical: string, spelling: Spelling): string {
  const match = /^layers\.(\d+)\.(.+)$/.exec(canonical);
  const template = spelling.tensors[match === null ? canonical : `layers.{layer}.${match[2]}`];
  // A description that lacks a tensor its own flags ask for is a fault of ours, or a layer kind the format has no name for.
  if (template === undefined) {
    throw new MoestroError(
      'UNSUPPORTED_ARCHITECTURE',
      `Cannot convert the model: "${canonical}" has no name in this format`,
    );
  }
  return match === null ? template : template.replace('{layer}', match[1]!);
}

const fill = (template: string, layer: number, expert: number): string =>
  template.replace('{layer}', String(layer)).replace('{expert}', String(expert));

function chooseLayout(
  spelling: Spelling,
  raws: ReadonlyMap<string, RawTensor>,
  layer: number,
  source: string,
): ExpertLayout {
  const layout = spelling.experts.find((one) => raws.has(fill(one.down, layer, 0)));
  if (layout !== undefined) return layout;
  const names = spelling.experts.map((one) => `"${fill(one.down, layer, 0)}"`).join(' or ');
  throw new MoestroError('SOURCE_INVALID', `Cannot convert "${source}": tensor ${names} is missing`);
}

function expertViews(
  layout: ExpertLayout,
  find: (name: string) => RawTensor,
  { hiddenSize, expertSize, expertCount }: Architecture,
  layer: number,
  expert: number,
): { readonly gate: View; readonly up: View; readonly down: View } {
  const raw = (template: string) => find(fill(template, layer, expert));
  switch (layout.layout) {
    case 'separate':
      return {
        gate: viewOf(raw(layout.gate), 0, expertSize, hiddenSize, expertSize),
        up: viewOf(raw(layout.up), 0, expertSize, hiddenSize, expertSize),
        down: viewOf(raw(layout.down), 0, hiddenSize, expertSize, hiddenSize),
      };
    case 'stacked':
      return {
        gate: viewOf(raw(layout.gate), expert * expertSize, expertSize, hiddenSize, expertCount * expertSize),
        up: viewOf(raw(layout.up), expert * expertSize, expertSize, hiddenSize, expertCount * expertSize),
        down: viewOf(raw(layout.down), expert * hiddenSize, hiddenSize, expertSize, expertCount * hiddenSize),
      };
    case 'fused': {
      const gateUp = raw(layout.gateUp);
      const first = expert * 2 * expertSize;
      const allRows = expertCount * 2 * expertSize;
      return {
        gate: viewOf(gateUp, first, expertSize, hiddenSize, allRows),
        up: viewOf(gateUp, first + expertSize, expertSize, hiddenSize, allRows),
        down: viewOf(raw(layout.down), expert * hiddenSize, hiddenSize, expertSize, expertCount * hiddenSize),
      };
    }
  }
}

/** `rows` rows from `firstRow` of a tensor that must have `allRows` of `cols`. A vector counts as one row. */
function viewOf(raw: RawTensor, firstRow: number, rows: number, cols: number, allRows: number): View {
  const foundCols = raw.shape.at(-1) ?? 1;
  const foundRows = raw.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  // Three dimensions only where experts are stacked: [16, 4, 8] must not pass for [64, 8].
  const isStacked = allRows !== rows;
  const rank = raw.shape.length;
  if (foundCols !== cols || foundRows !== allRows || (isStacked ? rank !== 3 : rank > 2)) {
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot convert "${raw.file.path}": tensor "${raw.name}" is [${raw.shape.join(', ')}], needed ${allRows} rows of ${cols}`,
      { tensor: raw.name },
    );
  }
  const dtype = supportedDtype(raw.dtype, raw.name, raw.file.path);
  if (cols % SOURCE_BLOCKS[dtype].weights !== 0) {
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot convert "${raw.name}": rows of ${cols} weights are not whole ${dtype} blocks`,
    );
  }
  return { raw, firstRow, rows, cols };
}

function tensorOf(view: View, pairedHead: number): SourceTensor {
  const { raw, firstRow, rows, cols } = view;
  const dtype = supportedDtype(raw.dtype, raw.name, raw.file.path);
  const { weights, bytes } = SOURCE_BLOCKS[dtype];
  const rowBytes = (cols / weights) * bytes;
  const readRows = async (first: number, count: number): Promise<Uint8Array> => {
    if (!Number.isInteger(first) || !Number.isInteger(count) || first < 0 || count < 0 || first + count > rows) {
      throw new MoestroError(
        'INVALID_ARGUMENT',
        `Cannot read rows ${first} to ${first + count} of "${raw.name}": it has ${rows}`,
      );
    }
    const readRaw = (from: number, n: number) =>
      raw.file.readAt(raw.offset + (firstRow + from) * rowBytes, n * rowBytes, `tensor "${raw.name}"`);
    if (pairedHead === 0) return readRaw(first, count);
    // Whole heads around the rows asked for, then each row from where its pair partner was put.
    const from = Math.floor(first / pairedHead) * pairedHead;
    const to = Math.min(rows, Math.ceil((first + count) / pairedHead) * pairedHead);
    const stored = await readRaw(from, to - from);
    const out = new Uint8Array(count * rowBytes);
    for (let row = 0; row < count; row++) {
      const at = storedRow(first + row, pairedHead) - from;
      out.set(stored.subarray(at * rowBytes, (at + 1) * rowBytes), row * rowBytes);
    }
    return out;
  };
  return { dtype, rows, cols, byteLength: rows * rowBytes, read: () => readRows(0, rows), readRows };
}

/**
 * Where a GGUF llama file keeps row `row`. Within a head of d rows, Hugging Face has the two halves of the rotary
 * pairs one after the other, llama.cpp the partners side by side: with d = 4, rows 0 1 2 3 are stored as 0 2 1 3.
 */
function storedRow(row: number, headDim: number): number {
  const inHead = row % headDim;
  const half = headDim / 2;
  return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
}

function refuseUnknown(
  raws: ReadonlyMap<string, RawTensor>,
  used: ReadonlySet<string>,
  spelling: Spelling,
  model: Architecture,
  source: string,
): void {
  for (const name of raws.keys()) {
    if (used.has(name) || spelling.ignored.some((part) => name.includes(part))) continue;
    if (model.tiedEmbeddings && name === spelling.tensors.head) continue;
    throw new MoestroError(
      'UNSUPPORTED_ARCHITECTURE',
      `Cannot convert "${source}": tensor "${name}" is not one that ${model.family} has`,
      { tensor: name },
    );
  }
}
