/** Reads on a guess in a replay: on a disk whose times can be added up by hand, and beside an engine that makes them. */
import { describe, expect, it } from 'vitest';
import { mapRecording, type Recording } from '../../src/experts/trace.js';
import { settleGuesses } from '../../src/replay/guess-reads.js';
import { eventStallMs } from '../../src/replay/machine-model.js';
import { replayEngine } from '../../src/replay/replay-engine.js';
import { runReplay } from '../../src/replay/run-replay.js';
import type { MachineModel, ReplayPrefetch, ReplayRow, TraceToReplay } from '../../src/replay/types.js';
import { fakeEngine, TOY_ARCHITECTURE, TOY_GEOMETRY, TOY_MOE_LAYERS, toyRequest } from '../helpers/fake-engine.js';
import { MACHINE } from './machine.js';

/** A record of four parts takes 4 ms, and two of them may be with the disk. */
const IN_PARTS: MachineModel = {
  ...MACHINE,
  expertBytes: 4 * 2 ** 20,
  diskBytesPerMs: 2 ** 20,
  diskLatencyMs: 0,
  queueDepth: 4,
};

function recordingOf(
  tokens: number,
  layers: number,
  topK: number,
  idAt: (token: number, layer: number, rank: number) => number,
): Recording {
  const ids = new Uint16Array(tokens * layers * topK);
  for (let at = 0; at < ids.length; ++at) {
    ids[at] = idAt(Math.floor(at / (layers * topK)), Math.floor(at / topK) % layers, at % topK);
  }
  return { tokens, layers, topK, ids, weights: null, isRanked: true };
}

function replayed(
  trace: TraceToReplay,
  residency: number,
  machine: MachineModel,
  ...prefetches: ReplayPrefetch[]
): ReplayRow[] {
  const policies = ['default'];
  return runReplay({
    traces: [trace],
    policies,
    residencies: [residency],
    prefetches,
    scope: null,
    counting: null,
    machine,
  });
}

/** Numbers from 0 to 65,535 without a pattern, the same in every run. */
function drawn(): () => number {
  let state = 7;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 16;
  };
}

describe('settleGuesses()', () => {
  it('settleGuesses() has nothing to settle without guesses', () => {
    expect(settleGuesses([], MACHINE)).toEqual({ guesses: [], busyMs: 0 });
  });

  it.each([
    // Asked for 1 ms before the router has spoken: it lands .5 ms after that, wanted or not.
    [1, [true], [[0.5, 1000]], 0.5],
    [1, [false], [[0.5, 1000]], 0.5],
    // Asked for 2 ms before: in time.
    [2, [true], [[-0.5, 1000]], 0],
    // Guesses have half of the depth: the second one is not with the disk yet, and stops or goes on.
    [
      1,
      [false, false],
      [
        [0.5, 1000],
        [Number.POSITIVE_INFINITY, 0],
      ],
      0.5,
    ],
    [
      1,
      [false, true],
      [
        [0.5, 1000],
        [1.5, 1000],
      ],
      1.5,
    ],
    // The first has landed long ago, so the second goes to the disk when the router has spoken, with a latency of its own.
    [
      4,
      [true, false],
      [
        [-2.5, 1000],
        [1.5, 1000],
      ],
      1.5,
    ],
  ] as const)('settleGuesses() after %d ms of %j gives %j', (layerMs, isRight, expected, busyMs) => {
    const { guesses, busyMs: found } = settleGuesses(isRight, { ...MACHINE, layerMs });
    expect(guesses.map((read) => [read.landedMs, read.readBytes])).toEqual(expected);
    expect(found).toBeCloseTo(busyMs, 12);
  });

  it('settleGuesses() stops a wrong guess after the parts that are with the disk', () => {
    const MIB = 2 ** 20;
    // One part has ended, so two more are with the disk when the router has spoken.
    const wrong = settleGuesses([false], IN_PARTS);
    expect(wrong.guesses[0]).toEqual({ isRight: false, landedMs: Number.POSITIVE_INFINITY, readBytes: 3 * MIB });
    expect(wrong.busyMs).toBe(2);
    expect(settleGuesses([true], IN_PARTS)).toEqual({
      guesses: [{ isRight: true, landedMs: 3, readBytes: 4 * MIB }],
      busyMs: 3,
    });
  });
});

