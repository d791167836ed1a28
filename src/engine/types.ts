/**
 * What crosses the border of the engine: token ids in, token ids out, plain data all of it (it travels between
 * threads). Text is not known here.
 */
import type { FormatProgram } from '../constrain/program.js';
import type { LevelPolicy } from '../experts/precision.js';
import type { IoBackend, Isa, KvType, Level } from '../native/binding.js';
import type { EngineLive, EngineMetrics, MemoryState } from './engine-metrics.js';

export type Mode = 'exact' | 'routed' | 'elastic';

/** Where keys and values of past requests are kept. */
export interface PrefixConfig {
  /** Memory of the KV cache that they may take; null for half of it. */
  readonly memoryBytes: number | null;
  /** Null keeps them in memory only. */
  readonly directory: string | null;
  readonly diskBytes: number;
  readonly dailyBytes: number;
}

/** "on" speculates whether it pays or not: for experiments. */
export type PrefetchMode = 'auto' | 'on' | 'off';

/** Who shares the steps of decoding: all streams, or some of them for a turn. See gear-policy.ts. */
export type Gear = 'joint' | 'burst';

/** "auto" measures which is faster; the other two fix it. */
export type GearMode = 'auto' | Gear;

/** At how many bits one request runs; what is absent falls to the engine's configuration. */
export interface Precision {
  readonly mode?: Mode;
  /** Mean bits a weight that `routed` aims at, and below which `elastic` never falls. */
  readonly bits?: number;
  /** Exactly these levels in place of mode and bits: for measurements. Levels are of the model, up to the full one. */
  readonly policy?: LevelPolicy;
}

/** One validated, frozen configuration; made by src/config.ts. */
export interface EngineConfig {
  /** The `.moe` directory. */
  readonly modelPath: string;
  /** Bytes of memory the whole process may take; null for what the machine or its cgroup leaves, less a margin. */
  readonly budgetBytes: number | null;
  readonly threads: number;
  readonly isa: Isa | null;
  /** The full level; null for the model's default. */
  readonly level: Level | null;
  readonly mode: Mode;
  /** Mean bits of requests that name none, see Policies; null for the default of the mode. */
  readonly meanBits: number | null;
  /** Tokens a second that `elastic` holds for each answer where it can; null for the least waiting worth its bits. */
  readonly targetTps: number | null;
  /** Fixes the price of `elastic`, 0 to 1, in place of its governor: measurements only. */
  readonly elasticPrice?: number;
  /** Eviction by least recent use in place of the shipped rule: measurements only. */
  readonly evictsLru?: boolean;
  /** Positions of one sequence at most; null for what the budget affords up to the model's own. */
  readonly contextLength: number | null;
  readonly kvType: KvType;
  /** Null or absent: nothing is kept for later requests. */
  readonly prefix?: PrefixConfig | null;
  /** Tokens of one prefill step at most. */
  readonly chunkTokens: number;
  /** Sequences open at once, null for what suits the memory (memory-plan.ts); requests waiting beyond them. */
  readonly maxSequences: number | null;
  readonly maxQueued: number;
  /** Who shares the steps of decoding, and the longest a stream should wait for the turns of others. */
  readonly gear: GearMode;
  readonly tokenGapMs: number;
  readonly io: { readonly backend: IoBackend; readonly queueDepth: number; readonly direct: boolean };
  /** Reads on a guess before the router has chosen; "auto" measures whether they pay and stops where they do not. */
  readonly prefetch: PrefetchMode;
  /** Expert slots at most, whatever the budget affords (fewer slots for experiments); null for no cap. */
  readonly maxResidentExperts: number | null;
  /** Recorded routing to use instead of the router's choice: benchmarks only. */
  readonly routingTrace: string | null;
  /** Beside it: every stream's experts are others, so that streams are unlike. */
  readonly turnsTrace?: boolean;
  /** File that routing is written to as the engine runs (experts/recorded-steps.ts); null for none. */
  readonly recordTrace: string | null;
  /** Fault injection for tests: byte ranges of experts.bin whose reads fail with EIO. */
  readonly faultRanges?: readonly (readonly [number, number])[];
}

export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 for off. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  /** 1 for off; over the last `penaltyWindow` tokens, prompt included. */
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly penaltyWindow: number;
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** null draws one. */
  readonly seed: number | null;
  /** Alternatives to report per token, 0..20; null for no logprobs. */
  readonly topLogprobs: number | null;
}

export const GREEDY: Sampling = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  penaltyWindow: 64,
  logitBias: [],
  seed: null,
  topLogprobs: null,
};

/** Who goes first where not all can run at once. */
export type Priority = 'high' | 'normal' | 'low';

export interface GenerateRequest {
  readonly promptIds: readonly number[];
  /** null: until end of sequence or the end of the context. */
  readonly maxTokens: number | null;
  /** Tokens that end the answer; not emitted. */
  readonly stopTokenIds: readonly number[];
  /** Tokens before which none of those is drawn, unless its format leaves nothing else; 0 when absent. */
  readonly minTokens?: number;
  readonly sampling: Sampling;
  readonly precision?: Precision;
  /** What the answer has to be; needs an engine that was given the bytes of its tokens. */
  readonly format?: FormatProgram;
  /** "normal" when absent. Requests of one priority share places fairly between clients; absent, a client like any other. */
  readonly priority?: Priority;
  /** Whether it takes what is known of its prompt and leaves what it computed to others; true when absent. */
  readonly usesPrefixes?: boolean;
  readonly client?: string;
  /** Report the prompt's own tokens too, with so many alternatives each, 0..20; not when absent. */
  readonly promptLogprobs?: number;
}

