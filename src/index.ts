/**
 * Moestro as a library:
 *
 *     await using model = await loadModel('models/pocket.moe', { budget: '512MiB' });
 *     for await (const delta of model.chat('What is the capital of France?')) process.stdout.write(delta.text);
 *     const answer = await model.chat('And of Peru?').text();
 */
import type { AnswerEvent, TokenReport } from './answer/types.js';
import { engineConfig, samplingConfig } from './config.js';
import type { EngineMetrics, MemoryState } from './engine/engine-metrics.js';
import type { EngineInfo, Mode, Priority, Sampling, Usage } from './engine/types.js';
import { MoestroError } from './errors.js';
import { precisionAsked, type TextGenerator } from './generate.js';
import { openModel } from './open-model.js';
import type { ChatMessage } from './text/types.js';

export { ERRORS, type ErrorCode, MoestroError } from './errors.js';
export type { ChatMessage, EngineInfo, EngineMetrics, MemoryState, Mode, Priority, Sampling, TokenReport, Usage };

/** As the flags of `moestro serve`, under the same checks; what is absent falls to MOESTRO_* and the defaults. */
export interface LoadOptions {
  /** Memory of the whole process: bytes, "8GiB", "60%" or "auto". */
  readonly budget?: number | string;
  readonly mode?: Mode;
  /** Bits a weight that mode "routed" aims at in the mean and "elastic" has at least, 2 to 8. */
  readonly meanBits?: number;
  /** Tokens a second that mode "elastic" holds for each answer where it can. */
  readonly targetTps?: number;
  readonly level?: 2 | 3 | 4 | 8;
  readonly context?: number;
  readonly threads?: number;
  readonly kv?: 'f16' | 'int8';
  readonly chunk?: number;
  readonly maxSequences?: number;
  readonly maxQueued?: number;
  readonly gear?: 'auto' | 'joint' | 'burst';
  /** Milliseconds that an answer waits at most for the turns of others. */
  readonly tokenGap?: number;
  readonly isa?: 'scalar' | 'neon' | 'avx2' | 'avx512' | 'avx512vbmi' | 'amx';
  readonly io?: 'automatic' | 'io_uring' | 'pread';
  readonly queueDepth?: number;
  readonly directIo?: boolean;
  readonly prefetch?: 'auto' | 'on' | 'off';
  readonly maxResidentExperts?: number;
  /** Keep what was computed of past prompts for those that begin alike; on unless told otherwise. */
  readonly prefixCache?: boolean;
  readonly prefixMemory?: string | number;
  /** A folder in which that outlives the process; memory only when absent. */
  readonly prefixDir?: string;
  readonly prefixDisk?: string | number;
  readonly prefixDailyWrites?: string | number;
  /** File that routing is written to, for `moestro replay`. */
  readonly recordTrace?: string;
}

export interface AnswerOptions extends Partial<Sampling> {
  readonly maxTokens?: number;
  readonly stop?: string | readonly string[];
  /** Tokens that end the answer, beside the model's own. */
  readonly stopTokenIds?: readonly number[];
  /** Tokens before which nothing of these ends it. */
  readonly minTokens?: number;
  readonly mode?: Mode;
  /** As `meanBits` of {@link LoadOptions}, for this answer. Named alone, it means mode "routed". */
  readonly meanBits?: number;
  /** Who goes first where not all answers can run at once. */
  readonly priority?: Priority;
  /** False: it neither takes what is known of its prompt nor leaves what it computed to others. */
  readonly prefixCache?: boolean;
  /** Ends the answer within one step; the iteration then throws CANCELLED. */
  readonly signal?: AbortSignal;
  /** Extra variables for the model's chat template. */
  readonly templateKwargs?: Readonly<Record<string, unknown>>;
}

export interface Delta {
  readonly text: string;
  /** Filled when `topLogprobs` is set. */
  readonly tokens: readonly TokenReport[];
}

export interface AnswerResult {
  readonly text: string;
  readonly finishReason: 'stop' | 'length' | 'toolCalls';
  readonly usage: Usage;
}

/** One answer. It starts when it is iterated, or when `text()` or `result()` is called, and does so once. */
export interface Answer extends AsyncIterable<Delta> {
  text(): Promise<string>;
  result(): Promise<AnswerResult>;
}

