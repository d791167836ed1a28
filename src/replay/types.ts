/** What a replay is told and what it tells. Plain data. */
import type { Recording } from '../experts/trace.js';

/** One cache for all layers, or one of equal size for each. */
export type Scope = 'global' | 'layer';
/**
 * `access`: each expert in file order hits or misses, and a miss takes its slot at once, be it that of an expert the same token
 * is about to use. `event`: all experts of a layer are asked for together, as an engine does; those in use keep their slots.
 */
export type Counting = 'access' | 'event';

export interface TraceToReplay {
  readonly name: string;
  readonly recording: Recording;
  readonly experts: number;
}

/** Where guesses come from: statistics of the routing itself, or the next layer's router asked early, where that is recorded. */
export type GuessSourceName = 'statistics' | 'router';
/**
 * Whether the engine's plans are replayed with its reads on a guess, and where guesses come from. `auto` asks the router where
 * it is recorded and statistics where it is not, and stops while that does not pay.
 */
export type ReplayPrefetch = 'off' | GuessSourceName | 'auto';
export const REPLAY_PREFETCH: readonly ReplayPrefetch[] = ['off', 'statistics', 'router', 'auto'];

/** Bytes read on a guess: used and there in time, used and still on their way when wanted, and never used. */
export interface SpeculatedBytes {
  readonly usefulBytes: number;
  readonly lateBytes: number;
  readonly wastedBytes: number;
}

/** What one policy made of one trace at one size. */
export interface CacheRun {
  /** Misses of each event, Uint16Array [tokens, layers]: experts that were not there, also those on their way by a guess. */
  readonly misses: Uint16Array;
  readonly slots: number;
  /** Of a run with reads on a guess: their bytes, those read on demand, and how long compute waited in all. */
  readonly speculated?: SpeculatedBytes & {
    readonly demandBytes: number;
    readonly stallMs: number;
    /** In what share of the steps that could have had guesses there were none, and why. */
    readonly off: { readonly share: number; readonly reason: string | null };
  };
}

/** What the machine is taken to do. */
export interface MachineModel {
  /** Bytes of one expert. */
  readonly expertBytes: number;
  readonly diskBytesPerMs: number;
  /** From asking to the first byte. */
  readonly diskLatencyMs: number;
  readonly queueDepth: number;
  /** Computing one layer but for its experts, before its router has chosen; and one expert. */
  readonly layerMs: number;
  readonly expertMs: number;
}

export interface ReplayRow {
  readonly trace: string;
  readonly policy: string;
  readonly prefetch: ReplayPrefetch;
  /** Whom guesses came from; null without them. */
  readonly guessSource: GuessSourceName | null;
  /** Share of the steps that could have had guesses and had none, trials of `auto` included; why it last switched itself off. */
  readonly offShare: number | null;
  readonly offReason: string | null;
  /** Share of the experts chosen that the router named when asked early; null where that is not recorded. */
  readonly earlyRecall: number | null;
  /** Percent of all experts. */
  readonly residency: number;
  /** Whole trace, from an empty cache; and the second half, with the cache warmed by the first. */
  readonly hitRate: number;
  readonly hitRateSecondHalf: number;
  /** On demand and on a guess. */
  readonly bytesPerToken: number;
  readonly stallMs: number;
  /** Of these on a guess: used in time, used but late, and not used. */
  readonly usefulBytes: number;
  readonly lateBytes: number;
  readonly wastedBytes: number;
  readonly msPerToken: number;
  readonly tokensPerSecond: number;
  readonly slots: number;
  readonly scope: Scope | 'engine';
  readonly counting: Counting;
}
