/**
 * What a model to be converted looks like, whatever files it comes from: numbers, a vocabulary, and tensors under the
 * canonical names of manifest.ts whose bytes are read only when asked for. Made by `openSource` in index.ts.
 */
import type { SourceDtype } from '../../native/binding.js';
import type { Architecture, DenseTensorName } from '../manifest.js';

/**
 * A matrix in the source's own dtype, row-major [rows, cols] in the orientation of Hugging Face: [out, in]. Vectors
 * are [1, n]. Every row starts on a block boundary of its dtype, so a run of rows is a run of bytes.
 */
export interface SourceTensor {
  readonly dtype: SourceDtype;
  readonly rows: number;
  readonly cols: number;
  readonly byteLength: number;
  /** All bytes, in a buffer of the caller's own. Throws SOURCE_INVALID when the file ends early, IO_ERROR. */
  read(): Promise<Uint8Array>;
  /** The bytes of rows [first, first + count): for matrices too large to hold at once. */
  readRows(first: number, count: number): Promise<Uint8Array>;
}

export interface SourceExpert {
  /** [expertSize, hiddenSize] */
  readonly gate: SourceTensor;
  /** [expertSize, hiddenSize] */
  readonly up: SourceTensor;
  /** [hiddenSize, expertSize] */
  readonly down: SourceTensor;
}

export interface SourceGeneration {
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  readonly addBos: boolean;
}

export interface ModelSource {
  /** From the file or directory name, without extension. */
  readonly name: string;
  /** For the manifest, e.g. "safetensors F16" or "GGUF Q4_K": the dtype that most bytes have. */
  readonly describe: string;
  readonly architecture: Architecture;
  /** Every canonical dense tensor this model has; all of them were checked to be there with the right shape. */
  readonly denseNames: readonly DenseTensorName[];
  /** Bytes of all tensors that conversion will read: for progress. */
  readonly byteLength: number;
  /** Throws INVALID_ARGUMENT when `name` is not in `denseNames`. */
  dense(name: DenseTensorName): SourceTensor;
  /** Throws INVALID_ARGUMENT when the layer has no experts or there is no such expert. */
  expert(layer: number, expert: number): SourceExpert;
  /** The texts of tokenizer.json and tokenizer_config.json (with the chat template in it), as Hugging Face has them. */
  readonly tokenizerJson: string;
  readonly tokenizerConfigJson: string;
  readonly generation: SourceGeneration;
  /** Closes the files; reads after it reject with IO_ERROR. Safe to call twice. */
  close(): Promise<void>;
}
