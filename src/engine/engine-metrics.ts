/** What an engine tells of itself, beside its answers: counters since start unless said otherwise, and its memory. Plain data. */
import type { Gear } from './types.js';

export interface EngineMetrics {
  readonly tokensPrefilled: number;
  readonly tokensDecoded: number;
  readonly steps: number;
  readonly hits: number;
  readonly misses: number;
  /** Bytes of the planes that were missed, and bytes the disk delivered. */
  readonly missedBytes: number;
  readonly bytesRead: number;
  readonly readsInFlight: number;
  readonly readErrors: number;
  readonly prefetch: PrefetchMetrics;
  /** Of `--record-trace`; null where nothing is recorded. */
  readonly recording: RecordingMetrics | null;
  readonly stallMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
  /** Now: bit slots in use and in all; experts resident at each number of bits. */
  readonly slotsUsed: number;
  readonly slotsTotal: number;
  readonly residentByBits: Readonly<Record<string, number>>;
  readonly sequencesOpen: number;
  readonly sequencesQueued: number;
  /** In the hands of sequences; those that are only kept are counted by `prefix`. */
  readonly kvBlocksUsed: number;
  readonly kvBlocksTotal: number;
  readonly prefix: PrefixMetrics;
  /** (token, expert) pairs computed, and the sum of their bits. */
  readonly pairs: number;
  readonly pairBits: number;
  readonly requestsCancelled: number;
  readonly budgetBytes: number;
  readonly rssBytes: number;
  readonly peakRssBytes: number;
  /** Null for an engine over a fixed number of slots. */
  readonly memory: MemoryState | null;
  /** What a missing bit costs in mode `elastic` now: 0 buys all, 1 none above the floors. */
  readonly elasticPrice: number;
  readonly gears: GearMetrics;
  /** Of decode steps only: for figures per token. */
  readonly decode: {
    readonly hits: number;
    readonly misses: number;
    readonly missedBytes: number;
    readonly bytesRead: number;
    readonly stallMs: number;
  };
  /** Milliseconds of decode steps spent outside native calls. */
  readonly decodeScriptMs: number;
}

/** Keys and values kept for later requests, since start; bytes kept and stored as of now. */
export interface PrefixMetrics {
  /** Prompts looked up, and those of which something was known. */
  readonly lookups: number;
  readonly hits: number;
  /** Tokens that did not have to be computed, and of them those of blocks that came from disk. */
  readonly tokensReused: number;
  readonly tokensRestored: number;
  readonly evictions: number;
  readonly keptBytes: number;
  readonly storedBytes: number;
  readonly storeWrittenBytes: number;
  readonly storeReadBytes: number;
  readonly storeEvictions: number;
  /** Files that were not what had been written. */
  readonly storeRejected: number;
}

/** Reads on a guess, since start. A byte is useful, wasted, or of an expert that may still be used. */
export interface PrefetchMetrics {
  readonly reads: number;
  readonly bytes: number;
  readonly usefulBytes: number;
  /** Of the useful ones: of reads still on their way when their layer wanted them. */
  readonly lateBytes: number;
  readonly wastedBytes: number;
  /** Why none are made at present; null while they are, or are not wanted. */
  readonly offReason: string | null;
}

export interface GearMetrics {
  readonly gear: Gear;
  /** Changes of gear, turns that began, and the longest that a stream waited for its next step. */
  readonly switches: number;
  readonly turns: number;
  readonly gapMaxMs: number;
}

/** Of `--record-trace`, since start. */
export interface RecordingMetrics {
  readonly steps: number;
  /** Steps that were left out because the disk did not keep up. */
  readonly droppedSteps: number;
  /** Bytes that are in the file. */
  readonly bytes: number;
  /** Why recording ended; null while it goes on. */
  readonly failure: string | null;
}

/** Where the memory is now, and what was done to keep it there. */
export interface MemoryState {
  /** As configured, and as far as the machine allows: less only for `reason`. */
  readonly budgetBytes: number;
  readonly allowedBytes: number;
  readonly reason: string | null;
  /** The least budget that holds what is open now. */
  readonly floorBytes: number;
  readonly rssBytes: number;
  /** False while memory beyond the budget is still being given back. */
  readonly isSettled: boolean;
  /** The ledger: bytes by part; KV as far as it was ever written. Their sum is what is allowed. */
  readonly parts: Readonly<Record<'dense' | 'kv' | 'experts' | 'scratch' | 'runtime' | 'unused', number>>;
  /** KV blocks that may be in use. */
  readonly kvBlocks: number;
  /** Since start: times the number of slots changed, planes and experts dropped for it, bytes given back and moved. */
  readonly resizes: number;
  readonly shedPlanes: number;
  readonly shedExperts: number;
  readonly givenBackBytes: number;
  readonly movedBytes: number;
}

/** The moment, for people who watch. */
export interface EngineLive {
  /** MoE layers, experts of each. */
  readonly layers: number;
  readonly experts: number;
  /** Bits of each expert that are in memory, by expert key. */
  readonly residentBits: Uint8Array;
  readonly metrics: EngineMetrics;
}
