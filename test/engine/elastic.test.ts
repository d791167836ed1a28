/** Mode `elastic` over the fake native half, whose tokens depend on the level of every expert. */
import { describe, expect, it } from 'vitest';
import type { Mode } from '../../src/engine/types.js';
import { fakeEngine, toyRequest } from '../helpers/fake-engine.js';

const KEYS = [1, 2, 3];

function run(mode: Mode, more: { readonly experts?: number; readonly elasticPrice?: number } = {}) {
  const made = fakeEngine({ mode, kvBlocks: 32, ...more });
  for (const id of KEYS) made.engine.generate(id, toyRequest(id, 9 + id, 40));
  made.runAll();
  const usages = KEYS.map((id) => {
    const last = made.outcome(id).events.at(-1);
    return last?.kind === 'finish' ? last.usage : null;
  });
  return {
    ...made,
    tokens: KEYS.map((id) => made.outcome(id).tokens),
    bits: usages.map((usage) => usage!.meanBits),
    below: usages.map((usage) => usage!.shareBelowFullLevel),
    bytes: made.native.ioStats().bytesRead,
  };
}

describe('mode elastic', () => {
  it('gives the tokens of exact where bits cost nothing', () => {
    const elastic = run('elastic', { elasticPrice: 0, experts: 12 });
    expect(elastic.tokens).toEqual(run('exact').tokens);
    expect(elastic.bits).toEqual([4, 4, 4]);
    expect(elastic.below).toEqual([0, 0, 0]);
  });

  it('reads less as bits cost more, and never runs below the floors', () => {
    const prices = [0, 0.1, 1].map((elasticPrice) => run('elastic', { elasticPrice, experts: 12 }));
    const bytes = prices.map((one) => one.bytes);
    expect(bytes[1]).toBeLessThan(bytes[0]!);
    expect(bytes[2]).toBeLessThan(bytes[1]!);
    const dear = prices[2]!;
    expect(Math.max(...dear.bits)).toBeLessThan(4);
    expect(Math.min(...dear.below)).toBeGreaterThan(0);
    // Floors come to 2.5 bits in the mean over all traffic; what is resident comes on top.
    expect(Math.min(...dear.bits)).toBeGreaterThan(2.3);
  });

  it('leaves exact requests of the same batch alone', () => {
    const alone = run('exact').tokens;
    const made = fakeEngine({ mode: 'elastic', kvBlocks: 32, experts: 12, elasticPrice: 1 });
    for (const id of KEYS) {
      made.engine.generate(id, toyRequest(id, 9 + id, 40, id === 2 ? { precision: { mode: 'exact' } } : {}));
    }
    made.runAll();
    expect(made.outcome(2).tokens).toEqual(alone[1]);
    expect(made.outcome(1).events.at(-1)).toMatchObject({ kind: 'finish', usage: { meanBits: expect.any(Number) } });
  });

  it('finds a price by itself: nothing waits once all is resident, and every bit is bought', () => {
    const made = fakeEngine({ mode: 'elastic', kvBlocks: 32, contextLength: 256 });
    for (const id of KEYS) made.engine.generate(id, toyRequest(id, 9 + id, 120));
    expect(made.engine.metrics().elasticPrice).toBe(1);
    made.runAll();
    expect(made.engine.metrics().elasticPrice).toBeLessThan(1e-3);
  });
});
