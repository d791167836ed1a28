/** Random dense tensors in the file's own formats, in parts of a few MiB. */
import { type DenseKind, denseTensorParts } from '../dense-layout.js';
import { gaussian, randomPool, randomWords } from './random-pool.js';

const PART_BYTES = 4 << 20;
/** Parts differ by the page of the pool they start at. */
const POOL_PAGES = 1024;
const PAGE = 4096;
/** Standard deviation of a matrix whose codes are drawn evenly, in units of its scale. */
const CODE_DEVIATION = { q4: 62, q6: 18.5, q8: 73.6 };
/** E3M4 of 1/2. */
const GROUP_SCALE = 0x60;

/**
 * Matrices have variance 1 / cols. What attention adds is much the same for all tokens of a context; embeddings must
 * outweigh it over all layers, or tokens are routed alike: with 1, OLMoE's shape with 36 % of its experts resident hit
 * .75, where even routing gives .36.
 */
const EMBEDDING_DEVIATION = 8;

let codes: Uint8Array | undefined;

/** 8-bit codes: any byte but 0, which the format leaves out. */
function codePool(): Uint8Array {
  if (codes === undefined) {
    codes = randomPool(PART_BYTES + POOL_PAGES * PAGE, 7);
    for (let i = 0; i < codes.length; ++i) if (codes[i] === 0) codes[i] = 128;
  }
  return codes;
}

/** The bytes of one tensor, part by part. Norms are ones, biases zeros, routers and matrices of unit gain. */
export function* denseParts(
  name: string,
  kind: DenseKind,
  rows: number,
  cols: number,
  seed: number,
): Generator<Uint8Array> {
  const next = randomWords(seed);
  if (kind === 'f32') {
    const values = new Float32Array(rows * cols);
    if (name.endsWith('norm')) values.fill(1);
    else if (name.endsWith('router'))
      for (let i = 0; i < values.length; ++i) values[i] = gaussian(next) / Math.sqrt(cols);
    yield new Uint8Array(values.buffer);
    return;
  }
  const [codeBytes = 0, scaleBytes = 0, rowScaleBytes = 0] = denseTensorParts(kind, rows, cols);
  const pool = codePool();
  for (let left = codeBytes; left > 0; left -= PART_BYTES) {
    const begin = (next() % POOL_PAGES) * PAGE;
    yield pool.subarray(begin, begin + Math.min(left, PART_BYTES));
  }
  // After the codes the scales, all the same: f16 or, at 4 bits, a byte each and then a bf16 each row.
  const deviation = name === 'embedding' ? EMBEDDING_DEVIATION : 1 / Math.sqrt(cols);
  const scale = deviation / CODE_DEVIATION[kind];
  if (kind === 'q4') {
    // Either sign, as the table of 4 bits is not centred: a mean that all weights share would outweigh the rest.
    yield new Uint8Array(scaleBytes).map(() => GROUP_SCALE | (next() & 0x80));
    yield new Uint8Array(new Uint16Array(rowScaleBytes / 2).fill(toBF16(2 * scale)).buffer);
  } else {
    yield new Uint8Array(new Uint16Array(scaleBytes / 2).fill(toHalf(scale)).buffer);
  }
}

/** A normal positive binary16, rounded down. */
function toHalf(value: number): number {
  const exponent = Math.floor(Math.log2(value));
  return ((exponent + 15) << 10) | Math.floor((value / 2 ** exponent - 1) * 1024);
}

/** A positive number as bfloat16, rounded down. */
function toBF16(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0]! >>> 16;
}
