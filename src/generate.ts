/**
 * Messages to tokens to the engine to text: the one place where text meets tokens. Callers above (HTTP, CLI, library)
 * see text only; the engine below sees token ids only.
 */

import { CallWriter } from './answer/calls.js';
import { ending, usageUntil } from './answer/ending.js';
import { withReasoning } from './answer/reasoning.js';
import type { AnswerEvent, AnswerOptions, Job, Message, PromptEnd, Tool } from './answer/types.js';
import { AnswerWriter, PromptReporter } from './answer/writer.js';
import { FormatCompiler } from './constrain/format.js';
import type { FormatProgram } from './constrain/program.js';
import { withToolPrompt } from './constrain/tool-prompt.js';
import { CALLS_MAX, HERMES } from './constrain/tool-rules.js';
import type {
  EmbedOptions,
  EngineClient,
  EngineInfo,
  EngineLive,
  EngineMetrics,
  GenerateRequest,
  MemoryState,
  Mode,
  Precision,
  Sampling,
  Usage,
} from './engine/types.js';
import { MoestroError } from './errors.js';
import { mergeAsync } from './merge.js';
import { ReasoningSplit } from './text/reasoning.js';
import type { TextModel } from './text/types.js';

/**
 * What a caller's mode and mean bits ask for: bits alone mean `routed`, neither leaves the choice to the engine.
 *
 * @throws {MoestroError} INVALID_REQUEST for bits beside mode `exact`, and bits outside of 2 to 8.
 */
export function precisionAsked(mode: Mode | undefined, bits: number | undefined): { readonly precision?: Precision } {
  if (bits === undefined) return mode === undefined ? {} : { precision: { mode } };
  if (mode !== 'exact' && bits >= 2 && bits <= 8) return { precision: { mode: mode ?? 'routed', bits } };
  const found = mode === 'exact' ? `${bits} mean bits in mode "exact"` : `${bits} mean bits`;
  const needed = mode === 'exact' ? 'mode "routed" or "elastic"' : 'a number from 2 to 8';
  throw new MoestroError('INVALID_REQUEST', `Cannot run at ${found}: needed ${needed}`, { param: 'moestro.bits' });
}

/** What a request calls its prompt, for errors. */
type PromptField = 'messages' | 'prompt' | 'input';

interface ChatPromptOptions {
  /** Extra variables for the chat template. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** What the template is to tell the model of. */
  readonly tools?: readonly Tool[];
  readonly param?: PromptField;
  readonly end?: PromptEnd;
}

/** Texts of one request that share steps at most. */
const EMBEDDED_AT_ONCE = 8;
/** A tenth of a second of tokenising. */
const TOKENIZE_CHARACTERS_MAX = 1 << 20;

/** Characters of a text that normalisation may turn into one: NFC joins three jamo, or a letter and its marks. */
const NORMALISED_MAX = 4;

