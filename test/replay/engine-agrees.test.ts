/** The engine reads what the replay says it reads: the same routing at the same number of slots, counted by both. */
import { describe, expect, it } from 'vitest';
import { mapRecording, type Recording } from '../../src/experts/trace.js';
import { replayEngine } from '../../src/replay/replay-engine.js';
import { fakeEngine, TOY_ARCHITECTURE, TOY_GEOMETRY, TOY_MOE_LAYERS, toyRequest } from '../helpers/fake-engine.js';

const LEVEL = 4;
const TOKENS = 120;

/** Tokens of the toy's geometry: phrases of eight tokens that come back in changing order. */
function phrases(): Recording {
  const { topK, expertCount } = TOY_ARCHITECTURE;
  const layers = TOY_MOE_LAYERS.length;
  const ids = new Uint16Array(TOKENS * layers * topK);
  for (let token = 0; token < TOKENS; ++token) {
    const phrase = (token >> 3) % 3 === 2 ? (token >> 4) % 5 : (token >> 3) % 2;
    for (let layer = 0; layer < layers; ++layer) {
      for (let rank = 0; rank < topK; ++rank) {
        const word = phrase * 8 + (token & 7);
        ids[(token * layers + layer) * topK + rank] = (word * 5 + layer * 3 + rank * 4 + (word >> 2)) % expertCount;
      }
    }
  }
  return { tokens: TOKENS, layers, topK, ids, weights: null, isRanked: true };
}

describe('replayEngine()', () => {
  it.each([4, 6, 9, 18, 27, 36])(
    'replayEngine() misses what an engine of %d expert slots misses, event by event',
    (slots) => {
      const recording = phrases();
      const { topK, expertCount } = TOY_ARCHITECTURE;
      const layers = TOY_MOE_LAYERS.length;
      const trace = mapRecording(recording, { layers, experts: expertCount, topK }, 'phrases');
      const { engine, runAll } = fakeEngine({ experts: slots, trace, maxSequences: 1 });
      engine.generate(1, toyRequest(0, 1, TOKENS));
      runAll();
      const { decode, steps } = engine.metrics();
      expect(steps).toBe(TOKENS);

      const run = replayEngine({ name: 'phrases', recording, experts: expertCount }, slots / (layers * expertCount));
      expect(run.slots).toBe(slots);
      // The first token belongs to the prompt.
      const misses = run.misses.subarray(layers).reduce((sum, count) => sum + count, 0);
      expect(misses).toBeGreaterThan(0);
      expect(decode.misses).toBe(misses);
      expect(decode.bytesRead).toBe(misses * (LEVEL * TOY_GEOMETRY.bitBytes + TOY_GEOMETRY.scaleBytes));
    },
  );
});
