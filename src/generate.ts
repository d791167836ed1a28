/**
 * Messages to tokens to the engine to text: the one place where text meets tokens. Callers above (HTTP, CLI, library)
 * see text only; the engine below sees token ids only.
 */

import { randomBytes } from 'node:crypto';
import { FormatCompiler, type FormatSource } from './constrain/format.js';
import type { FormatProgram } from './constrain/program.js';
import { withToolPrompt } from './constrain/tool-prompt.js';
import { type ToolEvent, ToolReader } from './constrain/tool-reader.js';
import { HERMES } from './constrain/tool-rules.js';
import type {
  EngineClient,
  EngineInfo,
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
import { StopStrings } from './text/stop-strings.js';
import type { ChatMessage, TextModel } from './text/types.js';

export type Message = ChatMessage;
export type AnswerUsage = Usage;
export type ModelInfo = EngineInfo;
export type ModelMetrics = EngineMetrics;
export type ModelMemory = MemoryState;

/** The least logprob reported: clients choke on minus infinity and on null. */
const LOGPROB_FLOOR = -9999;

/** What the text of an answer must be, whole: checked and compiled before anything runs. */
export type Format = FormatSource & {
  /** The request's own name for it, for errors: "response_format.json_schema.schema". */
  readonly param: string;
};

export interface Tool {
  readonly name: string;
  readonly description?: string;
  /** JSON Schema of the arguments, an object. */
  readonly parameters: unknown;
  /** The request's own name for `parameters`, for errors. */
  readonly param: string;
}

/** The tools of one request. A request whose tools are switched off ("none") has none here. */
export interface ToolUse {
  readonly tools: readonly Tool[];
  /** The model's choice, at least one call, or calls of this one. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Whether one answer may hold several calls. */
  readonly parallel: boolean;
}

export interface AnswerOptions {
  /** null: until the model ends its answer or the context is full. */
  readonly maxTokens: number | null;
  /** Texts that end the answer and never stand in it. */
  readonly stop: readonly string[];
  readonly sampling: Sampling;
  readonly precision?: Precision;
  readonly format?: Format;
  /** Beside a format, an answer is either calls or in that format. */
  readonly toolUse?: ToolUse;
}

export interface Job {
  readonly promptIds: readonly number[];
  readonly options: AnswerOptions;
  /** Whether the answer goes on with the text of the prompt, so that a space before its first word belongs to it. */
  readonly continuesText?: boolean;
}

export interface ReportedToken {
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** One token of the answer with its alternatives; made only when logprobs were asked for. */
export interface TokenReport extends ReportedToken {
  /** Characters (UTF-16 units) of the answer before the token's own; the pieces of one character all begin where it does. */
  readonly begin: number;
  readonly top: readonly ReportedToken[];
}

export type AnswerEvent =
  | { readonly kind: 'prefill'; readonly done: number; readonly total: number }
  | { readonly kind: 'delta'; readonly text: string; readonly tokens: readonly TokenReport[] }
  /** A call begins; calls of an answer are counted from 0, and its arguments follow. */
  | { readonly kind: 'toolCall'; readonly call: number; readonly id: string; readonly name: string }
  /** A piece of the JSON of that call's arguments. */
  | { readonly kind: 'toolArguments'; readonly call: number; readonly text: string }
  /** `toolCalls`: the answer ended by itself and holds calls. */
  | { readonly kind: 'finish'; readonly reason: 'stop' | 'length' | 'toolCalls'; readonly usage: Usage };

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

/** Characters of a text that normalisation may turn into one: NFC joins three jamo, or a letter and its marks. */
const NORMALISED_MAX = 4;

/** Owns the count of answers under way; engine and text belong to whoever made them. */
export class TextGenerator {
  readonly info: EngineInfo;
  /** Answers under way at once at most, those that wait included. */
  readonly capacity: number;
  /** How answers are drawn where a request says nothing. */
  readonly defaults: Sampling;
  #engine: EngineClient;
  #text: TextModel;
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
  ) {
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
   * @param tools what the template is to tell the model of.
   * @throws {MoestroError} TEMPLATE_FAILED, CONTEXT_LENGTH_EXCEEDED.
   */
  promptFromChat(
    messages: readonly Message[],
    kwargs: Readonly<Record<string, unknown>> = {},
    tools: readonly Tool[] = [],
  ): readonly number[] {
    const described = tools.map(({ name, description, parameters }) => ({
      type: 'function',
      function: { name, ...(description === undefined ? {} : { description }), parameters },
    }));
    const characters = messages.reduce((sum, { content }) => sum + (content?.length ?? 0) + 1, 0);
    this.#checkCharacters(characters + (tools.length > 0 ? JSON.stringify(described).length : 0), 'messages');
    if (this.#text.knowsTools ?? true) {
      return this.#checked(this.#text.encodeChat(messages, { kwargs, tools: described }), 'messages');
    }
    const told = withToolPrompt(messages, described, HERMES);
    return this.#checked(this.#text.encodeChat(told, { kwargs }), 'messages');
  }

  /** Plain text to prompt ids; special tokens written in it count as such. Throws CONTEXT_LENGTH_EXCEEDED. */
  promptFromText(text: string): readonly number[] {
    this.#checkCharacters(text.length, 'prompt');
    return this.#checked(this.#text.encode(text, { special: true }), 'prompt');
  }

  /** Ids as they are. Throws INVALID_REQUEST when one is outside of the vocabulary, CONTEXT_LENGTH_EXCEEDED. */
  promptFromIds(ids: readonly number[]): readonly number[] {
    const outside = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.vocabSize));
    if (outside !== undefined) {
      const needed = `needed whole numbers from 0 to ${this.vocabSize - 1}`;
      throw new MoestroError('INVALID_REQUEST', `Cannot use the token id ${outside} of the prompt: ${needed}`, {
        param: 'prompt',
      });
    }
    return this.#checked(ids, 'prompt');
  }

  /** Ids back to text: for `echo`. */
  textOf(ids: readonly number[]): string {
    return this.#text.decode(ids);
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
   * @returns events with the number of their job. To be iterated at once, or the signal aborted.
   * @throws {MoestroError} QUEUE_FULL, UNSUPPORTED_FORMAT, before anything has started; while iterating what the engine throws.
   */
  start(
    jobs: readonly Job[],
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly index: number; readonly value: AnswerEvent }, void, void> {
    const compiled = jobs.map((job) => ({ job, program: this.#programOf(job.options) }));
    if (this.#underWay + jobs.length > this.capacity) {
      throw new MoestroError(
        'QUEUE_FULL',
        `Cannot take the request: ${this.#underWay} answers are under way, needed room for ${jobs.length} of ${this.capacity}`,
        { found: this.#underWay, needed: this.capacity - jobs.length },
      );
    }
    this.#underWay += jobs.length;
    let held = true;
    const release = () => {
      if (held) this.#underWay -= jobs.length;
      held = false;
    };
    signal.addEventListener('abort', release, { once: true });
    return this.#run(compiled, signal, release);
  }

  async *#run(jobs: readonly CompiledJob[], signal: AbortSignal, release: () => void) {
    const left = new AbortController();
    const either = AbortSignal.any([signal, left.signal]);
    try {
      const answers = jobs.map((job) => this.#answer(job, either));
      yield* mergeAsync(answers, () => left.abort());
    } finally {
      signal.removeEventListener('abort', release);
      release();
    }
  }

  async *#answer(
    { job: { promptIds, options, continuesText = false }, program }: CompiledJob,
    signal: AbortSignal,
  ): AsyncGenerator<AnswerEvent, void, void> {
    signal.throwIfAborted();
    if (options.maxTokens === 0) {
      yield { kind: 'finish', reason: 'length', usage: usageUntil(promptIds.length, 0) };
      return;
    }
    const request: GenerateRequest = {
      promptIds,
      maxTokens: options.maxTokens,
      stopTokenIds: this.#text.eosTokenIds,
      sampling: options.sampling,
      ...(options.precision === undefined ? {} : { precision: options.precision }),
      ...(program === null ? {} : { format: program }),
    };
    const writer = new AnswerWriter(this.#text, options, continuesText);
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
          case 'token': {
            const delta = writer.push(event);
            if (delta !== null) yield* calls === null ? [delta] : calls.push(delta);
            if (writer.isStopped) {
              isOpen = false;
              // The engine hears that nobody wants more, and says what the answer took.
              const ended: IteratorResult<unknown, unknown> | undefined = await events.return?.();
              const usage = (ended?.value as Usage | undefined) ?? usageUntil(promptIds.length, writer.tokenCount);
              if (calls !== null) yield* calls.flush();
              yield { kind: 'finish', reason: calls?.reason('stop') ?? 'stop', usage };
              return;
            }
            break;
          }
          case 'finish': {
            isOpen = false;
            const rest = writer.end();
            if (rest !== null) yield* calls === null ? [rest] : calls.push(rest);
            if (calls !== null) yield* calls.flush();
            const reason = writer.isStopped ? 'stop' : event.reason;
            yield { kind: 'finish', reason: calls?.reason(reason) ?? reason, usage: event.usage };
            return;
          }
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
            isParallel: toolUse.parallel && named === null,
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

  #checked(ids: readonly number[], param: 'messages' | 'prompt'): readonly number[] {
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

/** Text of an answer that may hold calls, to events of text and calls. */
class CallWriter {
  readonly #reader = new ToolReader(HERMES);
  #call = -1;

  *push({ text, tokens }: Extract<AnswerEvent, { kind: 'delta' }>): Generator<AnswerEvent, void, void> {
    let reports = tokens;
    for (const event of this.#reader.push(text)) {
      if (event.kind !== 'text') {
        yield* this.#told(event);
        continue;
      }
      yield { kind: 'delta', text: event.text, tokens: reports };
      reports = [];
    }
    // Tokens of calls are no content; those of text whose end is held back are.
    if (reports.length > 0 && this.#call < 0) yield { kind: 'delta', text: '', tokens: reports };
  }

  *flush(): Generator<AnswerEvent, void, void> {
    for (const event of this.#reader.flush()) yield* this.#told(event);
  }

  /** Calls that are whole end an answer in a way of their own. */
  reason(reason: 'stop' | 'length'): 'stop' | 'length' | 'toolCalls' {
    return reason === 'stop' && this.#reader.calls > 0 && this.#reader.isWhole ? 'toolCalls' : reason;
  }

  *#told(event: ToolEvent): Generator<AnswerEvent, void, void> {
    switch (event.kind) {
      case 'text':
        yield { kind: 'delta', text: event.text, tokens: [] };
        break;
      case 'call':
        yield {
          kind: 'toolCall',
          call: ++this.#call,
          id: `call_${randomBytes(15).toString('base64url')}`,
          name: event.name,
        };
        break;
      case 'arguments':
        yield { kind: 'toolArguments', call: this.#call, text: event.text };
        break;
      default:
        event satisfies never;
    }
  }
}

/** One answer on its way from token ids to text: owns the detokenizer, the stop strings and the tokens held back. */
class AnswerWriter {
  isStopped = false;
  tokenCount = 0;
  #text: TextModel;
  #detokenizer;
  #stops;
  #wantsReports;
  /** Tokens not reported yet, each with where its text ends in the answer. */
  #held: { readonly report: TokenReport; readonly end: number }[] = [];
  #written = 0;
  #emitted = 0;

  constructor(text: TextModel, options: AnswerOptions, continuesText: boolean) {
    this.#text = text;
    this.#detokenizer = text.detokenizer({ continues: continuesText });
    this.#stops = options.stop.length > 0 ? new StopStrings(options.stop) : null;
    this.#wantsReports = options.sampling.topLogprobs !== null;
  }

  push(token: {
    readonly tokenId: number;
    readonly logprob: number | null;
    readonly topLogprobs: readonly { readonly tokenId: number; readonly logprob: number }[];
  }): AnswerEvent | null {
    this.tokenCount++;
    const piece = this.#detokenizer.push(token.tokenId);
    const begin = this.#written;
    this.#written += piece.length;
    if (this.#wantsReports) {
      const top = token.topLogprobs.map((other) => this.#report(other.tokenId, other.logprob));
      const report = { ...this.#report(token.tokenId, token.logprob ?? LOGPROB_FLOOR), begin, top };
      this.#held.push({ report, end: this.#written });
    }
    return this.#emit(piece);
  }

  /** What is left when the engine has ended the answer. */
  end(): AnswerEvent | null {
    const piece = this.#detokenizer.flush();
    this.#written += piece.length;
    const delta = this.#emit(piece, true);
    if (this.isStopped) return delta;
    const tokens = [...(delta?.tokens ?? []), ...this.#held.splice(0).map((held) => held.report)];
    const text = delta?.text ?? '';
    return text === '' && tokens.length === 0 ? null : { kind: 'delta', text, tokens };
  }

  #emit(piece: string, isLast = false): Extract<AnswerEvent, { kind: 'delta' }> | null {
    let text = piece;
    if (this.#stops !== null) {
      const result = this.#stops.push(piece);
      text = result.text;
      this.isStopped = result.stopped;
      if (isLast && !this.isStopped) text += this.#stops.flush();
    }
    this.#emitted += text.length;
    // A token is reported with the text it wrote; one whose text fell to a stop string is not.
    const tokens: TokenReport[] = [];
    while (this.#held.length > 0) {
      const first = this.#held[0]!;
      const isShown = first.end <= this.#emitted || (this.isStopped && first.report.begin < this.#emitted);
      if (!isShown) break;
      tokens.push(first.report);
      this.#held.shift();
    }
    return text === '' && tokens.length === 0 ? null : { kind: 'delta', text, tokens };
  }

  #report(id: number, logprob: number): ReportedToken {
    return {
      text: this.#text.tokenText(id),
      bytes: [...this.#text.tokenBytes(id)],
      logprob: Math.max(logprob, LOGPROB_FLOOR),
    };
  }
}

/** What is known of an answer without the engine's word: its tokens. The rest is NaN, which JSON writes as null. */
function usageUntil(promptTokens: number, completionTokens: number): Usage {
  return {
    promptTokens,
    completionTokens,
    cachedTokens: 0,
    meanBits: Number.NaN,
    shareBelowFullLevel: Number.NaN,
    bytesRead: Number.NaN,
    stallMs: Number.NaN,
    queueMs: Number.NaN,
    prefillMs: Number.NaN,
    decodeMs: Number.NaN,
  };
}
