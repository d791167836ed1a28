/**
 * Writes a tiny model as a Hugging Face directory. Names and config keys are spelt here a second time, independently
 * of models/architectures, so that a mistake there shows.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeValues, type PlainDtype } from './number-formats.js';
import type { TinyFamily, TinyModel } from './tiny-models.js';
import type { TinyVocabulary } from './tiny-vocabularies.js';
import { type SafetensorsEntry, safetensorsBytes } from './write-safetensors.js';

const HF_LAYER_NAMES: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm.weight',
  ffn_norm: 'post_attention_layernorm.weight',
  q: 'self_attn.q_proj.weight',
  k: 'self_attn.k_proj.weight',
  v: 'self_attn.v_proj.weight',
  o: 'self_attn.o_proj.weight',
  q_bias: 'self_attn.q_proj.bias',
  k_bias: 'self_attn.k_proj.bias',
  v_bias: 'self_attn.v_proj.bias',
  q_norm: 'self_attn.q_norm.weight',
  k_norm: 'self_attn.k_norm.weight',
  router: 'mlp.gate.weight',
  shared_gate: 'mlp.shared_expert.gate_proj.weight',
  shared_up: 'mlp.shared_expert.up_proj.weight',
  shared_down: 'mlp.shared_expert.down_proj.weight',
  shared_router: 'mlp.shared_expert_gate.weight',
  ffn_gate: 'mlp.gate_proj.weight',
  ffn_up: 'mlp.up_proj.weight',
  ffn_down: 'mlp.down_proj.weight',
};

function huggingFaceName(name: string, isMixtral: boolean): string {
  if (name === 'embedding') return 'model.embed_tokens.weight';
  if (name === 'head') return 'lm_head.weight';
  if (name === 'final_norm') return 'model.norm.weight';
  const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(name)!;
  const inLayer = isMixtral && part === 'router' ? 'block_sparse_moe.gate.weight' : HF_LAYER_NAMES[part!]!;
  return `model.layers.${layer}.${inLayer}`;
}

export function huggingFaceConfig({ architecture: a, vocabulary }: TinyModel): Record<string, unknown> {
  const common = {
    model_type: a.family,
    hidden_size: a.hiddenSize,
    num_hidden_layers: a.layerCount,
    num_attention_heads: a.headCount,
    num_key_value_heads: a.kvHeadCount,
    vocab_size: a.vocabSize,
    max_position_embeddings: a.contextLength,
    rope_theta: a.ropeTheta,
    rope_scaling: null,
    rms_norm_eps: a.rmsNormEps,
    hidden_act: 'silu',
    tie_word_embeddings: a.tiedEmbeddings,
    num_experts_per_tok: a.topK,
    bos_token_id: vocabulary.bosId,
    eos_token_id: vocabulary.eosId,
  };
  const dense = a.layerKinds.flatMap((kind, layer) => (kind === 'dense' ? [layer] : []));
  const qwen = {
    num_experts: a.expertCount,
    moe_intermediate_size: a.expertSize,
    intermediate_size: a.denseFfnSize === 0 ? 256 : a.denseFfnSize,
    decoder_sparse_step: 1,
    mlp_only_layers: dense,
    norm_topk_prob: a.normTopK,
    use_sliding_window: false,
    sliding_window: 4096,
  };
  switch (a.family as TinyFamily) {
    case 'qwen3_moe':
      return { ...common, ...qwen, architectures: ['Qwen3MoeForCausalLM'], head_dim: a.headDim, attention_bias: false };
    case 'qwen2_moe':
      return {
        ...common,
        ...qwen,
        architectures: ['Qwen2MoeForCausalLM'],
        shared_expert_intermediate_size: a.sharedExpertSize,
      };
    case 'olmoe':
      return {
        ...common,
        architectures: ['OlmoeForCausalLM'],
        num_experts: a.expertCount,
        intermediate_size: a.expertSize,
        norm_topk_prob: a.normTopK,
        clip_qkv: null,
        attention_bias: false,
      };
    case 'mixtral':
      return {
        ...common,
        architectures: ['MixtralForCausalLM'],
        num_local_experts: a.expertCount,
        intermediate_size: a.expertSize,
        sliding_window: a.slidingWindow,
      };
  }
}

export interface HuggingFaceOptions {
  readonly dtype?: PlainDtype;
  /** More than 1 writes that many shards and an index. */
  readonly shards?: number;
  /** Experts as gate_up_proj and down_proj of three dimensions, as newer transformers keep them. */
  readonly fused?: boolean;
}

