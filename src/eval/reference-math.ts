/**
 * The arithmetic of the reference path: float32 in and out, every sum in double. It shares nothing with native/, so that
 * an error there cannot hide here.
 */

/**
 * y[t * rows + r] = sum_c w[r * cols + c] * x[t * cols + c]
 *
 * w Float32Array [rows, cols]; x [tokens, cols]; y [tokens, rows]. Four rows by two tokens at a time: each value loaded
 * then serves several sums, which is what keeps a JavaScript loop busy with multiplications.
 */
export function matmul(
  w: Float32Array,
  rows: number,
  cols: number,
  x: Float32Array,
  tokens: number,
  y: Float32Array,
): void {
  const rowsBlocked = rows - (rows % 4);
  const tokensBlocked = tokens - (tokens % 2);
  for (let t = 0; t < tokensBlocked; t += 2) {
    const x0 = t * cols;
    const x1 = x0 + cols;
    for (let r = 0; r < rowsBlocked; r += 4) {
      const w0 = r * cols;
      const w1 = w0 + cols;
      const w2 = w1 + cols;
      const w3 = w2 + cols;
      let a0 = 0;
      let a1 = 0;
      let a2 = 0;
      let a3 = 0;
      let b0 = 0;
      let b1 = 0;
      let b2 = 0;
      let b3 = 0;
      for (let c = 0; c < cols; ++c) {
        const p = x[x0 + c]!;
        const q = x[x1 + c]!;
        const m0 = w[w0 + c]!;
        const m1 = w[w1 + c]!;
        const m2 = w[w2 + c]!;
        const m3 = w[w3 + c]!;
        a0 += m0 * p;
        a1 += m1 * p;
        a2 += m2 * p;
        a3 += m3 * p;
        b0 += m0 * q;
        b1 += m1 * q;
        b2 += m2 * q;
        b3 += m3 * q;
      }
      const ya = t * rows + r;
      const yb = ya + rows;
      y[ya] = a0;
      y[ya + 1] = a1;
      y[ya + 2] = a2;
      y[ya + 3] = a3;
      y[yb] = b0;
      y[yb + 1] = b1;
      y[yb + 2] = b2;
      y[yb + 3] = b3;
    }
  }
  // The last token when they are odd in number, and the last rows when they are no multiple of four.
  for (let t = 0; t < tokens; ++t) {
    const rowStart = t < tokensBlocked ? rowsBlocked : 0;
    for (let r = rowStart; r < rows; ++r) {
      let sum = 0;
      for (let c = 0; c < cols; ++c) sum += w[r * cols + c]! * x[t * cols + c]!;
      y[t * rows + r] = sum;
    }
  }
}

/** y[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps) over `n` values at the given offsets; y may be x. */
export function rmsNorm(
  x: Float32Array,
  xAt: number,
  weight: Float32Array,
  n: number,
  eps: number,
  y: Float32Array,
  yAt: number,
): void {
  let sum = 0;
  for (let i = 0; i < n; ++i) sum += x[xAt + i]! * x[xAt + i]!;
  const scale = 1 / Math.sqrt(sum / n + eps);
  for (let i = 0; i < n; ++i) y[yAt + i] = x[xAt + i]! * scale * weight[i]!;
}

/** Rotates one head in place: (x[i], x[i + d/2]) by position * theta^(-2i/d), the NeoX pairing. */
export function rotate(x: Float32Array, at: number, headDim: number, position: number, theta: number): void {
  const half = headDim / 2;
  for (let i = 0; i < half; ++i) {
    const angle = position * theta ** ((-2 * i) / headDim);
    const cos = Math.cos(angle);
    const sin = Math.sin(angle);
    const a = x[at + i]!;
    const b = x[at + half + i]!;
    x[at + i] = a * cos - b * sin;
    x[at + half + i] = b * cos + a * sin;
  }
}

/** gate[i] = silu(gate[i]) * up[i] */
export function swiglu(gate: Float32Array, up: Float32Array, n: number): void {
  for (let i = 0; i < n; ++i) {
    const g = gate[i]!;
    gate[i] = (g / (1 + Math.exp(-g))) * up[i]!;
  }
}

/** Softmax in place over `n` values from `at` on. */
export function softmax(x: Float32Array | Float64Array, at: number, n: number): void {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; ++i) max = Math.max(max, x[at + i]!);
  let sum = 0;
  for (let i = 0; i < n; ++i) {
    const e = Math.exp(x[at + i]! - max);
    x[at + i] = e;
    sum += e;
  }
  for (let i = 0; i < n; ++i) x[at + i] = x[at + i]! / sum;
}

/** The k largest of `scores`, highest first, ties to the lower index. */
export function topK(scores: Float64Array, k: number): number[] {
  const chosen: number[] = [];
  for (let rank = 0; rank < k; ++rank) {
    let best = -1;
    for (let i = 0; i < scores.length; ++i) {
      if (!chosen.includes(i) && (best < 0 || scores[i]! > scores[best]!)) best = i;
    }
    chosen.push(best);
  }
  return chosen;
}

/** Index of the largest of `n` values from `at` on, ties to the lower index. */
export function argmax(x: Float32Array, at: number, n: number): number {
  let best = 0;
  for (let i = 1; i < n; ++i) if (x[at + i]! > x[at + best]!) best = i;
  return best;
}
