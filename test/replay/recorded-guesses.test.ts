/** What routers say a layer early: from the engine into a recording, and from there into a replay that reads what it read. */
import { describe, expect, it } from 'vitest';
import { EarlyRouter } from '../../src/engine/early-router.js';
import { recorderBytes, TraceRecorder, type TraceSink } from '../../src/engine/trace-recorder.js';
import { Confidence } from '../../src/experts/prediction/confidence.js';
import { guessShape, marginCode, marginOf } from '../../src/experts/recorded-guesses.js';
import { headerLine, readSteps, type StepsHeader, stepBytes } from '../../src/experts/recorded-steps.js';
import { earlyRecall } from '../../src/replay/early-recall.js';
import { replayEngine } from '../../src/replay/replay-engine.js';
import { AS_RECORDED, runReplay } from '../../src/replay/run-replay.js';
import type { TraceToReplay } from '../../src/replay/types.js';
import {
  type FakeEngineOptions,
  fakeEngine,
  TOY_ARCHITECTURE,
  TOY_GEOMETRY,
  toyRequest,
} from '../helpers/fake-engine.js';
import { TOY_STEPS_HEADER } from '../helpers/toy-steps-header.js';
import { MACHINE } from './machine.js';

const LAYERS = 3;
const { topK, expertCount: EXPERTS } = TOY_ARCHITECTURE;
const EXPERT_BYTES = 4 * TOY_GEOMETRY.bitBytes + TOY_GEOMETRY.scaleBytes;

/** A file in memory that is always ready. */
function memorySink() {
  const parts: number[] = [];
  const made: TraceSink = {
    write: (bytes, written) => {
      parts.push(...bytes);
      written(null);
    },
    end: (bytes) => {
      parts.push(...bytes);
    },
  };
  return { made, bytes: () => Uint8Array.from(parts) };
}

/** What a toy engine records of one answer, and the engine. */
async function recorded(options: FakeEngineOptions, prompt = 1, tokens = 120) {
  const out = memorySink();
  const fake = fakeEngine({ maxSequences: 1, ...options, recordTo: out.made });
  // A disk that is always in time: whenever the engine looks, all reads have landed.
  const take = fake.native.takeCompletions.bind(fake.native);
  fake.native.takeCompletions = (completions) => {
    for (let i = 0; i < 8; ++i) take(new Int32Array(0));
    return take(completions);
  };
  fake.engine.generate(1, toyRequest(0, prompt, tokens));
  fake.runAll();
  const metrics = fake.engine.metrics();
  await fake.engine.close();
  const recording = readSteps('toy.moetrace', out.bytes());
  const trace: TraceToReplay = { name: 'toy.moetrace', recording, experts: EXPERTS };
  return { ...fake, metrics, bytes: out.bytes(), recording, trace };
}

