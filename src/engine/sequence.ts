/** One request's tokens and where it stands: waiting, running, done. Made by sequence-maker.ts, owned by engine.ts. */
import type { Matcher } from '../constrain/matcher.js';
import type { MoestroError } from '../errors.js';
import type { LevelPolicy } from '../experts/precision.js';
import type { Evaluation } from './evaluation.js';
import type { BlockTable } from './kv-blocks.js';
import type { PooledStates } from './pooled-states.js';
import type { PrefixNode } from './prefix/prefix-index.js';
import type { Restoring } from './prefix/prefix-reads.js';
import type { Sampler } from './sampler.js';
import type { Runnable } from './scheduler.js';
import type { StepReport } from './step-report.js';
import type { Priority, Usage } from './types.js';

/** Token events a client may leave unread before its sequence waits: a slow reader takes no more than that of memory. */
export const UNREAD_TOKENS_MAX = 256;

export interface SequenceOptions {
  readonly id: number;
  readonly promptIds: readonly number[];
  readonly table: BlockTable;
  readonly policy: LevelPolicy;
  /** Tokens to generate at most. */
  readonly maxTokens: number;
  readonly stopTokenIds: ReadonlySet<number>;
  /** Tokens before which none of those is drawn. */
  readonly minTokens?: number | undefined;
  /** Null for a sequence that only evaluates its prompt. */
  readonly sampler: Sampler | null;
  /** Where the answer stands in its format; null where it has none. */
  readonly matcher: Matcher | null;
  /** Whether tokens that are the only way on may be written without logits of their own. */
  readonly mayJump: boolean;
  /** Null for a sequence that generates. */
  readonly evaluation: Evaluation | null;
  /** Of a sequence that only wants its prompt's hidden states. */
  readonly pooled?: PooledStates;
  /** Alternatives to report for each token of the prompt; nothing is reported when absent. */
  readonly promptLogprobs?: number | undefined;
  readonly submittedMs: number;
  readonly priority?: Priority | undefined;
  readonly client?: string | undefined;
  /** As GenerateRequest.usesPrefixes. */
  readonly usesPrefixes?: boolean | undefined;
}

const RANKS: Readonly<Record<Priority, number>> = { high: 1, normal: 0, low: -1 };

export class Sequence implements Runnable {
  readonly id: number;
  /** Prompt and answer; the newest has no KV entry yet. */
  readonly tokens: number[];
  readonly promptLength: number;
  readonly table: BlockTable;
  readonly policy: LevelPolicy;
  readonly maxTokens: number;
  readonly stopTokenIds: ReadonlySet<number>;
  readonly minTokens: number;
  readonly sampler: Sampler | null;
  readonly matcher: Matcher | null;
  readonly mayJump: boolean;
  readonly evaluation: Evaluation | null;
  readonly pooled: PooledStates | null;
  readonly promptLogprobs: number | null;
  /** Higher goes first; places of one rank are shared fairly between clients. */
  readonly rank: number;
  readonly client: string;
  readonly usesPrefixes: boolean;
  /** Tokens of the prompt that were reported; what is computed anew is not reported anew. */
  promptReported = 1;
  /** Tokens whose keys and values are in the KV cache. */
  computed = 0;
  /** Tokens of the prompt that were not computed but found, when it first ran; null before. */
  cachedTokens: number | null = null;
  /** The last of its whole blocks that is kept for others. Owned by prefix-cache.ts. */
  lastKept: PrefixNode | null = null;
  /** Another sequence that computes tokens which this one begins with too; it waits for them. Owned by prefix-cache.ts. */
  ahead: { readonly sequence: Sequence; readonly common: number } | null = null;
  /** What it waits for from the store of prefixes. Owned by prefix-cache.ts. */
  restoring: Restoring | null = null;
  lastStep = -1;
  /** Milliseconds; see gears.ts. */
  lastRunMs = 0;
  /** Token events sent and not yet acknowledged. */
  unread = 0;
  failure: MoestroError | null = null;

  bits = 0;
  pairs = 0;
  mass = 0;
  massBelow = 0;
  bytesRead = 0;
  stallMs = 0;
  readonly #submittedMs: number;
  #admittedMs: number | null = null;
  #firstTokenMs: number | null = null;

  constructor(options: SequenceOptions) {
    this.id = options.id;
    this.tokens = [...options.promptIds];
    this.promptLength = options.promptIds.length;
    this.table = options.table;
    this.policy = options.policy;
    this.maxTokens = options.maxTokens;
    this.stopTokenIds = options.stopTokenIds;
    this.minTokens = options.minTokens ?? 0;
    this.sampler = options.sampler;
    this.matcher = options.matcher;
    this.mayJump = options.mayJump;
    this.evaluation = options.evaluation;
    this.pooled = options.pooled ?? null;
    this.promptLogprobs = options.promptLogprobs ?? null;
    this.rank = RANKS[options.priority ?? 'normal'];
    this.client = options.client ?? '';
    this.usesPrefixes = options.usesPrefixes ?? true;
    this.#submittedMs = options.submittedMs;
  }

  get pending(): number {
    const waits = this.ahead !== null || this.restoring !== null || this.unread >= UNREAD_TOKENS_MAX;
    return waits ? 0 : this.tokens.length - this.computed;
  }

  get generated(): number {
    return this.tokens.length - this.promptLength;
  }

  /** One token at a time, of its own making. */
  get isDecoding(): boolean {
    return this.generated > 0 && this.tokens.length - this.computed === 1;
  }

  /** Its blocks are gone: it computes all of its tokens again, which gives the same keys and values. */
  startOver(): void {
    this.computed = 0;
    this.lastKept = null;
    this.ahead = null;
    this.restoring = null;
  }

  admitted(nowMs: number): void {
    this.cachedTokens ??= this.computed;
    this.#admittedMs ??= nowMs;
  }

  /**
   * What a step did for it.
   *
   * @param report of the step; `row` is its place in the batch.
   * @param count tokens of its own in the batch; they are not computed where it failed.
   * @param bytesRead its share of what the step read.
   */
  ran(step: number, report: StepReport, row: number, count: number, bytesRead: number): void {
    this.lastStep = step;
    this.bits += report.bits[row]!;
    this.pairs += report.pairs[row]!;
    this.mass += report.mass[row]!;
    this.massBelow += report.massBelow[row]!;
    this.bytesRead += bytesRead;
    this.stallMs += report.stallMs;
    this.failure = report.failures[row]!;
    if (this.failure === null) this.computed += count;
  }

  sampled(nowMs: number): void {
    this.#firstTokenMs ??= nowMs;
  }

  usage(nowMs: number): Usage {
    const admitted = this.#admittedMs ?? nowMs;
    const first = this.#firstTokenMs ?? nowMs;
    return {
      promptTokens: this.promptLength,
      completionTokens: this.generated,
      cachedTokens: this.cachedTokens ?? 0,
      meanBits: this.pairs > 0 ? this.bits / this.pairs : 0,
      shareBelowFullLevel: this.mass > 0 ? this.massBelow / this.mass : 0,
      bytesRead: Math.round(this.bytesRead),
      stallMs: this.stallMs,
      queueMs: admitted - this.#submittedMs,
      prefillMs: first - admitted,
      decodeMs: nowMs - first,
    };
  }
}
