/**
 * The promise of `exact` with prefixes: answers of the bundled model are the same tokens alone and among 16 streams, with and without
 * reuse, and after a restart over a folder of stored prefixes. And what becomes of that folder when its files are not what
 * was written.
 */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { engineConfig } from '../../../src/config.js';
import { startEngine } from '../../../src/engine/client.js';
import type { EngineMetrics } from '../../../src/engine/engine-metrics.js';
import { type EngineClient, GREEDY, type Mode, type Usage } from '../../../src/engine/types.js';
import { loadTextModel } from '../../../src/text/text-model.js';

const POCKET = fileURLToPath(new URL('../../../models/pocket.moe', import.meta.url));
const SYSTEM =
  'You are a patient teacher who answers in one short sentence. You never guess: where you do not know, you say so. ' +
  'You write plain words, no lists, no headings, and you do not repeat the question. Numbers are written as digits.';
const QUESTIONS = ['France', 'Peru', 'Japan', 'Kenya', 'Norway', 'Egypt', 'Chile', 'India'].flatMap((name) => [
  `What is the capital of ${name}?`,
  `What is the currency of ${name}?`,
]);

let prompts: number[][];
let folder: string;
let said: string;
beforeAll(async () => {
  const text = await loadTextModel(POCKET);
  prompts = QUESTIONS.map((content) =>
    text.encodeChat([
      { role: 'system', content: SYSTEM },
      { role: 'user', content },
    ]),
  );
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moestro-prefix-'));
  said = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += String(text);
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  chmodSync(folder, 0o700);
  rmSync(folder, { recursive: true });
});

interface Answer {
  readonly tokens: readonly number[];
  readonly usage: Usage;
}
interface Run {
  readonly answers: readonly Answer[];
  readonly metrics: EngineMetrics;
}

const store = (): string => join(folder, 'pocket');
const records = (): string[] =>
  existsSync(store())
    ? readdirSync(store())
        .filter((name) => name.endsWith('.kv'))
        .map((name) => join(store(), name))
    : [];

const start = (settings: Record<string, string | number>): Promise<EngineClient> =>
  startEngine(engineConfig(POCKET, { budget: '1GiB', threads: 2, maxSequences: 16, ...settings }, {}));

async function answer(engine: EngineClient, promptIds: number[], mode?: Mode): Promise<Answer> {
  const tokens: number[] = [];
  const precision = mode === undefined ? {} : { precision: { mode } };
  const request = { promptIds, maxTokens: 12, stopTokenIds: [4095], sampling: GREEDY, ...precision };
  for await (const event of engine.generate(request)) {
    if (event.kind === 'token') tokens.push(event.tokenId);
    if (event.kind === 'finish') return { tokens, usage: event.usage };
  }
  throw new Error('the answer did not finish');
}

/** Greedy answers to all prompts, so many at once. */
async function run(settings: Record<string, string | number>, together = 1, mode?: Mode): Promise<Run> {
  const engine = await start(settings);
  try {
    const answers: Answer[] = [];
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < prompts.length) {
        const index = next++;
        answers[index] = await answer(engine, prompts[index]!, mode);
      }
    };
    await Promise.all(Array.from({ length: together }, lane));
    return { answers, metrics: await engine.metrics() };
  } finally {
    await engine.close();
  }
}

const tokensOf = ({ answers }: Run): readonly (readonly number[])[] => answers.map(({ tokens }) => tokens);

