/**
 * The text side of a model, read from tokenizer.json, tokenizer_config.json and chat_template.jinja beside each other.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MoestroError } from '../errors.js';
import { type ChatTemplates, chooseTemplate, cutAtMark, readChatTemplates, renderTemplate } from './chat-template.js';
import { ContentGuard, type GuardedText } from './content-guard.js';
import { decodeIds, StreamingDetokenizer } from './detokenizer.js';
import { Tokenizer } from './tokenizer.js';
import { asArray, asFlag, asObject, asString, asTokenId, type JsonObject } from './tokenizer-json.js';
import type { ChatMessage, Detokenizer, PromptEnd, TextModel } from './types.js';

/** What a manifest says of generation; goes before what the tokenizer's own files say. */
export interface TextGeneration {
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  /** Whether `encode` begins a text with bos unless told otherwise. */
  readonly addBos: boolean;
}

interface ChatOptions {
  readonly tools?: readonly unknown[];
  readonly kwargs?: Readonly<Record<string, unknown>>;
}

/** Special tokens that templates may name. */
const TEMPLATE_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'pad_token', 'sep_token', 'cls_token', 'mask_token'];

class FileTextModel implements TextModel {
  readonly vocabSize: number;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  readonly hasChatTemplate: boolean;
  readonly knowsTools: boolean;
  readonly thinking: TextModel['thinking'];
  readonly fill: TextModel['fill'];
  private readonly addsBos: boolean;
  private readonly tokenizer: Tokenizer;
  private readonly templates: ChatTemplates;
  private readonly templateTokens: Readonly<Record<string, string>>;
  private readonly specials: readonly string[];
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(json: unknown, config: JsonObject, jinjaFile: string | null, generation?: TextGeneration) {
    this.tokenizer = new Tokenizer(json, config.added_tokens_decoder);
    this.vocabSize = this.tokenizer.vocabulary.size;
    this.templates = readChatTemplates(config.chat_template, jinjaFile);
    this.hasChatTemplate = this.templates.size > 0;
    // A template that never asks for them ignores them.
    this.knowsTools = [...this.templates.values()].some((source) => /\btools\b/.test(source));
    // Every family that thinks in the open writes these two; a template without the second one knows no thoughts.
    const thinks = [...this.templates.values()].some((template) => template.includes('</think>'));
    this.thinking = thinks ? { open: '<think>', close: '</think>' } : null;
    this.fill = fillIds(this.tokenizer);
    this.templateTokens = readTemplateTokens(config);
    this.specials = this.tokenizer.addedTokens.filter((token) => token.isSpecial).map((token) => token.content);
    const idOf = (content: string | undefined): number | null =>
      this.tokenizer.addedTokens.find((token) => token.content === content)?.id ?? null;
    const eosTokenId = idOf(this.templateTokens.eos_token);
    this.eosTokenIds = generation?.eosTokenIds ?? (eosTokenId === null ? [] : [eosTokenId]);
    this.bosTokenId = generation === undefined ? idOf(this.templateTokens.bos_token) : generation.bosTokenId;
    this.addsBos = generation?.addBos ?? beginsWithBos(json, config, this.templateTokens.bos_token);
  }

  encode(text: string, options: { readonly special?: boolean; readonly addBos?: boolean } = {}): number[] {
    const ids = this.tokenizer.encode(text, options.special ?? true);
    if ((options.addBos ?? this.addsBos) && this.bosTokenId !== null) ids.unshift(this.bosTokenId);
    return ids;
  }

  decode(ids: readonly number[], options: { readonly skipSpecial?: boolean } = {}): string {
    return decodeIds(this.tokenizer.vocabulary, ids, options.skipSpecial ?? true);
  }

  tokenBytes(id: number): Uint8Array {
    const { vocabulary } = this.tokenizer;
    return vocabulary.isSpecial(id) ? new Uint8Array(0) : vocabulary.content(id).slice();
  }

  tokenText(id: number): string {
    return this.decoder.decode(this.tokenizer.vocabulary.content(id));
  }

  renderChat(
    messages: readonly ChatMessage[],
    options: ChatOptions & { readonly addGenerationPrompt?: boolean } = {},
  ): string {
    const tools = toolsOrNull(options.tools);
    return renderTemplate(chooseTemplate(this.templates, tools !== null), {
      messages,
      addGenerationPrompt: options.addGenerationPrompt ?? true,
      tools,
      kwargs: options.kwargs ?? {},
      tokens: this.templateTokens,
    });
  }

  encodeChat(messages: readonly ChatMessage[], options: ChatOptions & { readonly end?: PromptEnd } = {}): number[] {
    const { text, admits } = this.renderGuarded(messages, options, options.end ?? 'newTurn');
    return this.tokenizer.encode(text, true, admits ?? undefined);
  }

  detokenizer(options: { readonly continues?: boolean } = {}): Detokenizer {
    return new StreamingDetokenizer(this.tokenizer.vocabulary, true, options.continues ?? false);
  }