export interface TokenLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  /** Mean bits a weight over all (token, expert) pairs, and the share of routing mass below the full level. */
  readonly meanBits: number;
  readonly shareBelowFullLevel: number;
  readonly bytesRead: number;
  readonly stallMs: number;
  readonly queueMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
}

/** A token that is known, and what the model thought of it. */
export interface PromptToken extends TokenLogprob {
  readonly topLogprobs: readonly TokenLogprob[];
}

export type EngineEvent =
  /** Tokens of the prompt that are computed or were known, of so many, and those that were known. */
  | { readonly kind: 'prefill'; readonly done: number; readonly total: number; readonly cached: number }
  /** The next tokens of the prompt, from its second one on: nothing foretells the first. Only with `promptLogprobs`. */
  | { readonly kind: 'prompt'; readonly tokens: readonly PromptToken[] }
  | {
      readonly kind: 'token';
      readonly tokenId: number;
      readonly logprob: number | null;
      readonly topLogprobs: readonly TokenLogprob[];
    }
  | { readonly kind: 'finish'; readonly reason: 'stop' | 'length'; readonly usage: Usage };

/** Where the memory goes, in bytes; `total` is the budget. */
export interface MemoryPlan {
  readonly total: number;
  readonly dense: number;
  readonly kv: number;
  readonly experts: number;
  readonly scratch: number;
  /** Node.js, the JavaScript heaps, the tokenizer. */
  readonly runtime: number;
  readonly unused: number;
  readonly contextLength: number;
  /** Sequences open at once. */
  readonly maxSequences: number;
  readonly kvBlocks: number;
  readonly chunkTokens: number;
  /** Experts that fit whole at the full level, of all. */
  readonly residentExperts: number;
  readonly expertCount: number;
}

export interface EngineInfo {
  readonly modelName: string;
  readonly family: string;
  readonly level: Level;
  readonly mode: Mode;
  readonly isa: Isa;
  readonly threads: number;
  readonly ioBackend: string;
  readonly ioDirect: boolean;
  readonly contextLength: number;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly memory: MemoryPlan;
  /** Where prefixes of past requests are kept; null when none are. A folder that cannot be used is null too. */
  readonly prefix: {
    readonly keptBytesMax: number;
    readonly directory: string | null;
    readonly diskBytes: number;
  } | null;
}

export interface EvaluateOptions {
  /** The first position whose logits are wanted; 0 when absent. */
  readonly from?: number;
  readonly precision?: Precision;
}

/** One vector for a text: the mean over its tokens, or the state of its last one, which has seen all others. */
export type Pooling = 'mean' | 'last';

export interface EmbedOptions {
  readonly pooling: Pooling;
  readonly precision?: Precision;
}

/** Bin i counts weights from 2^(-(i + 1) / 4) up to 2^(-i / 4), the last one all that are less. */
export const WEIGHT_BINS = 96;
export const WEIGHT_BINS_PER_OCTAVE = 4;

/** Logits that evaluations under way hold: 880 positions of a vocabulary of 152,000 tokens. */
export const EVALUATION_BYTES_MAX = 512 << 20;

/** The engine as other threads see it; made by `startEngine` in client.ts. */
export interface EngineClient {
  readonly info: EngineInfo;
  /**
   * Tokens of one answer as they come. Ending the iteration early (break, or `signal`) frees the sequence within one step;
   * `return()` of its iterator resolves to the {@link Usage} so far, of the tokens that were read, or to undefined when
   * the engine had nothing to say any more. Nothing runs before the first `next()`.
   * Throws CONTEXT_LENGTH_EXCEEDED, QUEUE_FULL, EXPERT_READ_FAILED, CANCELLED, ENGINE_CLOSED.
   */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /**
   * Teacher-forced: logits after each of `tokenIds` from index `from` on, as Float32Array [tokenIds.length - from,
   * vocabSize], for eval. One sequence, at most contextLength tokens. The logits are the caller's memory and no part of
   * the budget; those of evaluations under way take {@link EVALUATION_BYTES_MAX} at most, further ones wait.
   * Throws INVALID_REQUEST when one asks for more, and as `generate`.
   */
  evaluate(tokenIds: readonly number[], options?: EvaluateOptions): Promise<Float32Array>;
  /**
   * The final normed hidden states of a text as one vector, Float32Array [hiddenSize], not scaled to unit length. The
   * text takes part in steps as a prompt does; `signal` frees it within one step. Throws as `generate`.
   */
  embed(tokenIds: readonly number[], options: EmbedOptions, signal?: AbortSignal): Promise<Float32Array>;
  /**
   * Sums of input products of every expert since `collectImportance(true)`, for calibration: gateUp [hiddenSize, width],
   * down [expertSize, width], as NativeEngine.collectImportance tells.
   */
  collectImportance(on: boolean, width?: number): Promise<void>;
  importance(layer: number, expert: number): Promise<{ tokens: number; gateUp: Float32Array; down: Float32Array }>;
  /** Routing weights since `collectImportance(true)`, counted by {@link WEIGHT_BINS}: [MoE layers, WEIGHT_BINS]. */
  routingWeights(): Promise<Float64Array>;
  metrics(): Promise<EngineMetrics>;
  /**
   * Sets the budget while answers go on, or asks for the state of the memory. Memory is given back within steps after
   * the reply; exact answers stay as they are. Throws BUDGET_BELOW_FLOOR with the floor, and nothing has changed.
   */
  memory(budgetBytes?: number): Promise<MemoryState>;
  live(): Promise<EngineLive>;
  close(): Promise<void>;
}