describe('eventStallMs() after guesses', () => {
  it.each([
    // Two hits end at .5, the late guess at .75; the miss is read from .5 to 1.5.
    [2, [0.5], 0.5, 0.75],
    // The same miss behind a wrong guess that ends at 1: 1 to 2, while three hits end at .75.
    [1, [], 1, 1.25],
    // A busy disk within the latency of the miss costs nothing.
    [1, [], 0.5, 0.75],
    // Nothing is missing, but the layer does not end before its reads.
    [0, [], 2, 1],
  ])('eventStallMs() of %d misses, late %j, busy until %d is %d ms', (misses, late, busyMs, stallMs) => {
    expect(eventStallMs(misses, 4, MACHINE, late, busyMs)).toBeCloseTo(stallMs, 12);
  });
});

describe('runReplay() with --prefetch statistics', () => {
  it('runReplay() waits less where one layer says what the next one wants, and reads little more', () => {
    // A walk through more experts than there are slots for, always in the same order.
    const recording = recordingOf(400, 2, 1, (token, layer) => (token * (layer === 0 ? 5 : 3)) % 16);
    const trace = { name: 'walk', recording, experts: 16 };
    const [off, on] = replayed(trace, 25, { ...MACHINE, layerMs: 4 }, 'off', 'statistics');
    expect(on!.stallMs).toBeLessThan(0.75 * off!.stallMs);
    expect(on!.usefulBytes).toBeGreaterThan(0.25 * on!.bytesPerToken);
    expect(on!.wastedBytes).toBeLessThan(0.05 * on!.bytesPerToken);
    // Where the disk has a fortieth of the time, the same guesses come too late.
    const [late] = replayed(trace, 25, { ...MACHINE, layerMs: 0.1 }, 'statistics');
    expect(late!.usefulBytes).toBe(0);
    expect(late!.lateBytes).toBeGreaterThan(0.25 * late!.bytesPerToken);
  });

  it('runReplay() makes no guesses for caches that are not the engine, or that hold too few experts for them', () => {
    const recording = recordingOf(20, 2, 2, (token, _layer, rank) => (token + 5 * rank) % 16);
    const trace = { name: 'few', recording, experts: 16 };
    const request = { traces: [trace], residencies: [20], scope: null, counting: null, machine: MACHINE };
    const prefetches = ['statistics'] as const;
    const rows = runReplay({ ...request, policies: ['lru', 'belady', 'default'], prefetches });
    expect(rows.map((row) => row.prefetch)).toEqual(['off', 'off', 'statistics']);
    const [off] = runReplay({ ...request, policies: ['default'] });
    const offReason = 'there are slots for 6 experts, and needed are 8';
    expect(rows[2]).toEqual({ ...off, prefetch: 'statistics', guessSource: 'statistics', offShare: 1, offReason });
  });
});

describe('replayEngine() with hardly a slot to spare', () => {
  it.each([
    [1, 4, 1],
    [1, 5, 0],
    [2, 8, 0],
    [3, 12, 0],
  ])(
    'replayEngine() finds slots for what top-%d tokens need of %d while guesses are on their way',
    (topK, slots, offShare) => {
      const recording = recordingOf(200, 3, topK, (token, layer, rank) => (token * (layer + 3) + 5 * rank) % 16);
      const trace = { name: 'tight', recording, experts: 16 };
      const machine = { ...MACHINE, layerMs: 1 };
      const speculates = { machine, source: 'statistics', confidenceLeast: 0 } as const;
      const { speculated } = replayEngine(trace, 0, { slots, speculates });
      expect(speculated!.off.share).toBe(offShare);
      expect(speculated!.lateBytes > 0).toBe(offShare === 0);
    },
  );
});

