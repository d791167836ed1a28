/** Prefixes that come from disk while the engine goes on, over the toy engine and reads that land when a test says so. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { FromEngine, ToEngine } from '../../../src/engine/messages.js';
import { readAhead } from '../../../src/engine/prefix/read-ahead.js';
import { StepOutput, serveEngine } from '../../../src/engine/serve-engine.js';
import { type FakeEngineOptions, fakeEngine, type Outcome, toyRequest } from '../../helpers/fake-engine.js';

const OPTIONS = { contextLength: 256, kvBlocks: 32, chunkTokens: 64 };
/** Six blocks and eight tokens of a seventh. */
const LONG = toyRequest(1, 200, 6);
const OTHER = toyRequest(3, 20, 40);

let folder: string;
let said: string[];
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'moestro-restore-'));
  said = [];
  const { engine, runAll } = stored(async () => {});
  engine.generate(1, LONG);
  runAll();
  await engine.close();
  expect(records()).toHaveLength(7);
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

type ReadAhead = (path: string) => Promise<void>;
const stored = (read: ReadAhead, more: FakeEngineOptions = {}, sink?: StepOutput) =>
  fakeEngine(
    { ...OPTIONS, ...more, prefixStore: { directory: folder, readAhead: read, warn: (text) => said.push(text) } },
    sink,
  );
const records = (): string[] => readdirSync(folder).filter((name) => name.endsWith('.kv'));