describe('exact answers', () => {
  let reference: Run;
  beforeAll(async () => {
    reference = await run({ prefixCache: 'off' });
    expect(new Set(tokensOf(reference).map((tokens) => tokens.join())).size).toBeGreaterThan(8);
  });

  it.each([
    ['f16', 1],
    ['f16', 16],
    ['int8', 16],
  ])(
    'are the same alone and among others, with and without prefixes, before and after a restart (%s, %i at once)',
    async (kv, together) => {
      const wanted = kv === 'f16' ? reference : await run({ prefixCache: 'off', kv });
      expect(wanted.metrics.prefix).toMatchObject({ lookups: 0, keptBytes: 0 });
      const settings = { prefixDir: folder, kv, maxResidentExperts: 64 };
      const cold = await run(settings, together);
      expect(tokensOf(cold)).toEqual(tokensOf(wanted));
      expect(cold.metrics.kvBlocksUsed).toBe(0);
      if (together === 1) expect(cold.answers.at(-1)!.usage.cachedTokens).toBeGreaterThan(50);
      expect(records().length).toBeGreaterThan(3);

      const warm = await run({ ...settings, chunk: 7 }, together);
      expect(tokensOf(warm)).toEqual(tokensOf(wanted));
      expect(warm.metrics.prefix.tokensRestored).toBeGreaterThan(50);
      expect(warm.metrics.tokensPrefilled).toBeLessThan(cold.metrics.tokensPrefilled);
      for (const { usage } of warm.answers) expect(usage.cachedTokens).toBeGreaterThanOrEqual(64);
      expect(said).toBe('');
    },
  );

  it('take nothing that elastic ones left, in memory or on disk', async () => {
    const elastic = { prefixDir: folder, mode: 'elastic', maxResidentExperts: 16 };
    await run(elastic);
    const exact = await run({ prefixDir: folder });
    expect(tokensOf(exact)).toEqual(tokensOf(reference));
    expect(exact.metrics.prefix.tokensRestored).toBe(0);
    const again = await run(elastic);
    expect(again.metrics.prefix.tokensRestored).toBeGreaterThan(0);
  });

  it('are the same when stored prefixes were damaged, which are named and removed', async () => {
    await run({ prefixDir: folder });
    const [cut, longer, flipped, renamed, other] = records();
    truncateSync(cut!, 1000);
    appendFileSync(longer!, 'more');
    const bytes = readFileSync(flipped!);
    bytes[bytes.length - 500]! ^= 4;
    writeFileSync(flipped!, bytes);
    writeFileSync(join(store(), `${'0'.repeat(32)}.kv`), readFileSync(renamed!));
    writeFileSync(other!, 'not a record');
    writeFileSync(join(store(), `${'1'.repeat(32)}.kv.part`), 'unfinished');
    writeFileSync(join(store(), 'notes.txt'), 'mine');
    symlinkSync('/dev/zero', join(store(), `${'2'.repeat(32)}.kv`));

    const warm = await run({ prefixDir: folder });
    expect(tokensOf(warm)).toEqual(tokensOf(reference));
    expect(warm.metrics.prefix.storeRejected).toBeGreaterThanOrEqual(5);
    for (const reason of [/needed \d+/, /its name is not its key/, /it is no stored prefix/])
      expect(said).toMatch(reason);
    expect(existsSync(join(store(), 'notes.txt'))).toBe(true);
    expect(readdirSync(store()).some((name) => name.endsWith('.part'))).toBe(false);
    expect(existsSync(join(store(), `${'2'.repeat(32)}.kv`))).toBe(false);

    const clean = await run({ prefixDir: folder });
    expect(tokensOf(clean)).toEqual(tokensOf(reference));
    expect(clean.metrics.prefix.storeRejected).toBe(0);
  });

  it('are the same when every stored block has another bit', async () => {
    await run({ prefixDir: folder });
    for (const path of records()) {
      const bytes = readFileSync(path);
      bytes[bytes.length - 64]! ^= 1;
      writeFileSync(path, bytes);
    }
    const damaged = await run({ prefixDir: folder });
    expect(tokensOf(damaged)).toEqual(tokensOf(reference));
    expect(damaged.metrics.prefix).toMatchObject({ tokensRestored: 0 });
    expect(damaged.metrics.prefix.storeRejected).toBeGreaterThan(0);
    expect(said).toMatch(/its checksum does not match/);
  });
});

describe('the folder of prefixes', () => {
  it('belongs to its owner and to one process at a time', async () => {
    const first = await start({ prefixDir: folder });
    await answer(first, prompts[0]!);
    const second = await start({ prefixDir: folder });
    expect(said).toMatch(/cannot store prefixes in ".*pocket": another process does/);
    expect((await answer(second, prompts[0]!)).tokens).toEqual((await answer(first, prompts[0]!)).tokens);
    await second.close();
    await first.close();
    expect(statSync(store()).mode & 0o777).toBe(0o700);
    expect(records().length).toBeGreaterThan(0);
    for (const path of records()) expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('holds no more than it may, and takes no more than it may in a day', async () => {
    await run({ prefixDir: folder });
    const [one] = records();
    const { size } = statSync(one!);
    const all = records().length;
    rmSync(store(), { recursive: true });

    const small = await start({ prefixDir: folder, prefixDisk: size * 4 });
    for (const prompt of prompts) await answer(small, prompt);
    await expect.poll(async () => (await small.metrics()).prefix.storeEvictions).toBeGreaterThan(0);
    await small.close();
    expect(records().length).toBeLessThanOrEqual(4);
    const before = new Set(records());
    await run({ prefixDir: folder, prefixDisk: size * 2, prefixDailyWrites: size });
    expect(records().length).toBeLessThanOrEqual(2);
    expect(records().every((path) => before.has(path))).toBe(true);
    rmSync(store(), { recursive: true });

    await run({ prefixDir: folder, prefixDailyWrites: size * 3 });
    expect(records().length).toBe(3);
    await run({ prefixDir: folder, prefixDailyWrites: size * 3 });
    expect(records().length).toBe(3);
    await run({ prefixDir: folder, prefixDailyWrites: size * 5 });
    expect(records().length).toBe(5);
    expect(all).toBeGreaterThan(5);
  });

  it('may go away under the engine: nothing more is written, and requests go on', async () => {
    const engine = await start({ prefixDir: folder });
    rmSync(store(), { recursive: true });
    const first = await answer(engine, prompts[0]!);
    const again = await answer(engine, prompts[0]!);
    expect(again.tokens).toEqual(first.tokens);
    expect(again.usage.cachedTokens).toBe(prompts[0]!.length - 1);
    await engine.close();
    expect(said.match(/no more prefixes are stored: .*No such file|no more prefixes are stored: ENOENT/g)).toHaveLength(
      1,
    );
  });

  it('may be of no use: requests go on without it', async () => {
    writeFileSync(join(folder, 'file'), '');
    const { answers, metrics } = await run({ prefixDir: join(folder, 'file') });
    expect(said).toMatch(/cannot store prefixes in ".*": E/);
    expect(answers.at(-1)!.usage.cachedTokens).toBeGreaterThan(50);
    expect(metrics.prefix.storedBytes).toBe(0);
    said = '';
    await run({ prefixDir: folder, prefixDisk: '1KiB' });
    expect(said).toMatch(/cannot store prefixes in .*: one block takes/);
  });
});
