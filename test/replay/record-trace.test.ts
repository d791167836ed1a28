/** What an engine records is what it did: the replay of its steps reads what it read. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { engineConfig } from '../../src/config.js';
import { startEngine } from '../../src/engine/client.js';
import { openTraceFile, TraceRecorder, type TraceSink } from '../../src/engine/trace-recorder.js';
import { GREEDY } from '../../src/engine/types.js';
import { headerLine, readSteps } from '../../src/experts/recorded-steps.js';
import { openTrace } from '../../src/replay/open-trace.js';
import { AS_RECORDED, runReplay } from '../../src/replay/run-replay.js';
import { TOY_STEPS_HEADER } from '../helpers/toy-steps-header.js';

const POCKET = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));
const MACHINE = { expertBytes: 1, diskBytesPerMs: 1000, diskLatencyMs: 0.1, queueDepth: 8, layerMs: 1, expertMs: 1 };

describe('--record-trace', () => {
  it('records what the bundled model routes, and its replay reads what the engine read', {
    timeout: 120_000,
  }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'moestro-trace-'));
    try {
      const path = join(folder, 'pocket.moetrace');
      const settings = {
        recordTrace: path,
        maxResidentExperts: 24,
        chunk: 16,
        maxSequences: 2,
        threads: 1,
        prefetch: 'off',
      };
      const client = await startEngine(engineConfig(POCKET, settings, {}));
      const ask = async (seed: number) => {
        const promptIds = Array.from({ length: 20 }, (_, i) => (seed * 37 + i * 11) % client.info.vocabSize);
        const request = { promptIds, maxTokens: 40, stopTokenIds: [], sampling: { ...GREEDY, temperature: 1, seed } };
        for await (const _ of client.generate(request));
      };
      await Promise.all([ask(1), ask(2)]);
      await ask(3);
      const metrics = await client.metrics();
      await client.close();
      expect(metrics.recording).toMatchObject({ steps: metrics.steps, droppedSteps: 0, failure: null });

      const trace = openTrace(path, {});
      const { tokens, live } = trace.recording;
      expect(live?.steps).toHaveLength(metrics.steps);
      expect(tokens).toBe(metrics.tokensPrefilled + metrics.tokensDecoded);
      const [row, guessing] = runReplay({
        traces: [trace],
        policies: ['default'],
        residencies: [AS_RECORDED, 25],
        prefetches: ['router'],
        scope: null,
        counting: null,
        machine: MACHINE,
      });
      expect(metrics.bytesRead).toBeGreaterThan(0);
      expect(Math.abs(row!.bytesPerToken / (metrics.bytesRead / tokens) - 1)).toBeLessThan(0.03);
      expect(row!.stallMs).toBeGreaterThanOrEqual(0);
      expect(row!.tokensPerSecond).toBeGreaterThan(0);
      // A trained router asked early is right far more often than the 4 of 32 of chance.
      expect(guessing!.earlyRecall).toBeGreaterThan(0.6);
      expect(guessing!.usefulBytes + guessing!.lateBytes).toBeGreaterThan(guessing!.wastedBytes);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the file of a recording', () => {
  it('never takes another one away', () => {
    const folder = mkdtempSync(join(tmpdir(), 'moestro-trace-'));
    const path = join(folder, 'chat.moetrace');
    const record = (text: string) => openTraceFile(path).end(Buffer.from(text));
    try {
      writeFileSync(path, '');
      record('first');
      record('second');
      record('third');
      expect(readdirSync(folder).sort()).toEqual(['chat-2.moetrace', 'chat-3.moetrace', 'chat.moetrace']);
      expect(readFileSync(path, 'utf8')).toBe('first');
      expect(readFileSync(join(folder, 'chat-2.moetrace'), 'utf8')).toBe('second');
      expect(readFileSync(join(folder, 'chat-3.moetrace'), 'utf8')).toBe('third');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('may be a device, and names a folder that is not there', () => {
    openTraceFile('/dev/null').end(Buffer.from('gone'));
    expect(() => openTraceFile(join(tmpdir(), 'not-there', 'chat.moetrace'))).toThrow(/Cannot write the routing trace/);
  });
});

/** A sink whose writes end when told to. */
function sink() {
  const parts: Uint8Array[] = [];
  const pending: ((error: Error | null) => void)[] = [];
  const made: TraceSink = {
    write: (bytes, written) => {
      parts.push(bytes.slice());
      pending.push(written);
    },
    end: (bytes) => {
      parts.push(bytes.slice());
    },
  };
  return { made, pending, bytes: () => Uint8Array.from(parts.flatMap((part) => [...part])) };
}