describe('runReplay() with --prefetch auto', () => {
  /** A walk of which one layer says what the next one wants. */
  const walk = (tokens: number): TraceToReplay => ({
    name: 'walk',
    recording: recordingOf(tokens, 2, 1, (token, layer) => (token * (layer === 0 ? 5 : 3)) % 16),
    experts: 16,
  });

  it('runReplay() goes on guessing where the disk is idle, but for the trials', () => {
    const [off, on, auto] = replayed(walk(1000), 25, { ...MACHINE, layerMs: 4 }, 'off', 'statistics', 'auto');
    expect(auto).toMatchObject({ guessSource: 'statistics', offReason: null });
    // Half of each trial of 64 steps, of which the first is followed by 448 steps.
    expect(auto!.offShare).toBeCloseTo((32 + 32) / 1000, 12);
    expect(auto!.stallMs).toBeLessThan(0.8 * off!.stallMs);
    expect(auto!.stallMs).toBeGreaterThan(on!.stallMs);
    expect(on!.offShare).toBe(0);
    expect(off).toMatchObject({ guessSource: null, offShare: null, offReason: null });
  });

  it('replayEngine() stops guessing where that costs time, and says why', () => {
    // No pattern, and every guess is believed: most push out what is wanted soon.
    const draw = drawn();
    const recording = recordingOf(1000, 4, 2, (_token, _layer, rank) => (draw() % 8) * 2 + rank);
    const trace = { name: 'noise', recording, experts: 16 };
    const machine = { ...MACHINE, layerMs: 2, expertMs: 0.01 };
    const speculates = { machine, source: 'statistics', confidenceLeast: 0 } as const;
    const on = replayEngine(trace, 0.25, { speculates }).speculated!;
    const auto = replayEngine(trace, 0.25, { speculates: { ...speculates, isAuto: true } }).speculated!;
    // The first trial guesses in 32 steps; the next one is 1,984 steps away.
    expect(auto.off.share).toBeCloseTo(1 - 32 / 1000, 12);
    const times = /^a step took ([\d.]+) ms with it and ([\d.]+) ms without$/.exec(auto.off.reason!);
    expect(Number(times![1])).toBeGreaterThan(Number(times![2]));
    expect(auto.wastedBytes).toBeLessThan(0.1 * on.wastedBytes);
  });
});