  private renderGuarded(messages: readonly ChatMessage[], options: ChatOptions, end: PromptEnd): GuardedText {
    const tools = toolsOrNull(options.tools);
    const source = chooseTemplate(this.templates, tools !== null);
    const guard = new ContentGuard(this.specials, [source, JSON.stringify([messages, tools, options.kwargs])]);
    const guarded = messages.map(
      (message) =>
        Object.fromEntries(
          Object.entries(message).map(([key, value]) => [
            key,
            key === 'role' ? guard.guardText(String(value), false) : guard.guardValue(value),
          ]),
        ) as unknown as ChatMessage,
    );
    const last = guarded.at(-1);
    const mark = end === 'inMessage' && last !== undefined ? guard.mark() : null;
    if (mark !== null) guarded[guarded.length - 1] = { ...last!, content: `${last!.content ?? ''}${mark}\v` };
    const rendered = this.renderChat(guarded, {
      addGenerationPrompt: end === 'newTurn',
      ...(tools === null ? {} : { tools: guard.guardValue(tools) as unknown[] }),
      ...(options.kwargs === undefined
        ? {}
        : { kwargs: guard.guardValue(options.kwargs) as Readonly<Record<string, unknown>> }),
    });
    return guard.restore(mark === null ? rendered : cutAtMark(rendered, mark, last!.content ?? ''));
  }
}

/** Markers of "fill in the middle" as the families write them: Qwen, StarCoder and those after it, DeepSeek. */
const FILL_MARKERS = [
  ['<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>'],
  ['<fim_prefix>', '<fim_suffix>', '<fim_middle>'],
  ['<｜fim▁begin｜>', '<｜fim▁hole｜>', '<｜fim▁end｜>'],
] as const;

function fillIds({ addedTokens }: Tokenizer): TextModel['fill'] {
  const idOf = (content: string): number | undefined => addedTokens.find((token) => token.content === content)?.id;
  for (const markers of FILL_MARKERS) {
    const [prefix, suffix, middle] = markers.map(idOf);
    if (prefix !== undefined && suffix !== undefined && middle !== undefined) return [prefix, suffix, middle];
  }
  return null;
}

const toolsOrNull = (tools: readonly unknown[] | undefined): readonly unknown[] | null =>
  tools === undefined || tools.length === 0 ? null : tools;

/** Texts of the named special tokens, written as a text or as {"content": text}. */
function readTemplateTokens(config: JsonObject): Readonly<Record<string, string>> {
  const tokens: Record<string, string> = {};
  for (const name of TEMPLATE_TOKENS) {
    const value = config[name];
    if (value === undefined || value === null) continue;
    const place = `tokenizer_config.json ${name}`;
    tokens[name] = typeof value === 'string' ? value : asString(asObject(value, place).content, `${place}.content`);
  }
  return tokens;
}

/** The post-processor decides as in the reference; `add_bos_token` where there is none that does. */
function beginsWithBos(json: unknown, config: JsonObject, bosToken: string | undefined): boolean {
  if (bosToken === undefined) return false;
  const processor = asObject(json, 'tokenizer.json').post_processor;
  const isTemplate = (value: unknown): value is JsonObject =>
    typeof value === 'object' && value !== null && (value as JsonObject).type === 'TemplateProcessing';
  const processors =
    typeof processor === 'object' && processor !== null && Array.isArray((processor as JsonObject).processors)
      ? ((processor as JsonObject).processors as unknown[])
      : [processor];
  const template = processors.find(isTemplate);
  if (template === undefined) return asFlag(config.add_bos_token, 'tokenizer_config.json add_bos_token');
  const place = 'tokenizer.json post_processor.single';
  const first = asObject(asArray(template.single, place)[0] ?? {}, `${place}[0]`);
  return first.SpecialToken !== undefined && asObject(first.SpecialToken, `${place}[0].SpecialToken`).id === bosToken;
}

async function readText(directory: string, name: string): Promise<string | null> {
  try {
    return await readFile(join(directory, name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new MoestroError(
      'IO_ERROR',
      `Cannot read "${join(directory, name)}": ${(error as Error).message}`,
      { name },
      error,
    );
  }
}

function parse(directory: string, name: string, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const path = join(directory, name);
    throw new MoestroError('MODEL_INVALID', `Cannot parse "${path}": ${error.message}, needed JSON`, { path }, error);
  }
  return asObject(value, name);
}

/**
 * Reads a model's text files.
 *
 * @param directory holds tokenizer.json, and tokenizer_config.json and chat_template.jinja where the model has them.
 * @param generation special ids of the model's manifest; without it they come from tokenizer_config.json.
 * @throws {MoestroError} MODEL_INVALID for files that are missing or malformed, UNSUPPORTED_TOKENIZER for kinds of
 * tokenizers that are not known.
 */
export async function loadTextModel(directory: string, generation?: TextGeneration): Promise<TextModel> {
  const [tokenizer, config, template] = await Promise.all(
    ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'].map((name) => readText(directory, name)),
  );
  if (tokenizer === null || tokenizer === undefined)
    throw new MoestroError(
      'MODEL_INVALID',
      `Cannot load a tokenizer from "${directory}": found no tokenizer.json, needed one`,
      {
        directory,
      },
    );
  const json = parse(directory, 'tokenizer.json', tokenizer);
  if (generation !== undefined) {
    for (const id of generation.eosTokenIds) asTokenId(id, 'generation.eosTokenIds');
    if (generation.bosTokenId !== null) asTokenId(generation.bosTokenId, 'generation.bosTokenId');
  }
  return new FileTextModel(
    json,
    config === null || config === undefined ? {} : parse(directory, 'tokenizer_config.json', config),
    template ?? null,
    generation,
  );
}
