/** A disk that fails one expert, with the addon and the bundled model: who needed it ends, everybody else goes on. */
import { describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { engineConfig } from '../../src/config.js';
import { startEngine } from '../../src/engine/client.js';
import { type EngineClient, GREEDY } from '../../src/engine/types.js';
import { MoestroError } from '../../src/errors.js';
import { openMoe } from '../../src/model/read-moe.js';

type Fault = readonly [begin: number, end: number];

const open = (io: string, faultRanges: readonly Fault[]): Promise<EngineClient> =>
  startEngine({ ...engineConfig(BUNDLED_MODEL, { budget: '400MiB', threads: 1, io }, {}), faultRanges });

/** Token ids of a greedy answer, or the code of the error it ended with. */
async function answer(client: EngineClient, promptIds: readonly number[]): Promise<readonly number[] | string> {
  const tokens: number[] = [];
  try {
    const request = { promptIds, maxTokens: 4, stopTokenIds: [], sampling: GREEDY };
    for await (const event of client.generate(request)) if (event.kind === 'token') tokens.push(event.tokenId);
    return tokens;
  } catch (error) {
    if (!(error instanceof MoestroError)) throw error;
    return error.code;
  }
}

const LEFT = [100, 200, 300, 400];
const RIGHT = [1000];

describe.each(['io_uring', 'pread'])('an expert that cannot be read (%s)', (io) => {
  it('ends the request that needs it, while one beside it answers as ever', async () => {
    const model = await openMoe(BUNDLED_MODEL);
    const { recordBytes } = model.manifest.geometry;
    const whole = await open(io, []);
    const [left, right] = await Promise.all([answer(whole, LEFT), answer(whole, RIGHT)]);
    await whole.close();
    expect([left.length, right.length]).toEqual([4, 4]);

    const fates = new Set<string>();
    // Both prompts are few tokens: experts of the last layer fall to one, the other, both or neither.
    for (let expert = 0; expert < 32 && !fates.has('right alone goes on'); expert++) {
      const begin = model.expertOffset(7, expert);
      const client = await open(io, [[begin, begin + recordBytes]]);
      try {
        const [leftNow, rightNow] = await Promise.all([answer(client, LEFT), answer(client, RIGHT)]);
        for (const [now, before] of [
          [leftNow, left],
          [rightNow, right],
        ] as const) {
          if (now !== 'EXPERT_READ_FAILED') expect(now).toEqual(before);
        }
        if (leftNow === 'EXPERT_READ_FAILED' && rightNow !== 'EXPERT_READ_FAILED') {
          fates.add('right alone goes on');
          // Nothing is left behind, and the engine still tells the two apart.
          expect(await answer(client, RIGHT)).toEqual(right);
          expect(await answer(client, LEFT)).toBe('EXPERT_READ_FAILED');
          const { kvBlocksUsed, sequencesOpen, sequencesQueued } = await client.metrics();
          expect({ kvBlocksUsed, sequencesOpen, sequencesQueued }).toEqual({
            kvBlocksUsed: 0,
            sequencesOpen: 0,
            sequencesQueued: 0,
          });
        }
      } finally {
        await client.close();
      }
    }
    expect([...fates]).toEqual(['right alone goes on']);
  });
});
