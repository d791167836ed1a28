/** Block sizes of the dtypes that safetensors and GGUF files hold, ours and those we only have to step over. */
import { MoestroError } from '../../errors.js';
import type { SourceDtype } from '../../native/binding.js';
import type { SourceFile } from './source-file.js';

export interface BlockSize {
  readonly weights: number;
  readonly bytes: number;
}

const block = (weights: number, bytes: number): BlockSize => ({ weights, bytes });

/** What the converter reads. Source: ggml/src/ggml-common.h of llama.cpp for the blocks. */
export const SOURCE_BLOCKS: Readonly<Record<SourceDtype, BlockSize>> = {
  F32: block(1, 4),
  F16: block(1, 2),
  BF16: block(1, 2),
  Q8_0: block(32, 34),
  Q4_0: block(32, 18),
  Q4_1: block(32, 20),
  Q5_0: block(32, 22),
  Q5_1: block(32, 24),
  Q2_K: block(256, 84),
  Q3_K: block(256, 110),
  Q4_K: block(256, 144),
  Q5_K: block(256, 176),
  Q6_K: block(256, 210),
};

/** Throws UNSUPPORTED_DTYPE naming the tensor and what is supported. */
export function supportedDtype(dtype: string, tensor: string, file: string): SourceDtype {
  if (Object.hasOwn(SOURCE_BLOCKS, dtype)) return dtype as SourceDtype;
  throw new MoestroError(
    'UNSUPPORTED_DTYPE',
    `Cannot convert tensor "${tensor}" of "${file}": its dtype is ${dtype}, supported are ${Object.keys(SOURCE_BLOCKS).join(', ')}`,
    { tensor, dtype },
  );
}

/** A tensor as its file's header describes it; the header has been checked against the file. */
export interface RawTensor {
  readonly name: string;
  readonly dtype: string;
  /** Outermost dimension first, as in Hugging Face; a GGUF header has the reverse. */
  readonly shape: readonly number[];
  readonly file: SourceFile;
  readonly offset: number;
  readonly byteLength: number;
}
