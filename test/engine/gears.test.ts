/** Gears on a clock of their own: a joint step takes long, a step of a turn its time, by what each test says. */
import { describe, expect, it } from 'vitest';
import { type Geared, Gears } from '../../src/engine/gears.js';
import type { GearMode } from '../../src/engine/types.js';

interface Machine {
  readonly streams: number;
  /** Milliseconds of a step with so many streams. */
  readonly stepMs: (rows: number) => number;
  readonly stallShare?: number;
  readonly alike?: (a: number, b: number) => number | null;
  readonly mode?: GearMode;
  readonly gapMs?: number;
}

function run({ streams, stepMs, stallShare = 0.6, alike = () => 0, mode = 'auto', gapMs = 2000 }: Machine) {
  const gears = new Gears(mode, gapMs, alike);
  const sequences = Array.from({ length: streams }, (_, id) => ({ id, pending: 1, generated: 1, lastRunMs: 0 }));
  const rests = new Uint8Array(64);
  let now = 0;
  const tokens = new Map<number, number>();
  const order: number[][] = [];
  const steps = (count: number): void => {
    for (let i = 0; i < count; ++i) {
      gears.choose(sequences, now, rests);
      const ran: Geared[] = sequences.filter((one, at) => one.pending > 0 && rests[at] === 0);
      expect(ran.length).toBeGreaterThan(0);
      order.push(ran.map(({ id }) => id));
      const ms = stepMs(ran.length);
      now += ms;
      for (const { id } of ran) tokens.set(id, (tokens.get(id) ?? 0) + 1);
      gears.stepped(ran, now, { isDecode: true, decoded: ran.length, stepMs: ms, stallMs: ms * stallShare });
    }
  };
  return { gears, sequences, steps, tokens, order, now: () => now };
}

describe('Gears', () => {
  it('stays joint where steps do not wait for reads', () => {
    const { gears, steps, order } = run({ streams: 4, stepMs: () => 20, stallShare: 0.02 });
    steps(400);
    expect(gears.metrics()).toMatchObject({ gear: 'joint', switches: 0, turns: 0 });
    expect(order.every((ids) => ids.length === 4)).toBe(true);
  });

  it('takes turns where they are faster, all streams alike in number of tokens, none waiting beyond the gap', () => {
    const { gears, steps, tokens } = run({ streams: 4, stepMs: (rows) => (rows === 1 ? 15 : rows * 30) });
    steps(2000);
    const { gear, turns, gapMaxMs } = gears.metrics();
    expect(gear).toBe('burst');
    expect(turns).toBeGreaterThan(20);
    expect(gapMaxMs).toBeLessThanOrEqual(2000);
    const counts = [...tokens.values()];
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(128);
  });

  it('goes back to joint steps where turns do not pay, and tries them ever more rarely', () => {
    const { gears, steps, now } = run({ streams: 4, stepMs: (rows) => (rows === 1 ? 30 : 40) });
    steps(8000);
    const { gear, switches } = gears.metrics();
    expect(gear).toBe('joint');
    expect(switches).toBeGreaterThanOrEqual(4);
    expect(switches).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(now() / 20_000) + 1));
  });

  it('never leaves the gear it is told', () => {
    const joint = run({ streams: 4, stepMs: (rows) => rows * 100, mode: 'joint' });
    joint.steps(200);
    expect(joint.gears.metrics()).toMatchObject({ gear: 'joint', turns: 0 });
    const burst = run({ streams: 3, stepMs: () => 50, stallShare: 0, mode: 'burst' });
    burst.steps(200);
    expect(burst.gears.metrics().gear).toBe('burst');
    expect(burst.order.every((ids) => ids.length === 1)).toBe(true);
  });

  it('lets those alike share a turn', () => {
    const { order, steps } = run({
      streams: 4,
      stepMs: () => 20,
      mode: 'burst',
      alike: (a, b) => (a % 2 === b % 2 ? 0.9 : 0.1),
    });
    steps(300);
    expect(new Set(order.map((ids) => ids.join()))).toEqual(new Set(['0,2', '1,3']));
  });

  it('keeps the gap when streams that were alike are no longer', () => {
    let isAlike = true;
    const { gears, steps } = run({ streams: 6, stepMs: () => 20, mode: 'burst', alike: () => (isAlike ? 0.9 : 0) });
    for (let round = 0; round < 8; ++round) {
      isAlike = round % 2 === 0;
      steps(150);
    }
    expect(gears.metrics().gapMaxMs).toBeLessThanOrEqual(2000 + 6 * 20);
  });

  it('lets everybody come along while a prompt sweeps the experts, and passes over one whose reader lags', () => {
    const { gears, sequences, steps, order } = run({ streams: 3, stepMs: () => 20, mode: 'burst' });
    steps(3);
    sequences[1]!.pending = 0;
    steps(300);
    expect(order.slice(3).flat()).not.toContain(1);
    sequences[1]!.pending = 1;
    const prompt = { id: 7, pending: 300, generated: 0, lastRunMs: 0 };
    const rests = new Uint8Array(8);
    gears.choose([...sequences, prompt], 1e6, rests);
    expect([...rests.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
  });

  it('gives the turn on when the stream that had it is done', () => {
    const { sequences, steps, order } = run({ streams: 2, stepMs: () => 20, mode: 'burst' });
    steps(2);
    const [had] = order.at(-1)!;
    sequences.splice(
      sequences.findIndex(({ id }) => id === had),
      1,
    );
    steps(1);
    expect(order.at(-1)).toEqual([1 - had!]);
  });
});
