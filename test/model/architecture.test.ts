import { expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.js';
import {
  familyDescriptions,
  ggufArchitecture,
  ggufFamily,
  huggingFaceArchitecture,
  huggingFaceFamily,
} from '../../src/model/architecture.js';
import { denseTensorShapes } from '../../src/model/architecture-limits.js';
import type { Architecture } from '../../src/model/manifest.js';

// config.json of published models, without the keys that say nothing about arithmetic.
const QWEN3_30B = {
  architectures: ['Qwen3MoeForCausalLM'],
  attention_bias: false,
  decoder_sparse_step: 1,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 6144,
  max_position_embeddings: 40960,
  mlp_only_layers: [],
  model_type: 'qwen3_moe',
  moe_intermediate_size: 768,
  norm_topk_prob: true,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000.0,
  sliding_window: null,
  tie_word_embeddings: false,
  use_sliding_window: false,
  vocab_size: 151936,
};
const QWEN15_MOE = {
  architectures: ['Qwen2MoeForCausalLM'],
  decoder_sparse_step: 1,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 5632,
  max_position_embeddings: 8192,
  max_window_layers: 21,
  model_type: 'qwen2_moe',
  moe_intermediate_size: 1408,
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts: 60,
  num_experts_per_tok: 4,
  num_hidden_layers: 24,
  num_key_value_heads: 16,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000.0,
  shared_expert_intermediate_size: 5632,
  sliding_window: 32768,
  tie_word_embeddings: false,
  use_sliding_window: false,
  vocab_size: 151936,
};
const OLMOE = {
  architectures: ['OlmoeForCausalLM'],
  attention_bias: false,
  clip_qkv: null,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 1024,
  max_position_embeddings: 4096,
  model_type: 'olmoe',
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts: 64,
  num_experts_per_tok: 8,
  num_hidden_layers: 16,
  num_key_value_heads: 16,
  rope_scaling: null,
  rope_theta: 10000.0,
  tie_word_embeddings: false,
  vocab_size: 50304,
};
const MIXTRAL = {
  architectures: ['MixtralForCausalLM'],
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: 'mixtral',
  num_attention_heads: 32,
  num_experts_per_tok: 2,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_local_experts: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 1000000.0,
  sliding_window: null,
  tie_word_embeddings: false,
  vocab_size: 32000,
};

const read = (config: Record<string, unknown>): Architecture =>
  huggingFaceArchitecture(huggingFaceFamily(config), config);

test.each<[string, Record<string, unknown>, Partial<Architecture>]>([
  [
    'Qwen3-30B-A3B',
    QWEN3_30B,
    { family: 'qwen3_moe', headDim: 128, qkNorm: 'head', normTopK: true, expertSize: 768, ropeTheta: 1e6, topK: 8 },
  ],
  [
    'Qwen1.5-MoE-A2.7B',
    QWEN15_MOE,
    {
      family: 'qwen2_moe',
      headDim: 128,
      attentionBias: true,
      sharedExpertSize: 5632,
      sharedExpertGate: true,
      normTopK: false,
      qkNorm: 'none',
      slidingWindow: null,
    },
  ],
  [
    'OLMoE-1B-7B',
    OLMOE,
    { family: 'olmoe', qkNorm: 'full', normTopK: false, expertSize: 1024, expertCount: 64, rmsNormEps: 1e-5 },
  ],
  [
    'Mixtral-8x7B',
    MIXTRAL,
    { family: 'mixtral', headDim: 128, normTopK: true, expertCount: 8, topK: 2, expertSize: 14336 },
  ],
])('huggingFaceArchitecture() reads the published config of %s', (_, config, expected) => {
  const model = read(config);
  expect(model).toMatchObject(expected);
  expect(model.layerKinds).toHaveLength(model.layerCount);
  expect(model.denseFfnSize).toBe(0);
});

test('huggingFaceArchitecture() marks layers without experts when sparse step and list say so', () => {
  const model = read({ ...QWEN3_30B, num_hidden_layers: 6, decoder_sparse_step: 2, mlp_only_layers: [3] });
  expect(model.layerKinds).toEqual(['dense', 'moe', 'dense', 'dense', 'dense', 'moe']);
  expect(model.denseFfnSize).toBe(6144);
  const shapes = denseTensorShapes(model);
  expect(shapes.get('layers.3.ffn_up')).toEqual([6144, 2048]);
  expect(shapes.has('layers.3.router')).toBe(false);
  expect(shapes.get('layers.1.router')).toEqual([128, 2048]);
});

test('huggingFaceArchitecture() reads the spellings of newer transformers', () => {
  const { rope_theta: _theta, rope_scaling: _scaling, num_experts: count, ...rest } = QWEN3_30B;
  const rope_parameters = { rope_type: 'default', rope_theta: 5e6 };
  expect(read({ ...rest, num_local_experts: count, rope_parameters })).toMatchObject({
    ropeTheta: 5e6,
    expertCount: 128,
  });
});

test('huggingFaceArchitecture() takes the sliding window only when it is in use', () => {
  expect(read({ ...QWEN3_30B, sliding_window: 4096 }).slidingWindow).toBeNull();
  expect(read({ ...QWEN3_30B, sliding_window: 4096, use_sliding_window: true }).slidingWindow).toBe(4096);
  expect(read({ ...MIXTRAL, sliding_window: 4096 }).slidingWindow).toBe(4096);
});

test('huggingFaceFamily() goes by the architectures list when model_type is missing', () => {
  expect(huggingFaceFamily({ architectures: ['OlmoeForCausalLM'] }).family).toBe('olmoe');
});

test.each<[string, Record<string, unknown>, ErrorCode, RegExp]>([
  ['an unknown family', { model_type: 'deepseek_v3' }, 'UNSUPPORTED_ARCHITECTURE', /"deepseek_v3".*mixtral.*qwen3_moe/],
  ['no family', {}, 'UNSUPPORTED_ARCHITECTURE', /not named/],
  ['a number as family', { model_type: 7 }, 'UNSUPPORTED_ARCHITECTURE', /supported are/],
  ['yarn', { ...QWEN3_30B, rope_scaling: { rope_type: 'yarn', factor: 4 } }, 'UNSUPPORTED_ARCHITECTURE', /"yarn"/],
  ['old linear scaling', { ...MIXTRAL, rope_scaling: { type: 'linear' } }, 'UNSUPPORTED_ARCHITECTURE', /"linear"/],
  [
    'scaling a layer kind',
    { ...QWEN3_30B, rope_parameters: { full_attention: { rope_type: 'yarn' } } },
    'UNSUPPORTED_ARCHITECTURE',
    /rope_parameters/,
  ],
  ['clipped qkv', { ...OLMOE, clip_qkv: 8 }, 'UNSUPPORTED_ARCHITECTURE', /clip_qkv is 8/],
  ['another activation', { ...MIXTRAL, hidden_act: 'gelu' }, 'UNSUPPORTED_ARCHITECTURE', /hidden_act is "gelu"/],
  ['an output bias', { ...QWEN3_30B, attention_bias: true }, 'UNSUPPORTED_ARCHITECTURE', /attention_bias is true/],
  ['mixed windows', { ...QWEN15_MOE, use_sliding_window: true }, 'UNSUPPORTED_ARCHITECTURE', /use_sliding_window/],
  ['a missing size', { ...OLMOE, hidden_size: undefined }, 'SOURCE_INVALID', /hiddenSize is missing/],
  ['a text as size', { ...OLMOE, hidden_size: '2048' }, 'SOURCE_INVALID', /hiddenSize is "2048"/],
  ['a broken size', { ...OLMOE, hidden_size: 2048.5 }, 'SOURCE_INVALID', /hiddenSize is 2048.5/],
  ['a negative size', { ...OLMOE, intermediate_size: -1024 }, 'SOURCE_INVALID', /expertSize is -1024/],
  ['an absurd size', { ...OLMOE, hidden_size: 2 ** 40 }, 'SOURCE_INVALID', /hiddenSize/],
  ['absurd layers', { ...OLMOE, num_hidden_layers: 1e9 }, 'SOURCE_INVALID', /layerCount/],
  ['absurd experts', { ...OLMOE, num_experts: 4096 }, 'SOURCE_INVALID', /expertCount is 4096/],
  ['top-k over experts', { ...MIXTRAL, num_experts_per_tok: 9 }, 'SOURCE_INVALID', /topK is 9/],
  ['heads not in groups', { ...MIXTRAL, num_key_value_heads: 5 }, 'SOURCE_INVALID', /headCount is 32/],
  ['an odd hidden size', { ...QWEN3_30B, hidden_size: 2040 }, 'UNSUPPORTED_ARCHITECTURE', /hiddenSize is 2040/],
  ['an odd expert size', { ...OLMOE, intermediate_size: 1000 }, 'UNSUPPORTED_ARCHITECTURE', /expertSize is 1000/],
  ['an odd head', { ...QWEN3_30B, head_dim: 80 }, 'UNSUPPORTED_ARCHITECTURE', /headDim is 80/],
  ['a theta of zero', { ...OLMOE, rope_theta: 0 }, 'SOURCE_INVALID', /ropeTheta/],
  ['no experts at all', { ...QWEN3_30B, decoder_sparse_step: 99 }, 'SOURCE_INVALID', /layerKinds/],
  ['a step of zero', { ...QWEN3_30B, decoder_sparse_step: 0 }, 'SOURCE_INVALID', /decoder_sparse_step/],
  ['a list of texts', { ...QWEN3_30B, mlp_only_layers: ['1'] }, 'SOURCE_INVALID', /mlp_only_layers/],
  ['a text as flag', { ...QWEN3_30B, norm_topk_prob: 'yes' }, 'SOURCE_INVALID', /normTopK is "yes"/],
])('huggingFaceArchitecture() refuses %s', (_, config, code, message) => {
  expect(() => read(config)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
});

const GGUF_QWEN3 = new Map<string, unknown>([
  ['general.architecture', 'qwen3moe'],
  ['qwen3moe.block_count', 48],
  ['qwen3moe.context_length', 40960],
  ['qwen3moe.embedding_length', 2048],
  ['qwen3moe.attention.head_count', 32],
  ['qwen3moe.attention.head_count_kv', 4],
  ['qwen3moe.attention.key_length', 128],
  ['qwen3moe.attention.layer_norm_rms_epsilon', 1e-6],
  ['qwen3moe.rope.freq_base', 1e6],
  ['qwen3moe.expert_count', 128],
  ['qwen3moe.expert_used_count', 8],
  ['qwen3moe.expert_feed_forward_length', 768],
]);
const readGguf = (changes: Record<string, unknown> = {}): Architecture => {
  const metadata = new Map([...GGUF_QWEN3, ...Object.entries(changes)]);
  return ggufArchitecture(ggufFamily(metadata), metadata, 151936, false);
};

test('ggufArchitecture() says the same as config.json of the same model', () => {
  expect(readGguf()).toEqual(read(QWEN3_30B));
});

test('ggufArchitecture() takes a list of equal values as one value', () => {
  expect(readGguf({ 'qwen3moe.attention.head_count_kv': Array(48).fill(4) }).kvHeadCount).toBe(4);
});

test.each<[string, Record<string, unknown>, ErrorCode, RegExp]>([
  ['an unknown family', { 'general.architecture': 'gemma3' }, 'UNSUPPORTED_ARCHITECTURE', /"gemma3".*qwen3moe/],
  ['a dense llama', { 'general.architecture': 'llama' }, 'UNSUPPORTED_ARCHITECTURE', /"llama" without experts/],
  ['yarn', { 'qwen3moe.rope.scaling.type': 'yarn' }, 'UNSUPPORTED_ARCHITECTURE', /rope.scaling.type is "yarn"/],
  ['partial rotary', { 'qwen3moe.rope.dimension_count': 64 }, 'UNSUPPORTED_ARCHITECTURE', /dimension_count is 64/],
  ['unequal heads', { 'qwen3moe.attention.head_count_kv': [4, 8] }, 'SOURCE_INVALID', /kvHeadCount is \[4,8\]/],
  ['a missing size', { 'qwen3moe.expert_feed_forward_length': undefined }, 'SOURCE_INVALID', /expertSize/],
])('ggufArchitecture() refuses %s', (_, changes, code, message) => {
  expect(() => readGguf(changes)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
});

test('familyDescriptions() names every tensor that its own flags ask for', () => {
  for (const { family, huggingFace, gguf } of familyDescriptions()) {
    const model = read({ qwen3_moe: QWEN3_30B, qwen2_moe: QWEN15_MOE, olmoe: OLMOE, mixtral: MIXTRAL }[family]!);
    const names = new Set([...denseTensorShapes(model).keys()].map((name) => name.replace(/\d+/, '{layer}')));
    for (const name of names) {
      expect(huggingFace.tensors, `${family} ${name}`).toHaveProperty([name]);
      expect(gguf.tensors, `${family} ${name}`).toHaveProperty([name]);
    }
  }
});
