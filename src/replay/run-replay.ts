/** Traces, policies and sizes in, one row for each combination out. */
import { MoestroError } from '../errors.js';
import { earlyRecall } from './early-recall.js';
import { computeMs, playTimeline, type Timeline } from './machine-model.js';
import { parsePolicy } from './policies.js';
import { holdsGuesses, recordedGuesses } from './recorded-guesses.js';
import { replayBelady } from './replay-belady.js';
import { replayCache } from './replay-cache.js';
import { replayEngine } from './replay-engine.js';
import { replaySteps, type StepsRun } from './replay-steps.js';
import type {
  CacheRun,
  Counting,
  GuessSourceName,
  MachineModel,
  ReplayPrefetch,
  ReplayRow,
  Scope,
  TraceToReplay,
} from './types.js';

/** In place of a percentage: as many slots as the engine had that recorded the trace; `default` then runs its very steps. */
export const AS_RECORDED = -1;

export interface ReplayRequest {
  readonly traces: readonly TraceToReplay[];
  readonly policies: readonly string[];
  /** Percent of all experts, or {@link AS_RECORDED}. */
  readonly residencies: readonly number[];
  /** Only the plans of the engine (`default`) can be told to read on a guess, and not {@link AS_RECORDED}: others run as "off". */
  readonly prefetches?: readonly ReplayPrefetch[];
  /** Null for what the tables of the trace are made with: see {@link customary}. */
  readonly scope: Scope | null;
  readonly counting: Counting | null;
  readonly machine: MachineModel;
  readonly onRow?: (row: ReplayRow) => void;
}

/**
 * How hit rates of a recording are usually told: where the router's order is lost, one cache for all layers, access by access in
 * file order; where ranks are known, a cache a layer, event by event.
 */
export function customary(trace: TraceToReplay): { readonly scope: Scope; readonly counting: Counting } {
  return trace.recording.isRanked ? { scope: 'layer', counting: 'event' } : { scope: 'global', counting: 'access' };
}

/** @throws {MoestroError} INVALID_CONFIG when a trace does not hold what it is to be replayed with. */
export function runReplay(request: ReplayRequest): ReplayRow[] {
  const rows: ReplayRow[] = [];
  if (request.prefetches?.includes('router') === true) request.traces.forEach(recordedGuesses);
  for (const trace of request.traces) {
    for (const policy of request.policies) {
      for (const residency of request.residencies) {
        for (const prefetch of prefetchesOf(policy, residency, request)) {
          const row = replayOne(trace, policy, residency, prefetch, request);
          request.onRow?.(row);
          rows.push(row);
        }
      }
    }
  }
  return rows;
}

function prefetchesOf(policy: string, residency: number, request: ReplayRequest): readonly ReplayPrefetch[] {
  const canGuess = parsePolicy(policy).kind === 'engine' && residency !== AS_RECORDED;
  return canGuess ? (request.prefetches ?? ['off']) : ['off'];
}

function replayOne(
  trace: TraceToReplay,
  name: string,
  residency: number,
  prefetch: ReplayPrefetch,
  request: ReplayRequest,
): ReplayRow {
  const policy = parsePolicy(name);
  const usual = customary(trace);
  const scope = request.scope ?? usual.scope;
  const counting = request.counting ?? usual.counting;
  const share = (residency === AS_RECORDED ? recordedPercent(trace) : residency) / 100;
  const { live } = trace.recording;
  const source = sourceOf(prefetch, trace);
  const steps =
    policy.kind === 'engine' && residency === AS_RECORDED && live !== undefined ? replaySteps(trace, live) : null;
  const run =
    steps ??
    (policy.kind === 'engine'
      ? replayEngine(
          trace,
          share,
          source === null ? {} : { speculates: { machine: request.machine, source, isAuto: prefetch === 'auto' } },
        )
      : policy.kind === 'belady'
        ? replayBelady(trace, share, scope)
        : replayCache(trace, share, policy, scope, counting));
  const { tokens } = trace.recording;
  const { machine } = request;
  const guessed = run.speculated ?? { usefulBytes: 0, lateBytes: 0, wastedBytes: 0 };
  const { usefulBytes, lateBytes, wastedBytes } = guessed;
  const demandBytes =
    run.speculated?.demandBytes ?? steps?.readBytes ?? missesFrom(run, trace, 0) * machine.expertBytes;
  const time = timeOf(run, trace, machine);
  return {
    trace: trace.name,
    policy: name,
    prefetch,
    guessSource: source,
    offShare: run.speculated?.off.share ?? null,
    offReason: run.speculated?.off.reason ?? null,
    earlyRecall: earlyRecall(trace.recording),
    residency: 100 * share,
    hitRate: steps === null ? hitRate(run, trace, 0) : hitRateOf(steps),
    hitRateSecondHalf: hitRate(run, trace, tokens >> 1),
    bytesPerToken: (demandBytes + usefulBytes + lateBytes + wastedBytes) / tokens,
    stallMs: time.stallMs / tokens,
    usefulBytes: usefulBytes / tokens,
    lateBytes: lateBytes / tokens,
    wastedBytes: wastedBytes / tokens,
    msPerToken: time.totalMs / tokens,
    tokensPerSecond: time.totalMs === 0 ? 0 : (1000 * tokens) / time.totalMs,
    slots: run.slots,
    scope: policy.kind === 'engine' ? 'engine' : scope,
    counting: policy.kind === 'cache' ? counting : 'event',
  };
}

function sourceOf(prefetch: ReplayPrefetch, trace: TraceToReplay): GuessSourceName | null {
  if (prefetch !== 'auto') return prefetch === 'off' ? null : prefetch;
  return holdsGuesses(trace) ? 'router' : 'statistics';
}

function timeOf(run: CacheRun, trace: TraceToReplay, machine: MachineModel): Timeline {
  if (run.speculated === undefined) return playTimeline(run, trace, machine);
  const { stallMs } = run.speculated;
  return { stallMs, totalMs: stallMs + computeMs(trace, machine) };
}

function recordedPercent({ name, recording, experts }: TraceToReplay): number {
  const { live, layers } = recording;
  if (live === undefined) {
    throw new MoestroError(
      'INVALID_CONFIG',
      `Cannot replay "${name}" at the size that was recorded: it does not say one`,
    );
  }
  const slots =
    live.steps.reduce((sum, step) => sum + step.bitSlots[0]!, 0) / live.steps.length / live.header.fullLevel;
  return Math.min(100, (100 * slots) / (layers * experts));
}

/** Experts counted once a layer and step, as the engine counts them. */
function hitRateOf({ hits, misses }: StepsRun): number {
  const missed = misses.reduce((sum, count) => sum + count, 0);
  return hits / Math.max(1, hits + missed);
}

function missesFrom(run: CacheRun, trace: TraceToReplay, token: number): number {
  let misses = 0;
  for (let at = token * trace.recording.layers; at < run.misses.length; ++at) misses += run.misses[at]!;
  return misses;
}

function hitRate(run: CacheRun, trace: TraceToReplay, fromToken: number): number {
  const { tokens, layers, topK } = trace.recording;
  const accesses = (tokens - fromToken) * layers * topK;
  return accesses === 0 ? 0 : 1 - missesFrom(run, trace, fromToken) / accesses;
}
