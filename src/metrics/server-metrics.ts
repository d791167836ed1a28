/**
 * The text of /metrics. Names are stable: dashboards are built on them. Counters of the engine are read at each
 * scrape, counters of HTTP are kept here.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineMetrics, MemoryState } from '../engine/engine-metrics.js';
import type { EngineInfo } from '../engine/types.js';

interface EngineSeries {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  /** One value, or one for each value of a label. */
  readonly label?: string;
  readonly read: (metrics: EngineMetrics) => number | Readonly<Record<string, number>>;
}

const counter = (name: string, help: string, read: EngineSeries['read'], label?: string): EngineSeries =>
  label === undefined ? { name, help, kind: 'counter', read } : { name, help, kind: 'counter', read, label };
const gauge = (name: string, help: string, read: EngineSeries['read'], label?: string): EngineSeries =>
  label === undefined ? { name, help, kind: 'gauge', read } : { name, help, kind: 'gauge', read, label };

const ENGINE_SERIES: readonly EngineSeries[] = [
  counter('moestro_expert_hits_total', 'Experts that were asked for and already in memory', (m) => m.hits),
  counter(
    'moestro_expert_misses_total',
    'Experts that were asked for and had to be read, in whole or in part',
    (m) => m.misses,
  ),
  counter(
    'moestro_missed_bytes_total',
    'Bytes of the parts of experts that were asked for and not in memory',
    (m) => m.missedBytes,
  ),
  counter('moestro_read_bytes_total', 'Bytes of experts that the disk delivered', (m) => m.bytesRead),
  counter('moestro_read_errors_total', 'Reads of experts that failed', (m) => m.readErrors),
  counter('moestro_prefetch_bytes_total', 'Bytes of experts read on a guess', (m) => m.prefetch.bytes),
  counter(
    'moestro_prefetch_useful_bytes_total',
    'Of these, bytes of experts that were then asked for',
    (m) => m.prefetch.usefulBytes,
  ),
  counter(
    'moestro_prefetch_wasted_bytes_total',
    'Of these, bytes of reads that were stopped or evicted unused',
    (m) => m.prefetch.wastedBytes,
  ),
  gauge('moestro_reads_in_flight', 'Reads of experts under way', (m) => m.readsInFlight),
  counter('moestro_stall_seconds_total', 'Time for which computing waited for a read', (m) => m.stallMs / 1000),
  counter(
    'moestro_tokens_total',
    'Tokens computed: of prompts (prefill) and of answers (decode)',
    (m) => ({ prefill: m.tokensPrefilled, decode: m.tokensDecoded }),
    'phase',
  ),
  counter(
    'moestro_compute_seconds_total',
    'Time spent computing prompts (prefill) and answers (decode), stalls included',
    (m) => ({ prefill: m.prefillMs / 1000, decode: m.decodeMs / 1000 }),
    'phase',
  ),
  counter('moestro_steps_total', 'Steps: passes of a batch of tokens through all layers', (m) => m.steps),
  gauge(
    'moestro_resident_experts',
    'Experts in memory, by the bits per weight they have there',
    (m) => m.residentByBits,
    'bits',
  ),
  gauge('moestro_slots_used', 'Slots in use; a slot holds one bit per weight of one expert', (m) => m.slotsUsed),
  gauge(
    'moestro_slots_capacity',
    'Slots there are; a slot holds one bit per weight of one expert',
    (m) => m.slotsTotal,
  ),
  gauge('moestro_sequences_open', 'Answers under way', (m) => m.sequencesOpen),
  gauge('moestro_sequences_queued', 'Answers waiting for their turn', (m) => m.sequencesQueued),
  counter(
    'moestro_sequences_cancelled_total',
    'Answers broken off because nobody wanted them any more',
    (m) => m.requestsCancelled,
  ),
  gauge(
    'moestro_kv_blocks_used',
    'Blocks of the KV cache (keys and values of past tokens) that answers under way use',
    (m) => m.kvBlocksUsed,
  ),
  gauge('moestro_kv_blocks_capacity', 'Blocks of the KV cache there are', (m) => m.kvBlocksTotal),
  counter('moestro_prefix_lookups_total', 'Prompts that may begin as an earlier one', (m) => m.prefix.lookups),
  counter('moestro_prefix_hits_total', 'Of these, prompts that did', (m) => m.prefix.hits),
  counter(
    'moestro_prefix_tokens_total',
    'Tokens that did not have to be computed, as their keys and values were kept, by where',
    (m) => ({ memory: m.prefix.tokensReused - m.prefix.tokensRestored, disk: m.prefix.tokensRestored }),
    'place',
  ),
  gauge(
    'moestro_prefix_bytes',
    'Keys and values kept for requests to come, by where',
    (m) => ({ memory: m.prefix.keptBytes, disk: m.prefix.storedBytes }),
    'place',
  ),
  counter(
    'moestro_prefix_evictions_total',
    'Blocks of keys and values given up to make room, by where',
    (m) => ({ memory: m.prefix.evictions, disk: m.prefix.storeEvictions }),
    'place',
  ),
  counter(
    'moestro_prefix_written_bytes_total',
    'Keys and values written to disk for requests to come',
    (m) => m.prefix.storeWrittenBytes,
  ),
  counter('moestro_prefix_read_bytes_total', 'Keys and values read back from disk', (m) => m.prefix.storeReadBytes),
  counter(
    'moestro_prefix_rejected_total',
    'Files of keys and values that were not what had been written, and were removed',
    (m) => m.prefix.storeRejected,
  ),
  gauge('moestro_memory_budget_bytes', 'Memory the whole process may take, as last configured', (m) => m.budgetBytes),
  gauge(
    'moestro_memory_allowed_bytes',
    'The budget, or less while the machine or a control group has less to give',
    (m) => m.memory?.allowedBytes ?? m.budgetBytes,
  ),
  gauge(
    'moestro_elastic_price',
    'What a missing bit costs in mode elastic: 0 buys every bit, 1 none above the floors',
    (m) => m.elasticPrice,
  ),
  gauge(
    'moestro_gear',
    'Who shares the steps of decoding: 1 for the gear in use, joint (all) or burst (turns of those alike)',
    (m) => ({ joint: Number(m.gears.gear === 'joint'), burst: Number(m.gears.gear === 'burst') }),
    'gear',
  ),
  counter('moestro_gear_switches_total', 'Changes of gear', (m) => m.gears.switches),
  counter('moestro_gear_turns_total', 'Turns of bursts that began', (m) => m.gears.turns),
  gauge(
    'moestro_step_gap_max_seconds',
    'The longest that an answer waited for its next step since start',
    (m) => m.gears.gapMaxMs / 1000,
  ),
  counter('moestro_memory_resizes_total', 'Times the number of slots was changed', (m) => m.memory?.resizes ?? 0),
  counter('moestro_memory_shed_planes_total', 'Planes dropped to keep the budget', (m) => m.memory?.shedPlanes ?? 0),
  counter('moestro_memory_shed_experts_total', 'Experts dropped to keep the budget', (m) => m.memory?.shedExperts ?? 0),
  counter(
    'moestro_memory_given_back_bytes_total',
    'Memory given back to the system while running',
    (m) => m.memory?.givenBackBytes ?? 0,
  ),
  gauge('moestro_memory_rss_bytes', 'Memory the process takes now (resident set)', (m) => m.rssBytes),
  gauge(
    'moestro_memory_peak_rss_bytes',
    'Most memory the process has taken so far (peak resident set)',
    (m) => m.peakRssBytes,
  ),
];