describe('replayEngine() with reads on a guess', () => {
  // Nothing is known of layer 1, so experts 0 to 3 are as good as any, and it wants 1. Layer 0 reads on demand: 1.5 ms.
  const first = { name: 'first', recording: recordingOf(1, 2, 1, (_, layer) => (layer === 0 ? 5 : 1)), experts: 8 };

  it.each([
    // All four are with the disk at -2 ms and land at -.5, .5, 1.5 and 2.5: waits of .5 for 1, 1.75 for the disk.
    [8, 2, { usefulBytes: 0, lateBytes: 1000, wastedBytes: 3000, demandBytes: 1000, stallMs: 3.75 }],
    // One at a time: 0 lands at -.5, 1 is asked for when the router has spoken, 2 and 3 are never read.
    [2, 2, { usefulBytes: 0, lateBytes: 1000, wastedBytes: 1000, demandBytes: 1000, stallMs: 3 }],
    // They land at -2.5, -1.5, -.5 and .5: 1 runs until .25 and the layer ends at .5.
    [8, 4, { usefulBytes: 1000, lateBytes: 0, wastedBytes: 3000, demandBytes: 1000, stallMs: 1.75 }],
  ])('replayEngine() counts guesses at depth %d, %d ms a layer', (queueDepth, layerMs, expected) => {
    const machine = { ...MACHINE, queueDepth, layerMs };
    expect(
      replayEngine(first, 0.5, { speculates: { machine, source: 'statistics', confidenceLeast: 0.5 } }).speculated,
    ).toMatchObject(expected);
    // What nobody has shown to be right is not read by itself.
    const { speculated } = replayEngine(first, 0.5, { speculates: { machine, source: 'statistics' } });
    expect(speculated).toMatchObject({ wastedBytes: 0, demandBytes: 2000, stallMs: 3 });
  });

  it('replayEngine() wastes at most a tenth where routing has no pattern, and makes few guesses if left alone', () => {
    const draw = drawn();
    const recording = recordingOf(400, 4, 2, (_token, _layer, rank) => (draw() % 16) * 2 + rank);
    const trace = { name: 'noise', recording, experts: 32 };
    const speculates = { machine: { ...MACHINE, layerMs: 4 }, source: 'statistics' as const };
    const { wastedBytes, usefulBytes, demandBytes } = replayEngine(trace, 0.25, {
      speculates: { ...speculates, confidenceLeast: 0 },
    }).speculated!;
    expect(wastedBytes).toBeGreaterThan(0.05 * demandBytes);
    // Eight records may be wasted before anything is earned.
    expect(wastedBytes - 8000).toBeLessThanOrEqual(0.1 * (wastedBytes + usefulBytes + demandBytes));
    expect(replayEngine(trace, 0.25, { speculates }).speculated!.wastedBytes).toBeLessThan(0.01 * demandBytes);
  });

  it('replayEngine() makes the fewer guesses the less time the disk has for them', () => {
    const recording = recordingOf(400, 2, 2, (token, layer, rank) => ((token + 9 * rank) * (layer === 0 ? 5 : 3)) % 32);
    const trace = { name: 'walk', recording, experts: 32 };
    const shares = [0.05, 0.5, 2].map((layerMs) => {
      const { usefulBytes, lateBytes, demandBytes } = replayEngine(trace, 0.25, {
        speculates: { machine: { ...MACHINE, diskLatencyMs: 0.01, layerMs }, source: 'statistics' },
      }).speculated!;
      return (usefulBytes + lateBytes) / (usefulBytes + lateBytes + demandBytes);
    });
    expect(shares[0]).toBeLessThan(shares[1]!);
    expect(shares[1]).toBeLessThan(shares[2]!);
  });

  it.each([12, 15, 18, 27])('replayEngine() reads what an engine of %d slots reads on a guess', (slots) => {
    const { topK, expertCount: experts } = TOY_ARCHITECTURE;
    const layers = TOY_MOE_LAYERS.length;
    const tokens = 120;
    const recording = recordingOf(tokens, layers, topK, (token, layer, rank) => {
      const word = ((token >> 3) % 3 === 2 ? (token >> 4) % 5 : (token >> 3) % 2) * 8 + (token & 7);
      return (word * 5 + layer * 3 + rank * 4 + (word >> 2)) % experts;
    });
    const trace = mapRecording(recording, { layers, experts, topK }, 'phrases');
    const { engine, native, runAll } = fakeEngine({ experts: slots, trace, maxSequences: 1, prefetch: 'on' });
    // A disk that is always in time: whenever the engine looks, all reads have landed.
    const take = native.takeCompletions.bind(native);
    native.takeCompletions = (out) => {
      for (let i = 0; i < 8; ++i) take(new Int32Array(0));
      return take(out);
    };
    engine.generate(1, toyRequest(0, 1, tokens));
    runAll();
    const { decode, prefetch } = engine.metrics();

    const expertBytes = 4 * TOY_GEOMETRY.bitBytes + TOY_GEOMETRY.scaleBytes;
    const machine = { ...MACHINE, expertBytes, diskBytesPerMs: 1e12, diskLatencyMs: 0, queueDepth: 8 };
    const share = slots / (layers * experts);
    const run = replayEngine({ name: 'phrases', recording, experts }, share, {
      speculates: { machine, source: 'statistics' },
    });
    expect(prefetch.reads).toBeGreaterThan(20);
    // The first token belongs to the prompt.
    expect(run.misses.subarray(layers).reduce((sum, count) => sum + count, 0)).toBe(decode.misses);
    const { usefulBytes, lateBytes, wastedBytes } = run.speculated!;
    expect({ usefulBytes, lateBytes }).toEqual({ usefulBytes: prefetch.usefulBytes, lateBytes: 0 });
    expect(usefulBytes + wastedBytes).toBe(prefetch.bytes);
  });
});
