/**
 * All weights of a model as float32, for the reference path: simple, and as large as that sounds (four bytes a weight).
 * They lie in shared memory, so that several threads can run chunks over one copy.
 */
import { MoestroError } from '../errors.js';
import type { ModelSource, SourceTensor } from '../model/import/source.js';
import type { Architecture } from '../model/manifest.js';
import { loadAddon } from '../native/binding.js';
import { decodeBF16, decodeF16, decodeF32 } from './half.js';

export interface ReferenceExpert {
  /** [expertSize, hiddenSize] */
  readonly gate: Float32Array;
  /** [expertSize, hiddenSize] */
  readonly up: Float32Array;
  /** [hiddenSize, expertSize] */
  readonly down: Float32Array;
}

export interface ReferenceWeights {
  readonly architecture: Architecture;
  /** By the canonical names of src/model/manifest.ts. */
  readonly dense: ReadonlyMap<string, Float32Array>;
  /** [layer][expert]; an empty list for a layer without experts. */
  readonly experts: readonly (readonly ReferenceExpert[])[];
}

/** Reads and dequantises everything. Throws what the source throws; UNSUPPORTED_DTYPE, ADDON_MISSING for packed dtypes. */
export async function loadReferenceWeights(
  source: ModelSource,
  onBytes: (bytes: number) => void = () => {},
): Promise<ReferenceWeights> {
  const read = async (tensor: SourceTensor) => {
    const weights = dequantise(tensor, await tensor.read());
    onBytes(tensor.byteLength);
    return weights;
  };
  const dense = new Map<string, Float32Array>();
  for (const name of source.denseNames) dense.set(name, await read(source.dense(name)));
  const experts: ReferenceExpert[][] = [];
  for (const [layer, kind] of source.architecture.layerKinds.entries()) {
    const own: ReferenceExpert[] = [];
    for (let index = 0; kind === 'moe' && index < source.architecture.expertCount; ++index) {
      const { gate, up, down } = source.expert(layer, index);
      own.push({ gate: await read(gate), up: await read(up), down: await read(down) });
    }
    experts.push(own);
  }
  return { architecture: source.architecture, dense, experts };
}

/** F32, F16 and BF16 are read here, so that the reference works without the addon; packed dtypes by the addon. */
function dequantise(tensor: SourceTensor, bytes: Uint8Array): Float32Array {
  const count = tensor.rows * tensor.cols;
  const out = new Float32Array(new SharedArrayBuffer(count * 4));
  const need = (bytesPerWeight: number) => {
    if (bytes.length === count * bytesPerWeight) return;
    const details = { dtype: tensor.dtype, found: bytes.length, needed: count * bytesPerWeight };
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot read a ${tensor.dtype} matrix: got ${bytes.length} bytes, needed ${count * bytesPerWeight}`,
      details,
    );
  };
  switch (tensor.dtype) {
    case 'F32':
      need(4);
      decodeF32(bytes, out);
      return out;
    case 'F16':
      need(2);
      decodeF16(bytes, out);
      return out;
    case 'BF16':
      need(2);
      decodeBF16(bytes, out);
      return out;
    default: {
      // The addon fills memory of its caller's; a copy into shared memory keeps it from having to know about that kind.
      const own = new Float32Array(count);
      loadAddon().dequantise(tensor.dtype, bytes, count, own);
      out.set(own);
      return out;
    }
  }
}