/** Seconds: an answer from memory takes tenths, one from a slow disk minutes. */
const DURATION_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Owns the counters of one server; several servers in one process do not share them. */
export class ServerMetrics {
  #http = new Registry();
  #requests = new Counter({
    name: 'moestro_http_requests_total',
    help: 'Requests answered',
    labelNames: ['route', 'status'],
    registers: [this.#http],
  });
  #duration = new Histogram({
    name: 'moestro_http_request_duration_seconds',
    help: 'From the request to the last byte of its answer',
    labelNames: ['route'],
    buckets: DURATION_BUCKETS,
    registers: [this.#http],
  });
  #cancelled = new Counter({
    name: 'moestro_http_requests_cancelled_total',
    help: 'Requests whose client went away before the answer was complete',
    labelNames: ['route'],
    registers: [this.#http],
  });
  readonly contentType = this.#http.contentType;

  countRequest(route: string, status: number, seconds: number): void {
    this.#requests.inc({ route, status: String(status) });
    this.#duration.observe({ route }, seconds);
  }

  countCancelled(route: string): void {
    this.#cancelled.inc({ route });
  }

  /** @param info, engine null while the model loads: then only what HTTP counts is told. */
  async text(info: EngineInfo | null, engine: EngineMetrics | null): Promise<string> {
    const http = await this.#http.metrics();
    if (info === null || engine === null) return http;
    return `${await engineText(info, engine)}\n${http}`;
  }
}

function addLedger(registry: Registry, { parts, floorBytes }: MemoryState): void {
  const ledger = new Gauge({
    name: 'moestro_memory_ledger_bytes',
    help: 'How the allowed memory is divided now; KV cache as far as it was ever written',
    labelNames: ['part'],
    registers: [registry],
  });
  for (const [part, bytes] of Object.entries(parts)) ledger.set({ part }, bytes);
  const floor = new Gauge({
    name: 'moestro_memory_floor_bytes',
    help: 'The least budget that holds what is open now',
    registers: [registry],
  });
  floor.set(floorBytes);
}

async function engineText(info: EngineInfo, metrics: EngineMetrics): Promise<string> {
  const registry = new Registry();
  for (const { name, help, kind, label, read } of ENGINE_SERIES) {
    const options = { name, help, labelNames: label === undefined ? [] : [label], registers: [registry] };
    const series = kind === 'counter' ? new Counter(options) : new Gauge(options);
    const value = read(metrics);
    if (typeof value === 'number') series.inc(value);
    else for (const [key, part] of Object.entries(value)) series.inc({ [label ?? 'key']: key }, part);
  }
  const { dense, kv, experts, scratch, runtime, unused } = info.memory;
  const plan = new Gauge({
    name: 'moestro_memory_plan_bytes',
    help: 'How the budget was divided at start; unused is not taken',
    labelNames: ['part'],
    registers: [registry],
  });
  for (const [part, bytes] of Object.entries({ dense, kv, experts, scratch, runtime, unused }))
    plan.set({ part }, bytes);
  if (metrics.memory !== null) addLedger(registry, metrics.memory);
  const about = new Gauge({
    name: 'moestro_model_info',
    help: 'What is served and how; always 1',
    labelNames: ['model', 'family', 'level', 'mode', 'isa', 'io'],
    registers: [registry],
  });
  const { modelName: model, family, level, mode, isa, ioBackend: io } = info;
  about.set({ model, family, level: String(level), mode, isa, io }, 1);
  return registry.metrics();
}
