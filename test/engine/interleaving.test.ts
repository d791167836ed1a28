/**
 * Requests, readers that lag or leave, evaluations and failing reads in any order: every answer that is read to its end
 * is the one the request gets alone, and in the end nothing is held.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Mode, PrefetchMode } from '../../src/engine/types.js';
import { fakeEngine, TOY_ARCHITECTURE, toyOffset, toyRequest } from '../helpers/fake-engine.js';

interface Ask {
  readonly prompt: number;
  readonly length: number;
  readonly maxTokens: number;
  readonly mode: Mode;
}

/** Room for one sequence of the whole context, and little more. */
const CONTEXT = { contextLength: 400, kvBlocks: 13 };

const alone = new Map<string, number[]>();
function tokensAlone(ask: Ask): number[] {
  const key = JSON.stringify(ask);
  const known = alone.get(key);
  if (known !== undefined) return known;
  const { engine, outcome } = fakeEngine({ ...CONTEXT, mode: ask.mode });
  engine.generate(1, toyRequest(ask.prompt, ask.length, ask.maxTokens));
  while (engine.step()) engine.acknowledge(1, 1);
  alone.set(key, outcome(1).tokens);
  return outcome(1).tokens;
}

const ask = fc.record({
  prompt: fc.nat(4),
  length: fc.integer({ min: 1, max: 60 }),
  maxTokens: fc.constantFrom(1, 20, 90, 280, 340),
  mode: fc.constantFrom<Mode>('exact', 'routed'),
});
const action = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('ask' as const), ask }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('evaluate' as const), length: fc.integer({ min: 1, max: 50 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('abort' as const, 'stop' as const), of: fc.nat(20) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), of: fc.nat(20) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const), count: fc.integer({ min: 1, max: 120 }) }) },
);

it('Engine answers as each request alone whatever is asked, read and left meanwhile', () => {
  fc.assert(
    fc.property(
      fc.record({
        experts: fc.integer({ min: 1, max: 20 }),
        extraBitSlots: fc.nat(3),
        chunkTokens: fc.integer({ min: 1, max: 40 }),
        kvBlocks: fc.integer({ min: 13, max: 16 }),
        maxSequences: fc.integer({ min: 1, max: 4 }),
        maxLogitRows: fc.integer({ min: 1, max: 3 }),
        prefetch: fc.constantFrom<PrefetchMode>('on', 'auto', 'off'),
        seed: fc.integer({ min: 1, max: 1 << 30 }),
      }),
      fc.option(fc.nat(TOY_ARCHITECTURE.expertCount - 1), { nil: null }),
      fc.array(action, { maxLength: 30 }),
      (options, failing, actions) => {
        const fault = failing === null ? [] : [toyOffset(2, failing), toyOffset(2, failing) + 1];
        const { engine, outcome } = fakeEngine({ ...CONTEXT, ...options, maxQueued: 40, faultRanges: fault });
        const asked: (Ask | null)[] = [];
        const left = new Set<number>();
        const readAll = (id: number): void => engine.acknowledge(id, outcome(id).tokens.length);
        const step = (): boolean => {
          const ran = engine.step();
          engine.residency.checkInvariants();
          return ran;
        };
        for (const next of actions) {
          if (next.kind === 'ask') {
            const { prompt, length, maxTokens, mode } = next.ask;
            engine.generate(asked.push(next.ask) - 1, toyRequest(prompt, length, maxTokens, { precision: { mode } }));
          } else if (next.kind === 'evaluate') {
            engine.evaluate(asked.push(null) - 1, toyRequest(1, next.length, 0).promptIds);
          } else if (next.kind === 'step') {
            for (let i = 0; i < next.count && step(); ++i);
          } else if (next.kind === 'read') {
            readAll(next.of);
          } else {
            engine[next.kind](next.of);
            left.add(next.of);
          }
        }
        // Readers catch up until nothing runs any more.
        do {
          for (const id of asked.keys()) readAll(id);
        } while (step());
        expect(engine.metrics()).toMatchObject({ sequencesOpen: 0, sequencesQueued: 0, kvBlocksUsed: 0 });
        for (const [id, request] of asked.entries()) {
          const { tokens, error } = outcome(id);
          if (error !== null) expect(error.code).toBe('EXPERT_READ_FAILED');
          else if (request !== null && !left.has(id)) expect(tokens).toEqual(tokensAlone(request));
        }
      },
    ),
    { numRuns: 120, seed: 11 },
  );
});
