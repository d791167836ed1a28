/** The plan of memory is made before anything is allocated: native code must then take what the plan says. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { KV_BLOCK_TOKENS, kvBlockBytes, scratchBytes } from '../../src/engine/memory-plan.js';
import type { Architecture } from '../../src/model/manifest.js';
import { openMoe } from '../../src/model/read-moe.js';
import { type KvType, loadAddon } from '../../src/native/binding.js';

const POCKET = fileURLToPath(new URL('../../models/pocket.moe', import.meta.url));

async function nativeMemory(changes: Partial<Architecture>, kvType: KvType, chunkTokens: number, threads: number) {
  const model = await openMoe(POCKET);
  const { manifest } = model;
  const architecture = { ...manifest.architecture, ...changes };
  const engine = loadAddon().createEngine({
    architecture,
    tables: manifest.tables,
    threads,
    maxBatchTokens: chunkTokens,
    maxLogitRows: 4,
    contextLength: 512,
    kv: { type: kvType, blockTokens: KV_BLOCK_TOKENS, blocks: 24 },
    arena: {
      bitSlots: 32,
      bitSlotBytes: manifest.geometry.bitBytes,
      scaleSlots: 8,
      scaleSlotBytes: manifest.geometry.scaleBytes,
    },
    io: { path: model.expertsPath, backend: 'automatic', queueDepth: 4, direct: true },
  });
  const memory = engine.memory();
  engine.close();
  return { memory, architecture, manifest };
}

describe('native memory', () => {
  it.each([
    [{}, 'f16', 512, 2],
    [{}, 'int8', 32, 1],
    [{ sharedExpertSize: 96, denseFfnSize: 160, headCount: 8, vocabSize: 4099 }, 'f16', 48, 2],
  ] as const)(
    'takes what the plan says with %o, %s KV, chunks of %i and %i threads',
    async (changes, kv, chunk, threads) => {
      const { memory, architecture, manifest } = await nativeMemory(changes, kv, chunk, threads);
      const planned = scratchBytes(architecture, chunk, 4, 512, threads);
      // The plan also counts the logits that TypeScript holds and ids, weights and tables: a little above, never below.
      expect(memory.scratch).toBeLessThanOrEqual(planned);
      expect(memory.scratch).toBeGreaterThan(0.85 * planned);
      const kvPlanned = 24 * kvBlockBytes(architecture, kv);
      expect(memory.kv).toBeGreaterThanOrEqual(kvPlanned);
      expect(memory.kv).toBeLessThan(kvPlanned + 8192);
      expect(memory.slots).toBe(32 * manifest.geometry.bitBytes + 8 * manifest.geometry.scaleBytes);
    },
  );
});
