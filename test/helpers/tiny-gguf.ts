/**
 * Writes a tiny model as GGUF that llama.cpp loads. Names and keys are spelt here a second time, independently of
 * models/architectures, so that a mistake there shows.
 */
import { writeFileSync } from 'node:fs';
import { encodeValues, type WritableDtype } from './number-formats.js';
import type { TinyFamily, TinyMatrix, TinyModel } from './tiny-models.js';
import { GGML_TYPE_IDS, type GgufTensor, type GgufValue, ggufBytes } from './write-gguf.js';

const GGUF_ARCH: Readonly<Record<TinyFamily, string>> = {
  qwen3_moe: 'qwen3moe',
  qwen2_moe: 'qwen2moe',
  olmoe: 'olmoe',
  mixtral: 'llama',
};

const GGUF_LAYER_NAMES: Readonly<Record<string, string>> = {
  attn_norm: 'attn_norm.weight',
  ffn_norm: 'ffn_norm.weight',
  q: 'attn_q.weight',
  k: 'attn_k.weight',
  v: 'attn_v.weight',
  o: 'attn_output.weight',
  q_bias: 'attn_q.bias',
  k_bias: 'attn_k.bias',
  v_bias: 'attn_v.bias',
  q_norm: 'attn_q_norm.weight',
  k_norm: 'attn_k_norm.weight',
  router: 'ffn_gate_inp.weight',
  shared_gate: 'ffn_gate_shexp.weight',
  shared_up: 'ffn_up_shexp.weight',
  shared_down: 'ffn_down_shexp.weight',
  shared_router: 'ffn_gate_inp_shexp.weight',
};

const u32 = (value: number): GgufValue => ({ type: 'u32', value });
const f32 = (value: number): GgufValue => ({ type: 'f32', value });
const text = (value: string): GgufValue => ({ type: 'string', value });

/** All keys that llama.cpp asks for. */
export function ggufMetadata(
  { architecture: a, vocabulary: v }: TinyModel,
  dtype: WritableDtype,
): Record<string, GgufValue> {
  const arch = GGUF_ARCH[a.family as TinyFamily];
  const isQwen = arch.startsWith('qwen');
  return {
    'general.architecture': text(arch),
    'general.name': text(`tiny ${a.family}`),
    'general.file_type': u32({ F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2 }[dtype]),
    [`${arch}.context_length`]: u32(a.contextLength),
    [`${arch}.embedding_length`]: u32(a.hiddenSize),
    [`${arch}.block_count`]: u32(a.layerCount),
    [`${arch}.feed_forward_length`]: u32(isQwen ? 256 : a.expertSize),
    [`${arch}.attention.head_count`]: u32(a.headCount),
    [`${arch}.attention.head_count_kv`]: u32(a.kvHeadCount),
    [`${arch}.attention.key_length`]: u32(a.headDim),
    [`${arch}.attention.value_length`]: u32(a.headDim),
    [`${arch}.attention.layer_norm_rms_epsilon`]: f32(a.rmsNormEps),
    [`${arch}.rope.freq_base`]: f32(a.ropeTheta),
    [`${arch}.rope.dimension_count`]: u32(a.headDim),
    [`${arch}.expert_count`]: u32(a.expertCount),
    [`${arch}.expert_used_count`]: u32(a.topK),
    [`${arch}.vocab_size`]: u32(a.vocabSize),
    ...(isQwen ? { [`${arch}.expert_feed_forward_length`]: u32(a.expertSize) } : {}),
    ...(a.sharedExpertSize > 0 ? { [`${arch}.expert_shared_feed_forward_length`]: u32(a.sharedExpertSize) } : {}),
    'tokenizer.ggml.model': text(v.model),
    ...(v.pre === null ? {} : { 'tokenizer.ggml.pre': text(v.pre) }),
    'tokenizer.ggml.tokens': { type: 'array', of: 'string', value: v.tokens },
    'tokenizer.ggml.token_type': { type: 'array', of: 'i32', value: v.types },
    ...(v.model === 'gpt2'
      ? {
          'tokenizer.ggml.merges': {
            type: 'array',
            of: 'string',
            value: v.merges.map((pair) => pair.join(' ')),
          } as const,
        }
      : { 'tokenizer.ggml.scores': { type: 'array', of: 'f32', value: v.scores } as const }),
    ...(v.bosId === null ? {} : { 'tokenizer.ggml.bos_token_id': u32(v.bosId) }),
    'tokenizer.ggml.eos_token_id': u32(v.eosId),
    ...(v.model === 'llama' ? { 'tokenizer.ggml.unknown_token_id': u32(0) } : {}),
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: v.addBos },
    'tokenizer.chat_template': text(v.chatTemplate),
  };
}

/** llama.cpp's order of q and k rows in `llama` files: within a head, row 2i + j comes from row j * d / 2 + i. */
function interleaveHeads({ rows, cols, values }: TinyMatrix, headDim: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / headDim);
    const [i, j] = [Math.floor((row % headDim) / 2), row % 2];
    const from = head * headDim + j * (headDim / 2) + i;
    out.set(values.subarray(from * cols, (from + 1) * cols), row * cols);
  }
  return out;
}

export interface GgufOptions {
  readonly dtype?: WritableDtype;
  /** Mixtral only: one tensor an expert, as files of before April 2024 have it. */
  readonly separateExperts?: boolean;
}

/** Matrices in `dtype`; norms, biases and routers in F32, as llama.cpp's converter leaves them. */
export function ggufTensors(
  model: TinyModel,
  { dtype = 'F16', separateExperts = false }: GgufOptions = {},
): GgufTensor[] {
  const { family, headDim, hiddenSize, expertSize } = model.architecture;
  const tensors: GgufTensor[] = [];
  const add = (name: string, dims: number[], values: Float32Array, as: WritableDtype) =>
    tensors.push({ name, dims, type: GGML_TYPE_IDS[as], bytes: encodeValues(as, values) });
  for (const [name, matrix] of model.dense) {
    const { rows, cols } = matrix;
    const isVector = rows === 1;
    const isFloat = isVector || name.endsWith('router');
    const isPaired = family === 'mixtral' && /\.[qk]$/.test(name);
    const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
    const top = { embedding: 'token_embd.weight', head: 'output.weight', final_norm: 'output_norm.weight' }[name];
    const stored = top ?? `blk.${layer}.${GGUF_LAYER_NAMES[part!]!}`;
    const values = isPaired ? interleaveHeads(matrix, headDim) : matrix.values;
    add(stored, isVector ? [cols] : [cols, rows], values, isFloat ? 'F32' : dtype);
  }
  model.experts.forEach((experts, layer) => {
    for (const part of ['gate', 'up', 'down'] as const) {
      const dims = part === 'down' ? [expertSize, hiddenSize] : [hiddenSize, expertSize];
      const all = experts.map((expert) => expert[part].values);
      if (separateExperts) {
        for (const [i, values] of all.entries()) add(`blk.${layer}.ffn_${part}.${i}.weight`, dims, values, dtype);
      } else {
        const joined = Float32Array.from(all.flatMap((values) => [...values]));
        add(`blk.${layer}.ffn_${part}_exps.weight`, [...dims, experts.length], joined, dtype);
      }
    }
  });
  return tensors;
}

export function tinyGguf(model: TinyModel, options: GgufOptions = {}): Uint8Array {
  return ggufBytes({ metadata: ggufMetadata(model, options.dtype ?? 'F16'), tensors: ggufTensors(model, options) });
}

export function writeTinyGguf(model: TinyModel, path: string, options: GgufOptions = {}): void {
  writeFileSync(path, tinyGguf(model, options));
}
