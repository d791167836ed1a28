/**
 * The promise of `exact`: greedy answers to 64 prompts are the same tokens whatever the share of the experts that fits,
 * the threads, the way of reading, the chunk, the batch and the instruction set; and the counters show that with few
 * slots the experts really came from disk. Also that `routed` depends on the request alone.
 */
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { startEngine } from '../../src/engine/client.js';
import type { EngineMetrics } from '../../src/engine/engine-metrics.js';
import { type EngineConfig, GREEDY } from '../../src/engine/types.js';
import { loadAddon } from '../../src/native/binding.js';
import { loadTextModel } from '../../src/text/text-model.js';

const POCKET = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));
const EXPERTS = 256;
const NAMES = ['France', 'Peru', 'Japan', 'Kenya', 'Norway', 'Egypt', 'Chile', 'India'];
const WORDS = ['dog', 'house', 'river', 'bread', 'music', 'stone', 'garden', 'winter'];
const ELEMENTS = ['gold', 'iron', 'oxygen', 'neon', 'zinc', 'carbon', 'lead', 'helium'];
const QUESTIONS = [
  ...NAMES.flatMap((name) => [`What is the capital of ${name}?`, `What is the currency of ${name}?`]),
  ...WORDS.flatMap((word) => [`Define ${word}.`, `Give a synonym of ${word}.`, `What kind of thing is a ${word}?`]),
  ...ELEMENTS.flatMap((name) => [`What is the symbol of ${name}?`, `What is the atomic number of ${name}?`]),
  ...[11, 23, 37, 41, 58, 62, 79, 90].map((n) => `What is ${n} + ${100 - n}?`),
];

let prompts: number[][];
beforeAll(async () => {
  const text = await loadTextModel(POCKET);
  prompts = QUESTIONS.map((content) => text.encodeChat([{ role: 'user', content }]));
  expect(prompts).toHaveLength(64);
});

interface Run {
  readonly answers: readonly (readonly number[])[];
  readonly metrics: EngineMetrics;
}

/** Greedy answers of at most 16 tokens; `together` prompts are open at once. */
async function run(more: Partial<EngineConfig>, together = 4): Promise<Run> {
  const config = engineConfig(POCKET, { budget: '1GiB', threads: 2, maxSequences: 16 }, {});
  const engine = await startEngine({ ...config, maxSequences: 16, ...more });
  const answers: number[][] = prompts.map(() => []);
  const answer = async (index: number): Promise<void> => {
    const promptIds = prompts[index] ?? [];
    const request = { promptIds, maxTokens: 16, stopTokenIds: [4095], sampling: GREEDY };
    for await (const event of engine.generate(request)) if (event.kind === 'token') answers[index]?.push(event.tokenId);
  };
  try {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < prompts.length) await answer(next++);
    };
    await Promise.all(Array.from({ length: together }, lane));
    return { answers, metrics: await engine.metrics() };
  } finally {
    await engine.close();
  }
}

const io = (backend: 'automatic' | 'pread', direct = true) => ({ io: { backend, queueDepth: 4, direct } });

describe('exact answers', () => {
  let reference: Run;
  beforeAll(async () => {
    reference = await run({}, 1);
    expect(reference.answers.flat().length).toBeGreaterThan(300);
  });

  it.each<[string, Partial<EngineConfig>, number]>([
    ['half of the experts resident', { maxResidentExperts: EXPERTS / 2, ...io('pread') }, 4],
    ['a quarter, one thread', { maxResidentExperts: EXPERTS / 4, threads: 1 }, 4],
    ['half and guesses', { maxResidentExperts: EXPERTS / 2, prefetch: 'on' }, 1],
    ['a quarter, guesses and 3 at once', { maxResidentExperts: EXPERTS / 4, prefetch: 'on', ...io('pread') }, 3],
    ['a quarter without guesses', { maxResidentExperts: EXPERTS / 4, prefetch: 'off' }, 1],
    ['the floor, chunks of 16', { maxResidentExperts: 8, chunkTokens: 16 }, 1],
    ['the floor, 16 at once, buffered reads', { maxResidentExperts: 8, ...io('pread', false) }, 16],
    ['a quarter, chunks of 1', { maxResidentExperts: EXPERTS / 4, chunkTokens: 1 }, 2],
    ['all resident, 16 at once, one thread', { threads: 1 }, 16],
  ])('are the same with %s', async (_, more, together) => {
    const { answers, metrics } = await run(more, together);
    expect(answers).toEqual(reference.answers);
    const { size } = statSync(`${POCKET}/experts.bin`);
    if (more.maxResidentExperts === undefined) expect(metrics.bytesRead).toBeLessThanOrEqual(size);
    else expect(metrics.bytesRead).toBeGreaterThan(size);
    expect(metrics.bytesRead).toBe(metrics.missedBytes + metrics.prefetch.bytes);
    if (more.prefetch === 'on') expect(metrics.prefetch.usefulBytes).toBeGreaterThan(0);
    if (more.prefetch === 'off') expect(metrics.prefetch.reads).toBe(0);
  });

  it.each(loadAddon().cpuFeatures().detected)('are the same with %s kernels', async (isa) => {
    expect((await run({ isa, maxResidentExperts: EXPERTS / 2 })).answers).toEqual(reference.answers);
  });
});

describe('routed answers', () => {
  it('are the same whether all experts are resident or few, alone or together', async () => {
    const all = await run({ mode: 'routed', level: 4 }, 1);
    const few = await run({ mode: 'routed', level: 4, maxResidentExperts: 24 }, 8);
    expect(few.answers).toEqual(all.answers);
    expect(few.metrics.bytesRead).toBeGreaterThan(all.metrics.bytesRead);
  });
});
