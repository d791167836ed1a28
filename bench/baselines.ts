/** What other benches compare residency policies with: the recorded traces, and the best that LRU and decayed use can do on them. */
import { basename, join } from 'node:path';
import { openTrace } from '../src/replay/open-trace.js';
import { parsePolicy } from '../src/replay/policies.js';
import { replayBelady } from '../src/replay/replay-belady.js';
import { replayCache } from '../src/replay/replay-cache.js';
import { customary } from '../src/replay/run-replay.js';
import type { CacheRun, TraceToReplay } from '../src/replay/types.js';

const FILES = [
  'olmoe-1b-7b-299tok.jsonl',
  'kimi-linear-300tok.jsonl',
  'qwen3-30b-a3b.code.u8',
  'qwen3-30b-a3b.general.u8',
  'qwen3-30b-a3b.decode-k6.csv',
  'gpt-oss-120b.decode-k2.csv',
];
const HALF_LIVES = [4, 8, 16, 32, 64];

/** The recorded traces of a folder, each cut to its first tokens. */
export function openTraces(folder: string, tokensMax: number): TraceToReplay[] {
  return FILES.map((file) => cut(openTrace(join(folder, file), {}), tokensMax));
}

export function cut(trace: TraceToReplay, tokensMax: number): TraceToReplay {
  const { recording } = trace;
  const tokens = Math.min(tokensMax, recording.tokens);
  const entries = tokens * recording.layers * recording.topK;
  const weights = recording.weights?.subarray(0, entries) ?? null;
  const kept = { ...recording, tokens, ids: recording.ids.subarray(0, entries), weights };
  return { ...trace, name: basename(trace.name), recording: kept };
}

/** Whole trace from an empty cache. */
export function hitRate(run: CacheRun, trace: TraceToReplay): number {
  const { tokens, layers, topK } = trace.recording;
  return 1 - run.misses.reduce((sum, count) => sum + count, 0) / (tokens * layers * topK);
}

/** Hit rates of the baselines at one size. */
export interface Baselines {
  /** Counted as the trace's own tables are, and by the best of one cache or one a layer, access by access or event by event. */
  readonly lruOfTables: number;
  readonly lru: number;
  /** The best of five half-lives and the countings event by event and of the tables. */
  readonly decayed: number;
  readonly belady: number;
}

export function baselines(trace: TraceToReplay, share: number): Baselines {
  const usual = customary(trace);
  const rate = (policy: string, scope: 'global' | 'layer', counting: 'access' | 'event') =>
    hitRate(replayCache(trace, share, parsePolicy(policy), scope, counting), trace);
  const lruOfTables = rate('lru', usual.scope, usual.counting);
  const lru = Math.max(
    ...(['global', 'layer'] as const).flatMap((scope) => [rate('lru', scope, 'access'), rate('lru', scope, 'event')]),
  );
  const decayed = Math.max(
    ...HALF_LIVES.map((halfLife) => `lfu-decay:${halfLife}`).flatMap((policy) => [
      rate(policy, usual.scope, usual.counting),
      rate(policy, 'global', 'event'),
      rate(policy, 'layer', 'event'),
    ]),
  );
  return { lruOfTables, lru, decayed, belady: hitRate(replayBelady(trace, share, 'global'), trace) };
}
