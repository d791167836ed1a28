/**
 * Runs what an engine recorded (`--record-trace`) through the engine's own plans, step by step as it ran: batches, bits wanted
 * and slots are those of the recording. Reads on a guess are not replayed: they depend on hidden states that no trace holds.
 */
import { createLayerPlan } from '../experts/layer-plan.js';
import { planExperts, type Routing } from '../experts/plan.js';
import { planSettings } from '../experts/plan-settings.js';
import type { RecordedSteps } from '../experts/recorded-steps.js';
import { expertCapacity, Residency } from '../experts/residency.js';
import { planShed } from '../experts/shed.js';
import { carryOut } from './replay-engine.js';
import type { CacheRun, TraceToReplay } from './types.js';

/** As of one layer; a step's misses stand at its first token. */
export interface StepsRun extends CacheRun {
  readonly hits: number;
  readonly readBytes: number;
}

export function replaySteps(trace: TraceToReplay, live: RecordedSteps): StepsRun {
  const { ids, weights, tokens } = trace.recording;
  const { header, steps } = live;
  const { layers, experts, topK, fullLevel } = header;
  const first = steps[0]!;
  const residency = new Residency({
    layers,
    experts,
    bitSlots: first.bitSlots[0]!,
    scaleSlots: first.scaleSlots[0]!,
    bitCapacity: layers * experts * fullLevel,
    scaleCapacity: layers * experts,
    fullLevel,
    topK,
    rows: header.rows,
  });
  let settings = planSettings(residency, header.levels, topK);
  const most = steps.reduce((longest, step) => Math.max(longest, step.tokens), 1);
  const plan = createLayerPlan(layers, experts, most, topK);
  const routing: Routing = {
    layer: 0,
    tokens: 0,
    topK,
    ids: new Uint16Array(most * topK),
    weights: new Float32Array(most * topK),
    levels: new Uint8Array(most * topK),
    live: new Uint8Array(most).fill(1),
  };
  const misses = new Uint16Array(tokens * layers);
  let hits = 0;
  let readBytes = 0;
  for (const step of steps) {
    residency.uses.advance(Math.max(...step.rowTokens));
    residency.reuse.beginStep(step.rowTokens.length, step.rowIds, step.rowTokens, expertCapacity(residency));
    routing.tokens = step.tokens;
    for (let layer = 0; layer < layers; ++layer) {
      if (resize(residency, step.bitSlots[layer]!, step.scaleSlots[layer]!, header.levels)) {
        settings = planSettings(residency, header.levels, topK);
      }
      routing.layer = layer;
      for (let i = 0; i < step.tokens * topK; ++i) {
        const at = ((step.firstToken + Math.floor(i / topK)) * layers + layer) * topK + (i % topK);
        routing.ids[i] = ids[at]!;
        routing.weights[i] = weights![at]!;
        routing.levels[i] = live.levels[at]!;
      }
      recordUses(routing, step.rowTokens, residency);
      residency.reuse.observe(routing, residency.residentBits, expertCapacity(residency));
      planExperts(routing, residency, settings, plan);
      misses[step.firstToken * layers + layer] = plan.misses;
      hits += plan.hits;
      readBytes += plan.missedBitSlots * header.bitBytes + plan.missedScaleSlots * header.scaleBytes;
      carryOut(plan, residency);
    }
  }
  return { misses, slots: expertCapacity(residency), hits, readBytes };
}

/** As the engine's keeper of memory does between layers; false when nothing changes. */
function resize(residency: Residency, bits: number, scales: number, levels: readonly number[]): boolean {
  if (bits === residency.bitSlots && scales === residency.scaleSlots) return false;
  const ascending = [...levels].sort((a, b) => a - b);
  const gains = ascending.map(() => 1);
  const isAtRest = (key: number) => residency.isAtRest(key);
  const shed = planShed(
    residency.usedBits - bits,
    residency.usedScales - scales,
    residency,
    ascending,
    gains,
    isAtRest,
  );
  for (const [i, key] of shed.keys.entries()) residency.drop(key, shed.bits[i]!);
  residency.resize(Math.max(bits, residency.usedBits), Math.max(scales, residency.usedScales));
  return true;
}

function recordUses({ layer, topK, ids }: Routing, rowTokens: readonly number[], residency: Residency): void {
  let token = 0;
  for (const count of rowTokens) {
    const last = token + count - 1;
    for (; token <= last; ++token) {
      for (let at = token * topK; at < (token + 1) * topK; ++at) {
        residency.uses.record(layer * residency.experts + ids[at]!, last - token);
      }
    }
  }
}
