/**
 * What should the model compute? The forward pass of all supported families in plain TypeScript, float32 values and
 * double sums, with no batching tricks beyond taking a sequence's tokens together and each expert's tokens together.
 * Everything the product computes is measured against this, and this against llama.cpp (test/golden).
 *
 * Source: the published descriptions of Qwen2-MoE, Qwen3-MoE, OLMoE and Mixtral.
 */
import { MoestroError } from '../errors.js';
import { matmul, rmsNorm, rotate, softmax, swiglu, topK } from './reference-math.js';
import type { ReferenceWeights } from './reference-weights.js';

/** One sequence: its keys and values so far. Not for several threads at once; the weights may be shared. */
export class ReferenceSequence {
  readonly #weights: ReferenceWeights;
  /** Per layer: keys and values [capacity, kvHeadCount * headDim]. */
  readonly #keys: Float32Array[];
  readonly #values: Float32Array[];
  readonly #capacity: number;
  #length = 0;

  constructor(weights: ReferenceWeights, capacity: number) {
    const { layerCount, kvHeadCount, headDim } = weights.architecture;
    this.#weights = weights;
    this.#capacity = capacity;
    const room = () => new Float32Array(capacity * kvHeadCount * headDim);
    this.#keys = Array.from({ length: layerCount }, room);
    this.#values = Array.from({ length: layerCount }, room);
  }

  get length(): number {
    return this.#length;
  }

