/** What the engine counts since start, and the snapshot of it. */
import type { Residency } from '../experts/residency.js';
import type { IoStats } from '../native/binding.js';
import type { StepReport } from './step-report.js';
import type {
  EngineMetrics,
  GearMetrics,
  MemoryState,
  PrefetchMetrics,
  PrefixMetrics,
  RecordingMetrics,
} from './engine-metrics.js';

export class MetricsCounters {
  requestsCancelled = 0;
  #tokensPrefilled = 0;
  #tokensDecoded = 0;
  #steps = 0;
  #hits = 0;
  #misses = 0;
  #missedBytes = 0;
  #readErrors = 0;
  #pairs = 0;
  #pairBits = 0;
  #stallMs = 0;
  #prefillMs = 0;
  #decodeMs = 0;
  #decodeScriptMs = 0;
  readonly #decode = { hits: 0, misses: 0, missedBytes: 0, bytesRead: 0, stallMs: 0 };

  /** @param step `isDecode`: every sequence of the step ran one token of its own making. */
  stepped(
    report: StepReport,
    step: {
      readonly isDecode: boolean;
      readonly decoded: number;
      readonly prefilled: number;
      readonly bytesRead: number;
      readonly stepMs: number;
      readonly nativeMs: number;
    },
  ): void {
    ++this.#steps;
    this.#tokensDecoded += step.decoded;
    this.#tokensPrefilled += step.prefilled;
    this.#hits += report.hits;
    this.#misses += report.misses;
    this.#missedBytes += report.missedBytes;
    this.#readErrors += report.readErrors;
    this.#stallMs += report.stallMs;
    for (const pairs of report.pairs) this.#pairs += pairs;
    for (const bits of report.bits) this.#pairBits += bits;
    if (!step.isDecode) {
      this.#prefillMs += step.stepMs;
      return;
    }
    this.#decodeMs += step.stepMs;
    this.#decodeScriptMs += step.stepMs - step.nativeMs;
    this.#decode.hits += report.hits;
    this.#decode.misses += report.misses;
    this.#decode.missedBytes += report.missedBytes;
    this.#decode.bytesRead += step.bytesRead;
    this.#decode.stallMs += report.stallMs;
  }

  snapshot(now: {
    readonly io: IoStats;
    readonly residency: Residency;
    readonly prefetch: PrefetchMetrics;
    readonly recording: RecordingMetrics | null;
    readonly sequencesOpen: number;
    readonly sequencesQueued: number;
    readonly kvBlocksUsed: number;
    readonly kvBlocksTotal: number;
    readonly prefix: PrefixMetrics;
    readonly budgetBytes: number;
    readonly memory: MemoryState | null;
    readonly elasticPrice: number;
    readonly gears: GearMetrics;
    readonly rssBytes: number;
    readonly peakRssBytes: number;
  }): EngineMetrics {
    const { io, residency, ...state } = now;
    return {
      tokensPrefilled: this.#tokensPrefilled,
      tokensDecoded: this.#tokensDecoded,
      steps: this.#steps,
      hits: this.#hits,
      misses: this.#misses,
      missedBytes: this.#missedBytes,
      bytesRead: io.bytesRead,
      readsInFlight: io.inFlight,
      readErrors: this.#readErrors,
      stallMs: this.#stallMs,
      prefillMs: this.#prefillMs,
      decodeMs: this.#decodeMs,
      slotsUsed: residency.usedBits,
      slotsTotal: residency.bitSlots,
      residentByBits: residency.residentByBits(),
      pairs: this.#pairs,
      pairBits: this.#pairBits,
      requestsCancelled: this.requestsCancelled,
      decode: { ...this.#decode },
      decodeScriptMs: this.#decodeScriptMs,
      ...state,
    };
  }
}