/** Reads that are under way until they are told to land. */
function heldReads() {
  const held: (() => void)[] = [];
  const read: ReadAhead = () =>
    new Promise((resolve) => {
      held.push(resolve);
    });
  /** The first `count` of them, and what follows from that but for a step. */
  const land = async (count = held.length): Promise<void> => {
    for (const resolve of held.splice(0, count)) resolve();
    await settled();
  };
  return { held, read, land };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

function answered(request: typeof LONG): number[] {
  const { engine, outcome, runAll } = fakeEngine(OPTIONS);
  engine.generate(1, request);
  runAll();
  return outcome(1).tokens;
}
const cachedOf = ({ events }: Outcome): number | undefined => {
  const last = events.at(-1);
  return last?.kind === 'finish' ? last.usage.cachedTokens : undefined;
};

describe('a prefix on its way from disk', () => {
  it('holds up nobody else: tokens of another stream come between its first read and its last', async () => {
    const { held, read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    engine.generate(1, OTHER);
    for (let step = 0; step < 3; ++step) engine.step();
    engine.generate(2, LONG);
    // As many as may be under way at once.
    expect(held).toHaveLength(4);
    const before = outcome(1).tokens.length;
    for (let step = 0; step < 5; ++step) expect(engine.step()).toBe(true);
    expect(outcome(1).tokens).toHaveLength(before + 5);
    await land(1);
    expect(engine.step()).toBe(true);
    expect(engine.metrics().prefix).toMatchObject({ hits: 1, tokensReused: 32, tokensRestored: 32 });
    expect(held).toHaveLength(4);
    while (held.length > 0) {
      expect(outcome(2).events).toEqual([]);
      await land();
      engine.step();
    }
    // Three rounds of reads, the last of which the second stream computed in.
    expect(outcome(1).tokens).toHaveLength(before + 5 + 3);
    expect(outcome(2).tokens).toHaveLength(1);
    runAll();
    expect(outcome(1).tokens).toEqual(answered(OTHER));
    expect(outcome(2).tokens).toEqual(answered(LONG));
    expect(cachedOf(outcome(2))).toBe(199);
    expect(engine.metrics().prefix).toMatchObject({ lookups: 2, hits: 1, tokensReused: 199, tokensRestored: 199 });
    expect(said).toEqual([]);
  });

  it('is no work for the engine until something lands', async () => {
    const { read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    const onWork = vi.fn();
    engine.onWork = onWork;
    engine.generate(1, LONG);
    expect(engine.hasWork).toBe(false);
    expect(engine.step()).toBe(false);
    expect(onWork).not.toHaveBeenCalled();
    await land(2);
    expect(onWork).toHaveBeenCalledTimes(2);
    expect(engine.hasWork).toBe(true);
    expect(engine.step()).toBe(false);
    expect(engine.hasWork).toBe(false);
    await land();
    engine.step();
    await land();
    runAll();
    expect(outcome(1).tokens).toEqual(answered(LONG));
  });

  it('wakes an engine that waits for messages', async () => {
    // Without the watch that looks after memory twice a second.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const { held, read, land } = heldReads();
    const sent: FromEngine[] = [];
    let send = (_: ToEngine): void => {};
    const line = {
      postMessage: (message: FromEngine) => void sent.push(message),
      on: (_: 'message', listener: (message: ToEngine) => void) => {
        send = listener;
      },
      off: () => {},
    };
    const output = new StepOutput(line);
    const { engine, native } = stored(read, {}, output);
    const served = serveEngine(line, engine, native, output);
    send({ kind: 'generate', id: 1, request: LONG });
    await settled();
    expect(sent).toEqual([]);
    while (held.length > 0) await land();
    const tokens = () =>
      sent
        .flatMap((message) => (message.kind === 'events' ? message.events : []))
        .flatMap(([, event]) => (event.kind === 'token' ? [event.tokenId] : []));
    await expect.poll(tokens).toEqual(answered(LONG));
    send({ kind: 'close' });
    await served;
  });

  it('is computed from where a record turns out to be damaged, which is named and written anew', async () => {
    const { held, read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    engine.generate(1, OTHER);
    engine.generate(2, LONG);
    // Names are hashes: whichever of the chain it is, what stands before it is taken.
    const damaged = records().sort()[3]!;
    const whole = readFileSync(join(folder, damaged));
    const bytes = Buffer.from(whole);
    bytes[bytes.length - 20]! ^= 1;
    writeFileSync(join(folder, damaged), bytes);
    while (held.length > 0) {
      await land();
      engine.step();
    }
    runAll();
    expect(outcome(1).tokens).toEqual(answered(OTHER));
    expect(outcome(2).tokens).toEqual(answered(LONG));
    expect(engine.metrics().prefix).toMatchObject({ storeRejected: 1 });
    expect(cachedOf(outcome(2))! % 32).toBe(0);
    expect(cachedOf(outcome(2))).toBe(engine.metrics().prefix.tokensRestored);
    expect(said).toEqual([expect.stringContaining('its checksum does not match')]);
    await engine.close();
    expect(readFileSync(join(folder, damaged))).toEqual(whole);
  });

  it('is computed when its records are gone by then, and read when only the reading ahead fails', async () => {
    const failing = stored(async () => Promise.reject(new Error('no thread')));
    failing.engine.generate(1, LONG);
    for (let round = 0; round < 3; ++round) {
      await settled();
      failing.engine.step();
    }
    failing.runAll();
    expect([failing.outcome(1).tokens, cachedOf(failing.outcome(1))]).toEqual([answered(LONG), 199]);
    await failing.engine.close();

    const { read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    engine.generate(1, LONG);
    for (const name of records()) rmSync(join(folder, name));
    await land();
    runAll();
    expect([outcome(1).tokens, cachedOf(outcome(1))]).toEqual([answered(LONG), 0]);
    expect(said).toHaveLength(1);
  });

  it('is given up with its request: blocks are free at once, and what lands later changes nothing', async () => {
    const { held, read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    engine.generate(1, LONG);
    await land(1);
    engine.step();
    engine.abort(1);
    expect(engine.metrics()).toMatchObject({ sequencesOpen: 0, kvBlocksUsed: 0 });
    const underWay = held.length;
    engine.generate(2, OTHER);
    for (let step = 0; step < 3; ++step) engine.step();
    await land();
    runAll();
    expect(held).toHaveLength(0);
    expect(underWay).toBe(4);
    expect(engine.metrics().prefix).toMatchObject({ tokensRestored: 32 });
    expect([outcome(1).events, outcome(2).tokens]).toEqual([[], answered(OTHER)]);
    engine.generate(3, LONG);
    await land();
    engine.step();
    await land();
    runAll();
    expect([outcome(3).tokens, cachedOf(outcome(3))]).toEqual([answered(LONG), 199]);
  });

  it('is read once for those that come together', async () => {
    const { held, read, land } = heldReads();
    const { engine, outcome, runAll } = stored(read);
    for (const id of [1, 2, 3]) engine.generate(id, LONG);
    while (held.length > 0) {
      await land();
      engine.step();
    }
    runAll();
    for (const id of [1, 2, 3]) expect([outcome(id).tokens, cachedOf(outcome(id))]).toEqual([answered(LONG), 199]);
    expect(engine.metrics().prefix.tokensRestored).toBe(199);
  });

  it('changes no token, whoever asks, leaves and is short of room meanwhile', async () => {
    const known = new Map<string, number[]>();
    const expected = (request: typeof LONG): number[] => {
      const key = request.promptIds.join();
      if (!known.has(key)) known.set(key, answered(request));
      return known.get(key)!;
    };
    const move = fc.oneof(
      fc.record({ kind: fc.constant('ask' as const), length: fc.constantFrom(0, 20, 33, 64, 100, 160, 199) }),
      fc.record({ kind: fc.constant('land' as const), count: fc.integer({ min: 1, max: 4 }) }),
      fc.record({ kind: fc.constant('step' as const) }),
      fc.record({ kind: fc.constant('abort' as const), which: fc.nat(9) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.record({ kvBlocks: fc.integer({ min: 8, max: 20 }), maxSequences: fc.integer({ min: 1, max: 3 }) }),
        fc.array(move, { minLength: 4, maxLength: 24 }),
        async (options, moves) => {
          const { held, read, land } = heldReads();
          const { engine, outcome, runAll } = stored(read, { ...options, maxQueued: 30 });
          const asked: (typeof LONG)[] = [];
          const gone = new Set<number>();
          for (const one of moves) {
            if (one.kind === 'ask') {
              const promptIds = [...LONG.promptIds.slice(0, one.length), 60, 61];
              engine.generate(asked.length, { ...LONG, promptIds });
              asked.push({ ...LONG, promptIds });
            } else if (one.kind === 'land') await land(one.count);
            else if (one.kind === 'step') engine.step();
            else if (one.which < asked.length) {
              engine.abort(one.which);
              gone.add(one.which);
            }
          }
          while (engine.hasWork || held.length > 0) {
            await land();
            if (!engine.step()) await settled();
          }
          runAll();
          for (const [id, request] of asked.entries())
            if (!gone.has(id)) expect(outcome(id).tokens).toEqual(expected(request));
          expect(engine.metrics()).toMatchObject({ sequencesOpen: 0, sequencesQueued: 0, kvBlocksUsed: 0 });
          await engine.close(true);
        },
      ),
      { numRuns: 80, seed: 5 },
    );
  });
});

describe('readAhead()', () => {
  it('reads a file to its end, refuses links, and says why it cannot', async () => {
    const path = join(folder, records()[0]!);
    await expect(readAhead(path, 1 << 20)).resolves.toBeUndefined();
    await expect(readAhead(join(folder, 'none'), 10)).rejects.toMatchObject({ code: 'ENOENT' });
    symlinkSync(path, join(folder, 'link'));
    await expect(readAhead(join(folder, 'link'), 10)).rejects.toMatchObject({ code: 'ELOOP' });
    await expect(readAhead(folder, 10)).rejects.toMatchObject({ code: 'EISDIR' });
  });
});