  /**
   * Appends tokens and returns the logits after each from the `rowBegin`-th on: Float32Array
   * [ids.length - rowBegin, vocabSize].
   *
   * @throws {MoestroError} CONTEXT_LENGTH_EXCEEDED beyond the capacity; INVALID_ARGUMENT for an id outside the vocabulary.
   */
  append(ids: readonly number[], rowBegin = 0): Float32Array {
    const { architecture } = this.#weights;
    const { hiddenSize, vocabSize, layerCount, rmsNormEps, tiedEmbeddings } = architecture;
    const tokens = ids.length;
    if (this.#length + tokens > this.#capacity) {
      const needed = this.#length + tokens;
      throw new MoestroError(
        'CONTEXT_LENGTH_EXCEEDED',
        `Cannot evaluate ${needed} tokens: the sequence has room for ${this.#capacity}`,
        { needed, capacity: this.#capacity },
      );
    }
    const embedding = this.#dense('embedding');
    const stream = new Float32Array(tokens * hiddenSize);
    for (const [t, id] of ids.entries()) {
      if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
        throw new MoestroError('INVALID_ARGUMENT', `Cannot embed token ${id}: the vocabulary has ${vocabSize}`, { id });
      }
      stream.set(embedding.subarray(id * hiddenSize, (id + 1) * hiddenSize), t * hiddenSize);
    }
    for (let layer = 0; layer < layerCount; ++layer) {
      add(stream, this.#attention(layer, this.#normed(stream, tokens, `layers.${layer}.attn_norm`), tokens));
      const input = this.#normed(stream, tokens, `layers.${layer}.ffn_norm`);
      if (architecture.layerKinds[layer] === 'moe') {
        // The input is read by both, so both are computed before either is added.
        const routed = this.#experts(layer, input, tokens);
        if (architecture.sharedExpertSize > 0) add(routed, this.#sharedExpert(layer, input, tokens));
        add(stream, routed);
      } else {
        add(stream, this.#ffn(layer, 'ffn', architecture.denseFfnSize, input, tokens));
      }
    }
    this.#length += tokens;
    const rows = tokens - rowBegin;
    const last = stream.subarray(rowBegin * hiddenSize);
    const normed = new Float32Array(rows * hiddenSize);
    for (let t = 0; t < rows; ++t) {
      rmsNorm(last, t * hiddenSize, this.#dense('final_norm'), hiddenSize, rmsNormEps, normed, t * hiddenSize);
    }
    const logits = new Float32Array(rows * vocabSize);
    matmul(tiedEmbeddings ? embedding : this.#dense('head'), vocabSize, hiddenSize, normed, rows, logits);
    return logits;
  }

  #dense(name: string): Float32Array {
    const tensor = this.#weights.dense.get(name);
    if (tensor === undefined) {
      throw new MoestroError('SOURCE_INVALID', `Cannot run the reference path: tensor "${name}" is missing`, { name });
    }
    return tensor;
  }

  #normed(x: Float32Array, tokens: number, name: string): Float32Array {
    const { hiddenSize, rmsNormEps } = this.#weights.architecture;
    const y = new Float32Array(x.length);
    for (let t = 0; t < tokens; ++t) {
      rmsNorm(x, t * hiddenSize, this.#dense(name), hiddenSize, rmsNormEps, y, t * hiddenSize);
    }
    return y;
  }

  #project(layer: number, part: string, width: number, x: Float32Array, tokens: number): Float32Array {
    const { hiddenSize, attentionBias } = this.#weights.architecture;
    const y = new Float32Array(tokens * width);
    matmul(this.#dense(`layers.${layer}.${part}`), width, hiddenSize, x, tokens, y);
    if (attentionBias) {
      const bias = this.#dense(`layers.${layer}.${part}_bias`);
      for (let i = 0; i < y.length; ++i) y[i] = y[i]! + bias[i % width]!;
    }
    return y;
  }

  /** Norm of q or k as the model wants it, then rotary positions. In place; x [tokens, heads * headDim]. */
  #position(layer: number, part: 'q' | 'k', heads: number, x: Float32Array, tokens: number): void {
    const { qkNorm, headDim, rmsNormEps, ropeTheta } = this.#weights.architecture;
    const width = heads * headDim;
    for (let t = 0; t < tokens; ++t) {
      const at = t * width;
      if (qkNorm === 'full') rmsNorm(x, at, this.#dense(`layers.${layer}.${part}_norm`), width, rmsNormEps, x, at);
      for (let head = 0; head < heads; ++head) {
        const own = at + head * headDim;
        if (qkNorm === 'head')
          rmsNorm(x, own, this.#dense(`layers.${layer}.${part}_norm`), headDim, rmsNormEps, x, own);
        rotate(x, own, headDim, this.#length + t, ropeTheta);
      }
    }
  }

  #attention(layer: number, x: Float32Array, tokens: number): Float32Array {
    const { hiddenSize, headCount, kvHeadCount, headDim, slidingWindow } = this.#weights.architecture;
    const kvWidth = kvHeadCount * headDim;
    const q = this.#project(layer, 'q', headCount * headDim, x, tokens);
    const k = this.#project(layer, 'k', kvWidth, x, tokens);
    this.#position(layer, 'q', headCount, q, tokens);
    this.#position(layer, 'k', kvHeadCount, k, tokens);
    const keys = this.#keys[layer]!;
    const values = this.#values[layer]!;
    keys.set(k, this.#length * kvWidth);
    values.set(this.#project(layer, 'v', kvWidth, x, tokens), this.#length * kvWidth);

    const scores = new Float64Array(this.#length + tokens);
    const mixed = new Float32Array(tokens * headCount * headDim);
    for (let t = 0; t < tokens; ++t) {
      const end = this.#length + t + 1;
      const begin = slidingWindow === null ? 0 : Math.max(0, end - slidingWindow);
      for (let head = 0; head < headCount; ++head) {
        const own = (t * headCount + head) * headDim;
        const shared = Math.floor((head * kvHeadCount) / headCount) * headDim;
        for (let p = begin; p < end; ++p) {
          let dot = 0;
          for (let i = 0; i < headDim; ++i) dot += q[own + i]! * keys[p * kvWidth + shared + i]!;
          scores[p - begin] = dot / Math.sqrt(headDim);
        }
        softmax(scores, 0, end - begin);
        for (let i = 0; i < headDim; ++i) {
          let sum = 0;
          for (let p = begin; p < end; ++p) sum += scores[p - begin]! * values[p * kvWidth + shared + i]!;
          mixed[own + i] = sum;
        }
      }
    }
    const out = new Float32Array(tokens * hiddenSize);
    matmul(this.#dense(`layers.${layer}.o`), hiddenSize, headCount * headDim, mixed, tokens, out);
    return out;
  }

  /** The routed experts: softmax over all, then the top-k of it; each expert runs all its tokens together. */
  #experts(layer: number, x: Float32Array, tokens: number): Float32Array {
    const { hiddenSize, expertCount, expertSize, topK: k, normTopK } = this.#weights.architecture;
    const scores = new Float32Array(tokens * expertCount);
    matmul(this.#dense(`layers.${layer}.router`), expertCount, hiddenSize, x, tokens, scores);
    const ids = new Int32Array(tokens * k);
    const weights = new Float64Array(tokens * k);
    const tokensOf = Array.from({ length: expertCount }, (): number[] => []);
    for (let t = 0; t < tokens; ++t) {
      const shares = Float64Array.from(scores.subarray(t * expertCount, (t + 1) * expertCount));
      softmax(shares, 0, expertCount);
      const chosen = topK(shares, k);
      const sum = normTopK ? chosen.reduce((total, id) => total + shares[id]!, 0) : 1;
      for (const [rank, id] of chosen.entries()) {
        ids[t * k + rank] = id;
        weights[t * k + rank] = shares[id]! / sum;
        tokensOf[id]!.push(t * k + rank);
      }
    }
    // Outputs are kept per (token, rank) and added in rank order.
    const outputs = new Float32Array(tokens * k * hiddenSize);
    for (const [id, assigned] of tokensOf.entries()) {
      if (assigned.length === 0) continue;
      const expert = this.#weights.experts[layer]![id]!;
      const input = new Float32Array(assigned.length * hiddenSize);
      for (const [row, entry] of assigned.entries()) {
        const t = Math.floor(entry / k);
        input.set(x.subarray(t * hiddenSize, (t + 1) * hiddenSize), row * hiddenSize);
      }
      const output = feedForward(expert, hiddenSize, expertSize, input, assigned.length);
      for (const [row, entry] of assigned.entries()) {
        outputs.set(output.subarray(row * hiddenSize, (row + 1) * hiddenSize), entry * hiddenSize);
      }
    }
    const y = new Float32Array(tokens * hiddenSize);
    for (let entry = 0; entry < tokens * k; ++entry) {
      const at = Math.floor(entry / k) * hiddenSize;
      for (let i = 0; i < hiddenSize; ++i) {
        y[at + i] = y[at + i]! + weights[entry]! * outputs[entry * hiddenSize + i]!;
      }
    }
    return y;
  }

  #sharedExpert(layer: number, x: Float32Array, tokens: number): Float32Array {
    const { hiddenSize, sharedExpertSize, sharedExpertGate } = this.#weights.architecture;
    const y = this.#ffn(layer, 'shared', sharedExpertSize, x, tokens);
    if (!sharedExpertGate) return y;
    const scores = new Float32Array(tokens);
    matmul(this.#dense(`layers.${layer}.shared_router`), 1, hiddenSize, x, tokens, scores);
    for (let i = 0; i < y.length; ++i) y[i] = y[i]! / (1 + Math.exp(-scores[Math.floor(i / hiddenSize)]!));
    return y;
  }

  #ffn(layer: number, part: 'ffn' | 'shared', width: number, x: Float32Array, tokens: number): Float32Array {
    const weights = {
      gate: this.#dense(`layers.${layer}.${part}_gate`),
      up: this.#dense(`layers.${layer}.${part}_up`),
      down: this.#dense(`layers.${layer}.${part}_down`),
    };
    return feedForward(weights, this.#weights.architecture.hiddenSize, width, x, tokens);
  }
}

/** down(silu(gate(x)) * up(x)), the SwiGLU of every FFN here. */
function feedForward(
  weights: { readonly gate: Float32Array; readonly up: Float32Array; readonly down: Float32Array },
  hiddenSize: number,
  width: number,
  x: Float32Array,
  tokens: number,
): Float32Array {
  const gate = new Float32Array(tokens * width);
  const up = new Float32Array(tokens * width);
  matmul(weights.gate, width, hiddenSize, x, tokens, gate);
  matmul(weights.up, width, hiddenSize, x, tokens, up);
  swiglu(gate, up, gate.length);
  const y = new Float32Array(tokens * hiddenSize);
  matmul(weights.down, hiddenSize, width, gate, tokens, y);
  return y;
}

function add(x: Float32Array, y: Float32Array): void {
  for (let i = 0; i < x.length; ++i) x[i] = x[i]! + y[i]!;
}