/** One step of one token that chooses experts 3 and 1. */
function step(recorder: TraceRecorder): void {
  const batch = { tokens: 1, rowCount: 1, rowIds: [7], rowTokens: [1] } as never;
  recorder.beginStep(batch);
  const routing = { layer: 0, tokens: 1, topK: 2, ids: [3, 1], weights: [0.75, 0.25], levels: [2, 2] } as never;
  recorder.layer(routing, { experts: 4, bitSlots: 6, scaleSlots: 3, residentBits: [0, 2, 0, 0] } as never);
  recorder.endStep();
}

describe('TraceRecorder', () => {
  it('writes steps that readSteps() reads back', async () => {
    const out = sink();
    const recorder = new TraceRecorder(TOY_STEPS_HEADER, 1, out.made);
    step(recorder);
    step(recorder);
    await recorder.close();
    const { tokens, ids, weights, live } = readSteps('a.moetrace', out.bytes());
    expect([tokens, [...ids], [...weights!]]).toEqual([2, [3, 1, 3, 1], [0.75, 0.25, 0.75, 0.25]]);
    expect([...live!.residentBits]).toEqual([0, 2, 0, 2]);
    expect(live!.steps[1]).toMatchObject({ firstToken: 1, tokens: 1, rowIds: [7], rowTokens: [1] });
    expect([...live!.steps[0]!.bitSlots, ...live!.steps[0]!.scaleSlots]).toEqual([6, 3]);
  });

  it('leaves steps out and counts them while the disk is slow, and goes on afterwards', async () => {
    const out = sink();
    const recorder = new TraceRecorder(TOY_STEPS_HEADER, 1, out.made, null, headerLine(TOY_STEPS_HEADER).length + 100);
    for (let i = 0; i < 20; ++i) step(recorder);
    const { steps, droppedSteps } = recorder.metrics();
    expect(steps + droppedSteps).toBe(20);
    expect(droppedSteps).toBeGreaterThan(0);
    expect(out.pending).toHaveLength(1);
    out.pending[0]!(null);
    step(recorder);
    const closing = recorder.close();
    out.pending[1]!(null);
    await closing;
    const { live } = readSteps('a.moetrace', out.bytes());
    expect(live!.steps).toHaveLength(steps + 1);
    expect(live!.droppedSteps).toBe(droppedSteps);
  });

  it('ends with the reason when the disk is full, and what is there can be read', async () => {
    const out = sink();
    const recorder = new TraceRecorder(TOY_STEPS_HEADER, 1, out.made, null, headerLine(TOY_STEPS_HEADER).length + 100);
    for (let i = 0; i < 4; ++i) step(recorder);
    out.pending[0]!(new Error('ENOSPC: no space left on device'));
    step(recorder);
    expect(recorder.metrics().failure).toBe('ENOSPC: no space left on device');
    await recorder.close();
    const cut = out.bytes().subarray(0, headerLine(TOY_STEPS_HEADER).length + 50);
    expect(readSteps('a.moetrace', cut).tokens).toBe(1);
  });

  it.each([
    ['{"format":"other"}\n', 'its first line is'],
    ['no line', 'it has no line end'],
    [headerLine({ ...TOY_STEPS_HEADER, topK: 65 }), 'its topK are 65'],
    [headerLine({ ...TOY_STEPS_HEADER, guesses: 5 }), 'its guesses are 5, of 4 experts'],
    [headerLine({ ...TOY_STEPS_HEADER, guesses: -1 }), 'its guesses are -1, not 0 to 128'],
    [headerLine({ ...TOY_STEPS_HEADER, guessTokens: 0.5 }), 'its guessTokens are 0.5, not 0 to 1024'],
    [headerLine({ ...TOY_STEPS_HEADER, version: 3 as 2 }), 'not that of a moestro-routing file of version 1 or 2'],
    [headerLine(TOY_STEPS_HEADER), 'it holds no token'],
  ])('readSteps() refuses a file that begins %j', (text, found) => {
    expect(() => readSteps('a.moetrace', new TextEncoder().encode(text))).toThrow(found);
  });
});
