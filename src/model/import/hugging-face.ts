/** A Hugging Face model directory as a ModelSource: config.json, safetensors, tokenizer files. */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { MoestroError } from '../../errors.js';
import { huggingFaceArchitecture, huggingFaceFamily } from '../architecture.js';
import type { Architecture } from '../manifest.js';
import { openSafetensors } from './safetensors.js';
import type { ModelSource, SourceGeneration } from './source.js';
import { parseJsonObject, readSourceText } from './source-file.js';
import { makeTensorTable } from './tensor-table.js';

const MAX_CONFIG_BYTES = 16 << 20;
const MAX_TOKENIZER_BYTES = 256 << 20;

type Json = Readonly<Record<string, unknown>>;

/** Opens a directory and checks config, tokenizer and every safetensors header. Reads no weights. */
export async function openHuggingFace(directory: string): Promise<ModelSource> {
  const config = await readObject(directory, 'config.json', MAX_CONFIG_BYTES);
  const family = huggingFaceFamily(config);
  if (config.quantization_config !== undefined && config.quantization_config !== null) {
    const method = (config.quantization_config as Json).quant_method;
    throw new MoestroError(
      'UNSUPPORTED_DTYPE',
      `Cannot convert "${directory}": its weights are quantised (${JSON.stringify(method ?? null)}), needed F32, F16 or BF16`,
    );
  }
  const architecture = huggingFaceArchitecture(family, config);
  const { tokenizerJson, tokenizer } = await readTokenizer(directory);
  const tokenizerConfig = await readTokenizerConfig(directory);
  const generationConfig = existsSync(join(directory, 'generation_config.json'))
    ? await readObject(directory, 'generation_config.json', MAX_CONFIG_BYTES)
    : {};
  const generation = readGeneration(architecture, config, generationConfig, tokenizer, tokenizerConfig);
  const files = await openSafetensors(directory);
  try {
    const table = makeTensorTable(files.tensors, family.huggingFace, architecture, directory, false);
    return {
      name: basename(resolve(directory)),
      describe: `safetensors ${table.mainDtype}`,
      architecture,
      denseNames: table.denseNames,
      byteLength: table.byteLength,
      dense: table.dense,
      expert: table.expert,
      tokenizerJson,
      tokenizerConfigJson: JSON.stringify(tokenizerConfig),
      generation,
      close: files.close,
    };
  } catch (error) {
    await files.close();
    throw error;
  }
}

async function readObject(directory: string, name: string, maxBytes: number): Promise<Json> {
  const path = join(directory, name);
  return parseJsonObject(await readSourceText(path, maxBytes), `"${path}"`);
}

async function readTokenizer(directory: string): Promise<{ readonly tokenizerJson: string; readonly tokenizer: Json }> {
  const path = join(directory, 'tokenizer.json');
  if (!existsSync(path)) {
    throw new MoestroError('SOURCE_INVALID', `Cannot convert "${directory}": tokenizer.json is missing`);
  }
  const tokenizerJson = await readSourceText(path, MAX_TOKENIZER_BYTES);
  const tokenizer = parseJsonObject(tokenizerJson, `"${path}"`);
  const type = (tokenizer.model as Json | null | undefined)?.type;
  // Files of before 2020 leave the type out and are BPE when they list merges.
  const isBpe = type === 'BPE' || (type === undefined && Array.isArray((tokenizer.model as Json | undefined)?.merges));
  if (!isBpe) {
    throw new MoestroError(
      'UNSUPPORTED_TOKENIZER',
      `Cannot convert "${path}": its model is ${JSON.stringify(type ?? null)}, supported is "BPE"`,
    );
  }
  return { tokenizerJson, tokenizer };
}

/** With the chat template in it, which newer checkpoints keep in a file of its own. */
async function readTokenizerConfig(directory: string): Promise<Json> {
  const hasConfig = existsSync(join(directory, 'tokenizer_config.json'));
  const config = hasConfig ? await readObject(directory, 'tokenizer_config.json', MAX_CONFIG_BYTES) : {};
  const template = join(directory, 'chat_template.jinja');
  if (!existsSync(template)) return config;
  return { ...config, chat_template: await readSourceText(template, MAX_CONFIG_BYTES) };
}

function readGeneration(
  { vocabSize }: Architecture,
  config: Json,
  generationConfig: Json,
  tokenizer: Json,
  tokenizerConfig: Json,
): SourceGeneration {
  const added = Array.isArray(tokenizer.added_tokens) ? (tokenizer.added_tokens as Json[]) : [];
  const idOf = (token: unknown): unknown => {
    const content = typeof token === 'object' && token !== null ? (token as Json).content : token;
    return typeof content === 'string' ? added.find((one) => one?.content === content)?.id : undefined;
  };
  const ids = (value: unknown): number[] =>
    (Array.isArray(value) ? value : [value]).filter(
      (id): id is number => Number.isInteger(id) && id >= 0 && id < vocabSize,
    );
  // The tokenizer's own end (a chat model's end of turn) counts too: config.json often has the base model's.
  const eosTokenIds = [
    ...ids(generationConfig.eos_token_id ?? config.eos_token_id),
    ...ids(idOf(tokenizerConfig.eos_token)),
  ];
  const bosTokenId = ids(idOf(tokenizerConfig.bos_token) ?? config.bos_token_id)[0] ?? null;
  const addBos = tokenizerConfig.add_bos_token ?? startsWithBos(tokenizer, tokenizerConfig);
  return { eosTokenIds: [...new Set(eosTokenIds)], bosTokenId, addBos: addBos === true && bosTokenId !== null };
}

/** Whether the post-processor puts the begin token first. */
function startsWithBos(tokenizer: Json, { bos_token: bos }: Json): boolean {
  const content = typeof bos === 'object' && bos !== null ? (bos as Json).content : bos;
  const processor = tokenizer.post_processor as Json | null | undefined;
  const steps = [processor, ...(Array.isArray(processor?.processors) ? (processor.processors as Json[]) : [])];
  return steps.some((step) => {
    const first = Array.isArray(step?.single) ? (step.single[0] as Json | undefined) : undefined;
    return content !== undefined && (first?.SpecialToken as Json | undefined)?.id === content;
  });
}
