/**
 * Runs a trace through the engine's own plans: the same `planExperts` and `Residency`, one token a step, all experts at the
 * full level, every read on demand landing in time. What it reads is what an engine of so many slots reads for that routing; with
 * `speculates` also on a guess, as the disk allows.
 */
import { createLayerPlan, type LayerPlan } from '../experts/layer-plan.js';
import { planExperts, type Routing } from '../experts/plan.js';
import { planSettings } from '../experts/plan-settings.js';
import { Residency } from '../experts/residency.js';
import type { ReuseModel, ReuseWeights } from '../experts/reuse/reuse-model.js';
import { type GuessSource, RouterSource, StatisticsSource } from './guess-sources.js';
import { computeMs, eventStallMs } from './machine-model.js';
import { recordedGuesses } from './recorded-guesses.js';
import { slotsOf } from './replay-cache.js';
import { type HowToGuess, Speculation } from './speculation.js';
import type { CacheRun, GuessSourceName, TraceToReplay } from './types.js';

/** A level for whole experts: how many bits they have changes nothing here. */
const LEVEL = 2;
const ONE_ROW = [1] as const;
const STREAM = [0] as const;

export interface EngineReplayOptions {
  /** Experts that all layers hold together, at least 1; the share of them when absent. */
  readonly slots?: number;
  /** Of the reuse model, and a look at it before the first token: for fitting weights. */
  readonly weights?: ReuseWeights;
  readonly onStart?: (reuse: ReuseModel) => void;
  /** Reads on a guess, on this machine; with `isAuto` only while they pay. */
  readonly speculates?: Omit<HowToGuess, 'source'> & { readonly source: GuessSourceName };
}

export function replayEngine(trace: TraceToReplay, share: number, options: EngineReplayOptions = {}): CacheRun {
  const { recording, experts } = trace;
  const { tokens, layers, topK, ids } = recording;
  const slots = options.slots ?? Math.max(1, slotsOf(share, 'global', layers, experts));
  const residency = new Residency({
    layers,
    experts,
    bitSlots: slots * LEVEL,
    scaleSlots: slots,
    fullLevel: LEVEL,
    topK,
    rows: 1,
    ...(options.weights === undefined ? {} : { reuseWeights: options.weights }),
  });
  options.onStart?.(residency.reuse);
  const settings = planSettings(residency, [LEVEL], topK);
  const plan = createLayerPlan(layers, experts, 1, topK);
  const routing: Routing = {
    layer: 0,
    tokens: 1,
    topK,
    ids: new Uint16Array(topK),
    weights: new Float32Array(topK).fill(1 / topK),
    levels: new Uint8Array(topK).fill(LEVEL),
    live: Uint8Array.of(1),
  };
  const misses = new Uint16Array(tokens * layers);
  const { speculates } = options;
  const machine = speculates?.machine;
  const speculation =
    speculates === undefined
      ? null
      : new Speculation(residency, plan.scratch, topK, {
          ...speculates,
          source: createSource(speculates.source, trace),
        });
  let demandBytes = 0;
  let stallMs = 0;
  for (let token = 0; token < tokens; ++token) {
    residency.uses.advance(1);
    residency.reuse.beginStep(1, STREAM, ONE_ROW, slots);
    const demandBefore = demandBytes;
    const stallBefore = stallMs;
    let missed = 0;
    speculation?.begin(token);
    for (let layer = 0; layer < layers; ++layer) {
      const event = token * layers + layer;
      if (layer > 0) speculation?.guess(layer, settings);
      routing.layer = layer;
      for (let rank = 0; rank < topK; ++rank) {
        routing.ids[rank] = ids[event * topK + rank]!;
        if (recording.weights !== null) routing.weights[rank] = recording.weights[event * topK + rank]!;
        residency.uses.record(layer * experts + routing.ids[rank]!, 0);
      }
      speculation?.settle(routing);
      residency.reuse.observe(routing, residency.residentBits, slots);
      misses[event] = planExperts(routing, residency, settings, plan).misses;
      missed += plan.misses;
      if (speculation !== null) {
        demandBytes += plan.missedScaleSlots * machine!.expertBytes;
        stallMs += eventStallMs(plan.misses, topK, machine!, speculation.lateMs, speculation.busyMs);
        speculation.finish();
      }
      carryOut(plan, residency);
    }
    if (speculation === null) continue;
    const stalled = stallMs - stallBefore;
    speculation.end(demandBytes - demandBefore, missed, stalled, computeMs(trace, machine!) / tokens + stalled);
  }
  return speculation === null
    ? { misses, slots }
    : { misses, slots, speculated: { ...speculation.bytes, demandBytes, stallMs, off: speculation.off } };
}

/** @throws {MoestroError} INVALID_CONFIG when the trace does not hold the guesses. */
function createSource(name: GuessSourceName, trace: TraceToReplay): GuessSource {
  const { layers, topK } = trace.recording;
  return name === 'router'
    ? new RouterSource(recordedGuesses(trace), layers, topK)
    : new StatisticsSource(layers, trace.experts, topK);
}

/** Wave by wave as the engine does (engine/forward.ts), with a disk that is always in time. */
export function carryOut(plan: LayerPlan, residency: Residency): void {
  const prepare = (wave: number): void => residency.apply(plan, wave);
  if (plan.waveCount > 0) prepare(0);
  for (let wave = 0; wave < plan.waveCount; ++wave) {
    for (let i = plan.waveReads[wave]!; i < plan.waveReads[wave + 1]!; ++i) residency.landed(plan.readKeys[i]!, 0);
    residency.release(plan, wave);
    if (wave + 1 < plan.waveCount) prepare(wave + 1);
  }
}