/** Owns the count of answers under way; engine and text belong to whoever made them. */
export class TextGenerator {
  readonly info: EngineInfo;
  /** Answers under way at once at most, those that wait included. */
  readonly capacity: number;
  /** How answers are drawn where a request says nothing; a reload of the configuration replaces it. */
  defaults: Sampling;
  #engine: EngineClient;
  #text: TextModel;
  /** Milliseconds, monotonic. */
  readonly #now: () => number;
  /** No prompt of more characters (UTF-16 units) can fit the context. */
  readonly #charactersMax: number;
  #underWay = 0;
  readonly #compiler = new FormatCompiler({
    encode: (text) => this.#text.encode(text, { special: false, addBos: false }),
    tokenBytes: (id) => this.#text.tokenBytes(id),
  });

  constructor(
    engine: EngineClient,
    text: TextModel,
    limits: { readonly capacity: number; readonly defaults: Sampling },
    now: () => number = () => performance.now(),
  ) {
    this.#now = now;
    this.#engine = engine;
    this.#text = text;
    this.info = engine.info;
    this.capacity = limits.capacity;
    this.defaults = limits.defaults;
    let longest = 1;
    for (let id = 0; id < text.vocabSize; ++id) longest = Math.max(longest, text.tokenBytes(id).length);
    this.#charactersMax = engine.info.contextLength * longest * NORMALISED_MAX;
  }

  get vocabSize(): number {
    return this.info.vocabSize;
  }

  /**
   * Messages to prompt ids by the model's chat template.
   *
   * @throws {MoestroError} TEMPLATE_FAILED, CONTEXT_LENGTH_EXCEEDED.
   */
  promptFromChat(
    messages: readonly Message[],
    { kwargs = {}, tools = [], param = 'messages', end = 'newTurn' }: ChatPromptOptions = {},
  ): readonly number[] {
    const described = tools.map(({ name, description, parameters }) => ({
      type: 'function',
      function: { name, ...(description === undefined ? {} : { description }), parameters },
    }));
    const characters = messages.reduce((sum, { content }) => sum + (content?.length ?? 0) + 1, 0);
    this.#checkCharacters(characters + (tools.length > 0 ? JSON.stringify(described).length : 0), param);
    if (this.#text.knowsTools ?? true) {
      return this.#checked(this.#text.encodeChat(messages, { kwargs, tools: described, end }), param);
    }
    const told = withToolPrompt(messages, described, HERMES);
    return this.#checked(this.#text.encodeChat(told, { kwargs, end }), param);
  }

  /** Plain text to prompt ids; special tokens written in it count as such. Throws CONTEXT_LENGTH_EXCEEDED. */
  promptFromText(text: string, param: PromptField = 'prompt'): readonly number[] {
    this.#checkCharacters(text.length, param);
    return this.#checked(this.#text.encode(text, { special: true }), param);
  }

  /** Ids as they are. Throws INVALID_REQUEST when one is outside of the vocabulary, CONTEXT_LENGTH_EXCEEDED. */
  promptFromIds(ids: readonly number[], param: PromptField = 'prompt'): readonly number[] {
    return this.#checked(this.checkIds(ids, param), param);
  }

  /**
   * A text and what follows it to the prompt for what stands between them, by the model's own markers.
   *
   * @throws {MoestroError} UNSUPPORTED_PARAMETER when the model has none, CONTEXT_LENGTH_EXCEEDED.
   */
  promptBetween(before: string, after: string): readonly number[] {
    if (this.#text.fill === null) {
      const found = `Cannot put a text before a suffix: "${this.info.modelName}" has no markers for it`;
      throw new MoestroError('UNSUPPORTED_PARAMETER', `${found}, needed a model trained to fill in the middle`, {
        param: 'suffix',
      });
    }
    this.#checkCharacters(before.length + after.length, 'prompt');
    const [prefix, suffix, middle] = this.#text.fill;
    const encode = (text: string) => this.#text.encode(text, { special: false, addBos: false });
    const bos = this.#text.encode('');
    return this.#checked([...bos, prefix, ...encode(before), suffix, ...encode(after), middle], 'prompt');
  }

  /** Ids back to text: for `echo`, and with special tokens as they are written. */
  textOf(ids: readonly number[], withSpecial = false): string {
    return this.#text.decode(ids, { skipSpecial: !withSpecial });
  }

  /**
   * A text to ids as it stands: no prompt, so it may be longer than the context.
   *
   * @throws {MoestroError} INVALID_REQUEST when it is so long that tokenising it would hold up everybody else.
   */
  tokenize(text: string, options: { readonly special: boolean; readonly addBos?: boolean }): readonly number[] {
    const most = Math.max(TOKENIZE_CHARACTERS_MAX, this.#charactersMax);
    if (text.length > most) {
      const found = `Cannot tokenise ${text.length} characters at once: needed at most ${most}`;
      throw new MoestroError('INVALID_REQUEST', found, { param: 'content' });
    }
    return this.#text.encode(text, options);
  }

  /** Bytes of one token as it is written, special ones too. */
  tokenBytes(id: number): Uint8Array {
    const bytes = this.#text.tokenBytes(id);
    return bytes.length > 0 ? bytes : new TextEncoder().encode(this.#text.tokenText(id));
  }

  /** Ids that are all of the vocabulary. Throws INVALID_REQUEST. */
  checkIds(ids: readonly number[], param: string): readonly number[] {
    const outside = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.vocabSize));
    if (outside === undefined) return ids;
    const found = `Cannot use the token id ${outside} of "${param}"`;
    throw new MoestroError('INVALID_REQUEST', `${found}: needed whole numbers from 0 to ${this.vocabSize - 1}`, {
      param,
    });
  }

  /**
   * One vector for each text, Float32Array [hiddenSize], in their order; {@link EMBEDDED_AT_ONCE} of them share a step
   * at most, so that one request cannot fill the server.
   *
   * @throws {MoestroError} QUEUE_FULL before anything has started; what the engine throws.
   */
  async embed(
    texts: readonly (readonly number[])[],
    options: EmbedOptions,
    signal: AbortSignal,
  ): Promise<readonly Float32Array[]> {
    const atOnce = Math.max(1, Math.min(texts.length, EMBEDDED_AT_ONCE, this.capacity - this.#underWay));
    const release = this.#hold(atOnce);
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const vectors: Float32Array[] = [];
    let next = 0;
    const run = async (): Promise<void> => {
      for (let at = next++; at < texts.length; at = next++)
        vectors[at] = await this.#engine.embed(texts[at]!, options, either);
    };
    try {
      await Promise.all(Array.from({ length: atOnce }, run));
      return vectors;
    } finally {
      failed.abort();
      release();
    }
  }

  live(): Promise<EngineLive> {
    return this.#engine.live();
  }

  metrics(): Promise<EngineMetrics> {
    return this.#engine.metrics();
  }

  /** As EngineClient.memory. */
  memory(budgetBytes?: number): Promise<MemoryState> {
    return this.#engine.memory(budgetBytes);
  }

  /**
   * Starts answers that belong to one request; they run side by side, as far as the engine has room.
   *
   * @param signal ends all of them within one step.
   * @param client who asks: places are shared fairly between clients.
   * @returns events with the number of their job. To be iterated at once, or the signal aborted.
   * @throws {MoestroError} QUEUE_FULL, UNSUPPORTED_FORMAT, before anything has started; while iterating what the engine throws.
   */
  start(
    jobs: readonly Job[],
    signal: AbortSignal,
    client?: string,
  ): AsyncGenerator<{ readonly index: number; readonly value: AnswerEvent }, void, void> {
    const compiled = jobs.map((job) => ({ job, program: this.#programOf(job.options) }));
    const release = this.#hold(jobs.length);
    signal.addEventListener('abort', release, { once: true });
    return this.#run(compiled, signal, release, client);
  }

  /** Counts answers as under way, until what it returns is called. Throws QUEUE_FULL. */
  #hold(count: number): () => void {
    if (this.#underWay + count > this.capacity) {
      throw new MoestroError(
        'QUEUE_FULL',
        `Cannot take the request: ${this.#underWay} answers are under way, needed room for ${count} of ${this.capacity}`,
        { found: this.#underWay, needed: this.capacity - count },
      );
    }
    this.#underWay += count;
    let held = true;
    return () => {
      if (held) this.#underWay -= count;
      held = false;
    };
  }

  async *#run(jobs: readonly CompiledJob[], signal: AbortSignal, release: () => void, client?: string) {
    const left = new AbortController();
    const either = AbortSignal.any([signal, left.signal]);
    try {
      const answers = jobs.map((compiled) => this.#split(compiled.job, this.#answer(compiled, either, client)));
      yield* mergeAsync(answers, () => left.abort());
    } finally {
      signal.removeEventListener('abort', release);
      release();
    }
  }

  /** The answer with its thoughts told apart, where the job asks for it and the model is one that thinks. */
  #split(job: Job, events: AsyncGenerator<AnswerEvent, void, void>): AsyncGenerator<AnswerEvent, void, void> {
    const { thinking } = this.#text;
    if (job.splitsReasoning !== true || thinking === null) return events;
    // Markers are a token each, or a few: whatever a template writes after one is white space.
    const ending = this.#text.decode(job.promptIds.slice(-16), { skipSpecial: false }).trimEnd();
    const said = job.continued ?? '';
    const startsOpen =
      ending.endsWith(thinking.open) || said.lastIndexOf(thinking.open) > said.lastIndexOf(thinking.close);
    return withReasoning(events, new ReasoningSplit(thinking, startsOpen));
  }

  async *#answer(
    { job, program }: CompiledJob,
    signal: AbortSignal,
    client?: string,
  ): AsyncGenerator<AnswerEvent, void, void> {
    const { promptIds, options, reportsPrompt = false } = job;
    const continuesText = job.continuesText === true || job.continued !== undefined;
    signal.throwIfAborted();
    if (options.maxTokens === 0 && !reportsPrompt) {
      yield { kind: 'finish', reason: 'length', usage: usageUntil(promptIds.length, 0), stop: null };
      return;
    }
    const prompt = new PromptReporter(this.#text);
    if (reportsPrompt) yield { kind: 'prompt', tokens: [prompt.report(promptIds[0]!, null, [])] };
    const request: GenerateRequest = {
      promptIds,
      maxTokens: options.maxTokens,
      stopTokenIds: [...(options.ignoreEos === true ? [] : this.#text.eosTokenIds), ...(options.stopTokenIds ?? [])],
      ...(options.minTokens === undefined ? {} : { minTokens: options.minTokens }),
      sampling: options.sampling,
      ...(options.precision === undefined ? {} : { precision: options.precision }),
      ...(program === null ? {} : { format: program }),
      ...(options.priority === undefined ? {} : { priority: options.priority }),
      ...(options.usesPrefixes === undefined ? {} : { usesPrefixes: options.usesPrefixes }),
      ...(client === undefined ? {} : { client }),
      ...(reportsPrompt ? { promptLogprobs: options.sampling.topLogprobs ?? 0 } : {}),
    };
    const writer = new AnswerWriter(this.#text, options, continuesText, this.#now);
    const calls = options.toolUse === undefined ? null : new CallWriter();
    const events = this.#engine.generate(request, signal)[Symbol.asyncIterator]();
    let isOpen = true;
    try {
      for (let next = await events.next(); !next.done; next = await events.next()) {
        const event = next.value;
        switch (event.kind) {
          case 'prefill':
            yield event;
            break;
          case 'prompt': {
            const tokens = event.tokens.map((token) => prompt.report(token.tokenId, token.logprob, token.topLogprobs));
            yield { kind: 'prompt', tokens };
            break;
          }
          case 'token': {
            const delta = writer.push(event);
            if (delta !== null) yield* calls === null ? [delta] : calls.push(delta);
            if (!writer.isStopped && !writer.isLate) break;
            isOpen = false;
            // The engine hears that nobody wants more, and says what the answer took.
            const ended: IteratorResult<unknown, unknown> | undefined = await events.return?.();
            const usage = (ended?.value as Usage | undefined) ?? usageUntil(promptIds.length, writer.tokenCount);
            yield* ending(writer, calls, 'length', usage);
            return;
          }
          case 'finish':
            isOpen = false;
            yield* ending(writer, calls, event.reason, event.usage);
            return;
          default:
            event satisfies never;
        }
      }
      isOpen = false;
      throw new MoestroError('ENGINE_CLOSED', 'Cannot finish the answer: the engine ended it without a reason');
    } finally {
      if (isOpen) await events.return?.();
    }
  }

  /** What the answer has to be, compiled; null where nothing is asked. */
  #programOf({ format, toolUse }: AnswerOptions): FormatProgram | null {
    if (format === undefined && toolUse === undefined) return null;
    const { param, ...source } = format ?? { param: null };
    const chosen = toolUse?.choice;
    const named = typeof chosen === 'object' ? chosen.name : null;
    const tools = toolUse?.tools.filter(({ name }) => named === null || name === named) ?? [];
    const grammar =
      toolUse === undefined
        ? null
        : {
            marks: HERMES,
            tools: tools.map(({ name, parameters }) => ({ name, parameters })),
            isOptional: chosen === 'auto',
            // A call of one tool that was asked for by name is one call.
            callsMax: toolUse.parallel && named === null ? (toolUse.callsMax ?? CALLS_MAX) : 1,
          };
    try {
      return this.#compiler.compile('kind' in source ? source : null, grammar);
    } catch (error) {
      if (!(error instanceof MoestroError)) throw error;
      const { tool } = error.details;
      const place = toolUse?.tools.find(({ name }) => name === tool)?.param ?? param ?? 'tools';
      throw new MoestroError(error.code, error.message, { ...error.details, param: place }, error);
    }
  }

  /** Refuses at once what cannot fit however it is cut: tokenising megabytes would hold up everybody else. */
  #checkCharacters(characters: number, param: string): void {
    if (characters <= this.#charactersMax) return;
    throw new MoestroError(
      'CONTEXT_LENGTH_EXCEEDED',
      `Cannot take a prompt of ${characters} characters: the context of ${this.info.contextLength} tokens never holds more than ${this.#charactersMax}`,
      { found: characters, needed: this.#charactersMax, param },
    );
  }

  #checked(ids: readonly number[], param: PromptField): readonly number[] {
    if (ids.length === 0) {
      throw new MoestroError('INVALID_REQUEST', 'Cannot answer an empty prompt: needed at least one token', { param });
    }
    const most = this.info.contextLength - 1;
    if (ids.length > most) {
      throw new MoestroError(
        'CONTEXT_LENGTH_EXCEEDED',
        `Cannot take a prompt of ${ids.length} tokens: needed at most ${most}, the context of ${this.info.contextLength} less one token of answer`,
        { found: ids.length, needed: most, param },
      );
    }
    return ids;
  }
}

interface CompiledJob {
  readonly job: Job;
  readonly program: FormatProgram | null;
}