describe('a recording of guesses', () => {
  it.each([12, 15, 18, 27])('holds what an engine of %d slots read on a guess of routers', async (slots) => {
    const { metrics, trace, recording } = await recorded({ experts: slots, prefetch: 'on' });
    expect(recording.live!.guesses).toMatchObject({ perToken: EXPERTS });
    const machine = { ...MACHINE, expertBytes: EXPERT_BYTES, diskBytesPerMs: 1e12, diskLatencyMs: 0, queueDepth: 8 };
    const run = replayEngine(trace, slots / (LAYERS * EXPERTS), { speculates: { machine, source: 'router' } });
    const { decode, prefetch } = metrics;
    expect(prefetch.reads).toBeGreaterThan(20);
    // The first token belongs to the prompt.
    expect(run.misses.subarray(LAYERS).reduce((sum, count) => sum + count, 0)).toBe(decode.misses);
    const { usefulBytes, lateBytes, wastedBytes } = run.speculated!;
    expect({ usefulBytes, lateBytes }).toEqual({ usefulBytes: prefetch.usefulBytes, lateBytes: 0 });
    expect(usefulBytes + wastedBytes).toBe(prefetch.bytes);
  });

  it('is made without reads on a guess too, and changes no answer', async () => {
    const { outcome, recording } = await recorded({ experts: 12 });
    const plain = fakeEngine({ maxSequences: 1, experts: 12 });
    plain.engine.generate(1, toyRequest(0, 1, 120));
    plain.runAll();
    expect(outcome(1).tokens).toEqual(plain.outcome(1).tokens);
    // The toy's routers are right two times in three, and by chance now and then.
    expect(earlyRecall(recording)).toBeGreaterThan(0.6);
    expect(earlyRecall(recording)).toBeLessThan(0.85);
  });

  it('holds none of a prompt in large steps, and "auto" compares the others only', async () => {
    const { recording, trace } = await recorded({ experts: 12, chunkTokens: 8 }, 16, 100);
    const { indexOf, ids } = recording.live!.guesses!;
    expect([...indexOf.subarray(0, 18)]).toEqual([...Array(16).fill(-1), 0, 1]);
    expect(ids).toHaveLength((recording.tokens - 16) * LAYERS * EXPERTS);
    const rows = runReplay({
      traces: [trace],
      policies: ['default'],
      residencies: [40, AS_RECORDED],
      prefetches: ['router', 'auto'],
      scope: null,
      counting: null,
      machine: { ...MACHINE, layerMs: 4 },
    });
    expect(rows.map((row) => [row.prefetch, row.guessSource])).toEqual([
      ['router', 'router'],
      ['auto', 'router'],
      ['off', null],
    ]);
    expect(rows[1]!.offShare! * (recording.tokens - 16)).toBeCloseTo(32, 9);
  });

  it('holds none where routing was replayed, or in a file of version 1, and the replay says so', async () => {
    const replayedRouting = {
      routingFor: (_step: number, _layer: number, count: number, ids: Uint16Array, weights: Float32Array) => {
        for (let i = 0; i < count * topK; ++i) [ids[i], weights[i]] = [i % topK, 1 / topK];
      },
    } as never;
    const { bytes, recording, trace } = await recorded({ experts: 12, trace: replayedRouting }, 1, 5);
    expect(recording.live!.guesses).toBeNull();
    const refusal = (of: TraceToReplay) => () =>
      runReplay({
        traces: [of],
        policies: ['default'],
        residencies: [40],
        prefetches: ['router'],
        scope: null,
        counting: null,
        machine: MACHINE,
      });
    expect(refusal(trace)).toThrow(
      'its routing was replayed from another recording, so no router was asked; needed a .moe',
    );
    // Without guesses the steps are those of version 1, whose first line did not speak of any.
    const end = bytes.indexOf(10);
    const { guesses: _, guessTokens: __, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    const first = new TextEncoder().encode(`${JSON.stringify({ ...header, version: 1 })}\n`);
    const old = readSteps('old.moetrace', Uint8Array.from([...first, ...bytes.subarray(end + 1)]));
    expect(old).toMatchObject({ tokens: recording.tokens, ids: recording.ids, live: { guesses: null } });
    expect(refusal({ ...trace, recording: old })).toThrow('it is of version 1, which holds no guesses of routers');
    const prompt = await recorded({ experts: 12, chunkTokens: 16 }, 16, 1);
    expect(refusal(prompt.trace)).toThrow('none of its steps has at most 4 tokens');
  });
});

const HEADER: StepsHeader = { ...TOY_STEPS_HEADER, guesses: 3, guessTokens: 1 };

/** A file of one step of one token with these guesses. */
function fileOf(ids: readonly number[], codes: readonly number[]): Uint8Array {
  const bytes = stepBytes(HEADER, 1, 1);
  const step = new DataView(new ArrayBuffer(bytes));
  step.setUint32(0, bytes - 4, true);
  step.setUint32(8, 1, true);
  step.setUint32(16, 1, true);
  // Behind slots: experts 0 and 1, their weights, and bits wanted.
  step.setUint16(28 + 2, 1, true);
  for (const rank of [0, 1]) step.setUint8(28 + 12 + rank, 2);
  for (const [i, id] of ids.entries()) step.setUint16(28 + 16 + 2 * i, id, true);
  for (const [i, code] of codes.entries()) step.setInt8(28 + 16 + 6 + i, code);
  return Uint8Array.from([...new TextEncoder().encode(headerLine(HEADER)), ...new Uint8Array(step.buffer)]);
}

describe('readSteps() of guesses', () => {
  it('reads them back, and none where the router was not asked', () => {
    const { guesses } = readSteps('a.moetrace', fileOf([3, 0, 1], [40, 40, -20])).live!;
    expect([[...guesses!.ids], [...guesses!.codes], [...guesses!.indexOf]]).toEqual([[3, 0, 1], [40, 40, -20], [0]]);
    const none = readSteps('a.moetrace', fileOf([0, 0, 0], [-128, -128, -128]));
    expect(none.live!.guesses!.codes.every((code) => marginOf(code) === null)).toBe(true);
    expect(earlyRecall(none)).toBeNull();
  });

  it.each([
    [[4, 0, 1], [3, 2, 1], 'a guess of expert 4'],
    [[2, 0, 2], [3, 2, 1], 'a guess of expert 2 twice'],
    [[2, 0, 1], [1, 2, 1], 'guesses that do not stand best first'],
    [[2, 0, 1], [-128, 2, 1], 'guesses that do not stand best first'],
  ])('refuses experts %j with margins %j', (ids, codes, found) => {
    expect(() => readSteps('a.moetrace', fileOf(ids, codes))).toThrow(`has ${found} in layer 0`);
  });

  it('leaves out a step that is cut within its guesses, and refuses one that is too short for them', () => {
    const whole = fileOf([3, 0, 1], [40, 40, -20]);
    const line = headerLine(HEADER).length;
    const twice = Uint8Array.from([...whole, ...whole.subarray(line)]);
    expect(readSteps('a.moetrace', twice).tokens).toBe(2);
    expect(readSteps('a.moetrace', twice.subarray(0, -1)).tokens).toBe(1);
    const short = whole.slice(0, -1);
    new DataView(short.buffer).setUint32(line, whole.length - line - 5, true);
    expect(() => readSteps('a.moetrace', short)).toThrow('not those of 1 tokens in 1 rows');
  });
});

describe('marginCode()', () => {
  it('keeps every margin among those that are believed alike', () => {
    for (let margin = -3; margin < 3; margin += 0.001) {
      const kept = marginOf(marginCode(Math.fround(margin)))!;
      expect(Math.abs(kept - margin)).toBeLessThanOrEqual(0.0126);
      const confidence = new Confidence();
      confidence.observe(Math.fround(margin), true);
      expect(confidence.of(kept)).toBeGreaterThan(0.5);
    }
    expect([marginCode(1e9), marginCode(-1e9)]).toEqual([127, -127]);
  });
});

describe('TraceRecorder', () => {
  it('has room for a small step with its guesses where that is longer than the largest one', async () => {
    const shape = guessShape(300, 1);
    expect(shape).toEqual({ guesses: 16, guessTokens: 4 });
    const header = { ...HEADER, experts: 300, topK: 1, layers: 2, ...shape };
    expect(stepBytes(header, 1, 4)).toBeGreaterThan(stepBytes(header, 1, 5));
    const out = memorySink();
    const early = new EarlyRouter(300, 1, (_, scores) => {
      for (let i = 0; i < scores.length; ++i) scores[i] = i;
    });
    const recorder = new TraceRecorder(header, 5, out.made, early, 1);
    recorder.beginStep({ tokens: 4, rowCount: 1, rowIds: [7], rowTokens: [4] } as never);
    for (const layer of [0, 1]) {
      const [ids, weights, levels] = [
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [2, 2, 2, 2],
      ];
      recorder.layer(
        { layer, tokens: 4, topK: 1, ids, weights, levels } as never,
        { experts: 300, bitSlots: 6, scaleSlots: 3, residentBits: new Uint8Array(600) } as never,
      );
      if (layer === 0) recorder.layerAhead(1, 3);
    }
    recorder.endStep();
    await recorder.close();
    expect(recorder.metrics()).toMatchObject({ steps: 1, droppedSteps: 0 });
    const { guesses } = readSteps('a.moetrace', out.bytes()).live!;
    expect(marginOf(guesses!.codes[0]!)).toBeNull();
    // The last token's guesses about layer 1: the marginal one is the best.
    expect([...guesses!.ids.subarray(7 * 16, 7 * 16 + 3)]).toEqual([299, 298, 297]);
    expect(guesses!.codes[7 * 16]).toBe(0);
    expect(recorderBytes(header, 5)).toBe(2 << 20);
  });
});