export interface Model extends AsyncDisposable {
  readonly info: EngineInfo;
  /** A question, or a conversation, answered by the model's chat template. */
  chat(messages: string | readonly ChatMessage[], options?: AnswerOptions): Answer;
  /** What follows a text, without a template. */
  complete(prompt: string, options?: AnswerOptions): Answer;
  metrics(): Promise<EngineMetrics>;
  /** Where the memory is now; with a number of bytes, the budget from now on, while answers go on. Throws BUDGET_BELOW_FLOOR. */
  memory(budgetBytes?: number): Promise<MemoryState>;
  close(): Promise<void>;
}

/**
 * Loads a `.moe` directory and starts its engine on a thread of its own.
 *
 * @throws {MoestroError} INVALID_CONFIG, MODEL_INVALID, BUDGET_BELOW_FLOOR and others of docs/errors.md.
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<Model> {
  const opened = await openModel(engineConfig(path, { ...options }), samplingConfig().sampling);
  const { generator } = opened;
  return {
    info: generator.info,
    chat: (messages, answerOptions = {}) => {
      const conversation = typeof messages === 'string' ? [{ role: 'user', content: messages }] : messages;
      const prompt = () => generator.prompts.fromChat(conversation, { kwargs: answerOptions.templateKwargs ?? {} });
      return new GeneratedAnswer(generator, prompt, false, answerOptions);
    },
    complete: (text, answerOptions = {}) =>
      new GeneratedAnswer(generator, () => generator.prompts.fromText(text), true, answerOptions),
    metrics: () => generator.metrics(),
    memory: (budgetBytes) => generator.memory(budgetBytes),
    close: () => opened.close(),
    [Symbol.asyncDispose]: () => opened.close(),
  };
}

class GeneratedAnswer implements Answer {
  #generator: TextGenerator;
  #prompt: () => readonly number[];
  #continuesText: boolean;
  #options: AnswerOptions;
  #hasStarted = false;
  #finish: Extract<AnswerEvent, { kind: 'finish' }> | undefined;

  constructor(
    generator: TextGenerator,
    prompt: () => readonly number[],
    continuesText: boolean,
    options: AnswerOptions,
  ) {
    this.#generator = generator;
    this.#prompt = prompt;
    this.#continuesText = continuesText;
    this.#options = options;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Delta, void, void> {
    if (this.#hasStarted) {
      throw new MoestroError('INVALID_ARGUMENT', 'Cannot read an answer twice: call chat() or complete() again');
    }
    this.#hasStarted = true;
    const {
      maxTokens = null,
      stop = [],
      stopTokenIds = [],
      minTokens = 0,
      mode,
      meanBits,
      priority,
      prefixCache = true,
      signal,
      templateKwargs: _,
      ...drawn
    } = this.#options;
    const options = {
      maxTokens,
      stop: [stop].flat(),
      stopTokenIds: this.#generator.prompts.checkIds(stopTokenIds, 'stopTokenIds'),
      minTokens,
      usesPrefixes: prefixCache,
      sampling: { ...this.#generator.defaults, ...drawn },
      ...(priority === undefined ? {} : { priority }),
      ...precisionAsked(mode, meanBits),
    };
    // `start` wants a signal of its own: aborted when the caller leaves the loop.
    const left = new AbortController();
    const either = signal === undefined ? left.signal : AbortSignal.any([left.signal, signal]);
    try {
      const job = { promptIds: this.#prompt(), options, continuesText: this.#continuesText };
      for await (const { value } of this.#generator.start([job], either)) {
        if (value.kind === 'delta') yield { text: value.text, tokens: value.tokens };
        else if (value.kind === 'finish') this.#finish = value;
      }
    } finally {
      left.abort();
    }
  }

  async text(): Promise<string> {
    let text = '';
    for await (const delta of this) text += delta.text;
    return text;
  }

  async result(): Promise<AnswerResult> {
    const text = await this.text();
    if (this.#finish === undefined) throw new MoestroError('ENGINE_CLOSED', 'Cannot finish the answer: it has no end');
    return { text, finishReason: this.#finish.reason, usage: this.#finish.usage };
  }
}
