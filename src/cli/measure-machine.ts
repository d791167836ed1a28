/** What this machine does, for the models of `plan` and `replay`: a model runs for some 40 tokens and its stalls are looked at. */
import { startEngine } from '../engine/client.js';
import type { EngineConfig, MemoryPlan } from '../engine/types.js';
import { runBench } from '../eval/bench.js';
import type { Manifest } from '../model/manifest.js';
import { fitDiskRate } from '../replay/predict.js';
import type { MachineModel } from '../replay/types.js';
import { statusLine } from './status-line.js';

/** What is run to measure: long enough to warm up, short enough to wait for. */
const MEASURED = { promptTokens: 16, newTokens: 24, streams: 1, repeats: 1, seed: 1 } as const;
/** Of a direct read, as drives of this decade have it; the rate beside it is measured. */
const LATENCY_MS = 0.1;

/** What is known already, and is not measured. */
export interface GivenRates {
  readonly diskBytesPerMs: number | null;
  /** Milliseconds of one token with everything resident. */
  readonly computeMs: number | null;
}

/**
 * Compute is the time a token takes less its stalls, the rate of the disk that at which such stalls come about, with records of the
 * size the model has. The latency is not measured.
 *
 * @param budgetBytes to run at: so small that something is read.
 */
export async function measureMachine(
  manifest: Manifest,
  config: EngineConfig,
  budgetBytes: number,
  { plan, level }: { readonly plan: MemoryPlan; readonly level: number },
  given: GivenRates,
): Promise<MachineModel> {
  const { architecture, geometry } = manifest;
  const { topK } = architecture;
  const layers = architecture.layerKinds.filter((kind) => kind === 'moe').length;
  const expertBytes = level * geometry.bitBytes + geometry.scaleBytes;
  const activeBytes = layers * topK * expertBytes;
  const expertShare = activeBytes / (activeBytes + plan.dense);
  const machineAt = (computeMs: number, diskBytesPerMs: number): MachineModel => ({
    expertBytes,
    diskBytesPerMs,
    diskLatencyMs: LATENCY_MS,
    queueDepth: config.io.queueDepth,
    layerMs: (computeMs * (1 - expertShare)) / layers,
    expertMs: (computeMs * expertShare) / (layers * topK),
  });
  if (given.diskBytesPerMs !== null && given.computeMs !== null)
    return machineAt(given.computeMs, given.diskBytesPerMs);
  const progress = statusLine();
  progress.show('measuring: 40 tokens at the smallest budget');
  const client = await startEngine({ ...config, prefix: null, budgetBytes, maxSequences: 1 });
  try {
    const run = await runBench(client, { ...MEASURED, onProgress: progress.show });
    const computeMs = given.computeMs ?? Math.max(0.001, 1000 / run.decodeTps - run.stallMs);
    const misses = Math.min(topK, run.bytesReadPerToken / expertBytes / layers);
    const rate = given.diskBytesPerMs ?? fitDiskRate(misses, topK, run.stallMs / layers, machineAt(computeMs, 1));
    return machineAt(computeMs, rate);
  } finally {
    progress.clear();
    await client.close();
  }
}