/** Tensors under their Hugging Face names. */
export function huggingFaceTensors(model: TinyModel, { dtype = 'F16', fused = false }: HuggingFaceOptions = {}) {
  const isMixtral = model.architecture.family === 'mixtral';
  const entries: SafetensorsEntry[] = [];
  const add = (name: string, shape: number[], values: Float32Array) =>
    entries.push({ name, dtype, shape, bytes: encodeValues(dtype, values) });
  for (const [name, { rows, cols, values }] of model.dense) {
    const isVector = /(norm|bias)$/.test(name);
    add(huggingFaceName(name, isMixtral), isVector ? [cols] : [rows, cols], values);
  }
  model.experts.forEach((experts, layer) => {
    const prefix = `model.layers.${layer}.${isMixtral ? 'block_sparse_moe' : 'mlp'}.experts`;
    const { hiddenSize, expertSize } = model.architecture;
    if (fused && experts.length > 0) {
      const join = (pick: (expert: (typeof experts)[number]) => Float32Array[]) =>
        Float32Array.from(experts.flatMap((expert) => pick(expert).flatMap((values) => [...values])));
      add(
        `${prefix}.gate_up_proj`,
        [experts.length, 2 * expertSize, hiddenSize],
        join((e) => [e.gate.values, e.up.values]),
      );
      add(
        `${prefix}.down_proj`,
        [experts.length, hiddenSize, expertSize],
        join((e) => [e.down.values]),
      );
      return;
    }
    const [gate, up, down] = isMixtral ? ['w1', 'w3', 'w2'] : ['gate_proj', 'up_proj', 'down_proj'];
    experts.forEach((expert, index) => {
      add(`${prefix}.${index}.${gate}.weight`, [expertSize, hiddenSize], expert.gate.values);
      add(`${prefix}.${index}.${up}.weight`, [expertSize, hiddenSize], expert.up.values);
      add(`${prefix}.${index}.${down}.weight`, [hiddenSize, expertSize], expert.down.values);
    });
  });
  return entries;
}

export function writeHuggingFace(model: TinyModel, directory: string, options: HuggingFaceOptions = {}): void {
  mkdirSync(directory, { recursive: true });
  const write = (name: string, value: unknown) => writeFileSync(join(directory, name), JSON.stringify(value, null, 1));
  const entries = huggingFaceTensors(model, options);
  const shards = options.shards ?? 1;
  if (shards === 1) writeFileSync(join(directory, 'model.safetensors'), safetensorsBytes(entries));
  else {
    const weightMap: Record<string, string> = {};
    const total = String(shards).padStart(5, '0');
    for (let shard = 0; shard < shards; shard++) {
      const file = `model-${String(shard + 1).padStart(5, '0')}-of-${total}.safetensors`;
      // Dealt out like cards, so that the matrices of one expert lie in different shards.
      const own = entries.filter((_, index) => index % shards === shard);
      for (const { name } of own) weightMap[name] = file;
      writeFileSync(join(directory, file), safetensorsBytes(own));
    }
    write('model.safetensors.index.json', { metadata: {}, weight_map: weightMap });
  }
  write('config.json', huggingFaceConfig(model));
  write('tokenizer.json', tokenizerJson(model.vocabulary));
  write('tokenizer_config.json', tokenizerConfigJson(model.vocabulary));
}

const addedToken = (content: string, id: number) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

export function tokenizerJson(vocabulary: TinyVocabulary): Record<string, unknown> {
  const { tokens, types, merges } = vocabulary;
  const added = tokens.flatMap((token, id) => (types[id] === 3 || types[id] === 2 ? [addedToken(token, id)] : []));
  const base = { version: '1.0', truncation: null, padding: null, added_tokens: added };
  const model = { type: 'BPE', dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null };
  if (vocabulary.model === 'gpt2') {
    const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false };
    const words =
      vocabulary.pre === 'qwen2'
        ? "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        : "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const split = { type: 'Split', pattern: { Regex: words }, behavior: 'Isolated', invert: false };
    const vocab = Object.fromEntries(tokens.flatMap((token, id) => (types[id] === 1 ? [[token, id]] : [])));
    return {
      ...base,
      normalizer: { type: 'NFC' },
      pre_tokenizer: { type: 'Sequence', pretokenizers: [split, byteLevel] },
      post_processor: null,
      decoder: byteLevel,
      model: { ...model, unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
    };
  }
  // Every cut of every piece into two pieces, in the order of the pieces, which is that of the scores.
  const pieces = new Set(tokens.filter((_, id) => types[id] === 1));
  const cuts = [...pieces].flatMap((piece) =>
    Array.from({ length: piece.length - 1 }, (_, i) => [piece.slice(0, i + 1), piece.slice(i + 1)] as const).filter(
      ([left, right]) => pieces.has(left) && pieces.has(right),
    ),
  );
  return {
    ...base,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: '<s>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { Sequence: { id: 'B', type_id: 1 } },
      ],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      ...model,
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: cuts,
    },
  };
}

export function tokenizerConfigJson(vocabulary: TinyVocabulary): Record<string, unknown> {
  const { tokens, bosId, eosId, addBos, chatTemplate } = vocabulary;
  return {
    tokenizer_class: vocabulary.model === 'llama' ? 'LlamaTokenizer' : 'Qwen2Tokenizer',
    add_bos_token: addBos,
    bos_token: bosId === null ? null : tokens[bosId]!,
    eos_token: tokens[eosId]!,
    clean_up_tokenization_spaces: false,
    chat_template: chatTemplate,
  };
}
