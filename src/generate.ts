/**
 * Prompts to the engine to text: with prompts.ts the one place where text meets tokens. Callers above (HTTP, CLI,
 * library) see text only; the engine below sees token ids only.
 */

import { CallWriter } from './answer/calls.js';
import { ending, usageUntil } from './answer/ending.js';
import { withReasoning } from './answer/reasoning.js';
import type { AnswerEvent, AnswerOptions, Job } from './answer/types.js';
import { AnswerWriter, PromptReporter } from './answer/writer.js';
import { FormatCompiler } from './constrain/format.js';
import type { FormatProgram } from './constrain/program.js';
import { CALLS_MAX, HERMES } from './constrain/tool-rules.js';
import type { EngineLive, EngineMetrics, MemoryState } from './engine/engine-metrics.js';
import type {
  EmbedOptions,
  EngineClient,
  EngineInfo,
  GenerateRequest,
  Mode,
  Precision,
  Sampling,
  Usage,
} from './engine/types.js';
import { MoestroError } from './errors.js';
import { mergeAsync } from './merge.js';
import { Prompts } from './prompts.js';
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

/** Texts of one request that share steps at most. */
const EMBEDDED_AT_ONCE = 8;
/** Owns the count of answers under way; engine and text belong to whoever made them. */
export class TextGenerator {
  readonly info: EngineInfo;
  readonly prompts: Prompts;
  /** Answers under way at once at most, those that wait included. */
  readonly capacity: number;
  /** How answers are drawn where a request says nothing; a reload of the configuration replaces it. */
  defaults: Sampling;
  #engine: EngineClient;
  #text: TextModel;
  /** Milliseconds, monotonic. */
  readonly #now: () => number;
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
    this.prompts = new Prompts(text, engine.info);
    this.capacity = limits.capacity;
    this.defaults = limits.defaults;
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
}

interface CompiledJob {
  readonly job: Job;
  readonly program: FormatProgram | null;
}
