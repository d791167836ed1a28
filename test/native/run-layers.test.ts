/** Layers run in one call, against the same layers called one by one. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import type { Manifest } from '../../src/model/manifest.js';
import { openMoe } from '../../src/model/read-moe.js';
import { loadAddon, type NativeEngine, REACHED, REACHED_STRIDE, READ, READ_STRIDE } from '../../src/native/binding.js';
import { expertGroups } from '../helpers/expert-groups.js';

const manifest = JSON.parse(readFileSync(join(BUNDLED_MODEL, 'manifest.json'), 'utf8')) as Manifest;
const { architecture, geometry } = manifest;
const { layerCount, expertCount, topK, vocabSize } = architecture;
const KEYS = layerCount * expertCount;
const LEVEL = 4;
const TOKENS = 3;

let native: NativeEngine;
const residentBits = new Uint8Array(KEYS).fill(LEVEL);
const scaleSlots = Int32Array.from({ length: KEYS }, (_, key) => key);
const bitSlots = new Int32Array(KEYS * 8).fill(-1);
for (let key = 0; key < KEYS; ++key) for (let bit = 0; bit < LEVEL; ++bit) bitSlots[8 * key + bit] = LEVEL * key + bit;

/** Every expert's first planes, read into slots in order. */
beforeEach(async () => {
  const model = await openMoe(BUNDLED_MODEL);
  native = loadAddon().createEngine({
    architecture,
    tables: manifest.tables,
    denseKinds: Object.fromEntries(
      Object.entries(manifest.dense.tensors).flatMap(([name, { kind }]) => (kind === 'f32' ? [] : [[name, kind]])),
    ),
    threads: 2,
    maxBatchTokens: TOKENS,
    maxLogitRows: TOKENS,
    contextLength: 64,
    kv: { type: 'f16', blockTokens: 32, blocks: 1 },
    arena: {
      bitSlots: KEYS * LEVEL,
      bitSlotBytes: geometry.bitBytes,
      scaleSlots: KEYS,
      scaleSlotBytes: geometry.scaleBytes,
    },
    io: { path: join(BUNDLED_MODEL, 'experts.bin'), backend: 'pread', queueDepth: 4, direct: true },
  });
  for (const [name, tensor] of Object.entries(manifest.dense.tensors)) {
    native.loadDense(model.densePath, { name, ...tensor });
  }
  native.ready();
  const read = new Int32Array(READ_STRIDE);
  for (let key = 0; key < KEYS; ++key) {
    read.fill(0);
    read[READ.ticket] = key;
    read[READ.scaleSlot] = key;
    read[READ.bitSlotCount] = LEVEL;
    read.set(bitSlots.subarray(8 * key, 8 * key + LEVEL), READ.bitSlots);
    native.submitReads(1, read, Float64Array.of(model.expertOffset(Math.floor(key / expertCount), key % expertCount)));
    const completion = new Int32Array(4);
    expect(native.waitCompletions(completion)).toBe(1);
    expect(completion[1]).toBe(0);
  }
});
afterEach(() => native.close());

function begin(): void {
  const positions = Int32Array.from({ length: TOKENS }, (_, position) => position);
  native.setBatch(Int32Array.of(71, 905, 1410), positions, new Int32Array(TOKENS), Int32Array.of(0), 1);
  native.embed();
}

function logits(): Float32Array {
  const out = new Float32Array(TOKENS * vocabSize);
  native.logits(Int32Array.of(0, 1, 2), out);
  return out;
}

/** Router, experts and all of one layer that `attention` has run for, a group for each expert. */
function runExperts(layer: number, ids: Uint16Array, weights: Float32Array): void {
  const { count, groups, assignments } = expertGroups(ids, LEVEL, layer * expertCount, scaleSlots, bitSlots);
  native.sharedFfn(layer);
  native.runExperts(layer, count, groups, assignments);
  native.finishLayer(layer, weights);
}

function oneByOne(): { readonly logits: Float32Array; readonly ids: Uint16Array; readonly experts: number } {
  begin();
  const all = new Uint16Array(layerCount * TOKENS * topK);
  let experts = 0;
  for (let layer = 0; layer < layerCount; ++layer) {
    const ids = all.subarray(layer * TOKENS * topK, (layer + 1) * TOKENS * topK);
    const weights = new Float32Array(TOKENS * topK);
    native.attention(layer);
    native.route(layer, ids, weights);
    experts += new Set(ids).size;
    runExperts(layer, ids, weights);
  }
  return { logits: logits(), ids: all, experts };
}

const ids = new Uint16Array(layerCount * TOKENS * topK);
const weights = new Float32Array(layerCount * TOKENS * topK);
const reached = new Int32Array(REACHED_STRIDE);
const run = (layer: number, spanMs: number, resident = residentBits, bits = bitSlots): void =>
  native.runLayers(layer, LEVEL, spanMs, resident, scaleSlots, bits, ids, weights, reached);

describe('runLayers()', () => {
  it('computes what the calls for each layer compute, to the bit', () => {
    const wanted = oneByOne();
    begin();
    run(0, 1e6);
    expect([...reached]).toEqual([layerCount, 0, wanted.experts]);
    expect(ids).toEqual(wanted.ids);
    expect(logits()).toEqual(wanted.logits);
  });

  it('stops after each layer where there is no time, and goes on where it stopped', () => {
    const wanted = oneByOne();
    begin();
    for (let layer = 0; layer < layerCount; ++layer) {
      run(layer, 0);
      expect(reached[REACHED.layer]).toBe(layer + 1);
      expect(reached[REACHED.isRouted]).toBe(0);
    }
    expect(logits()).toEqual(wanted.logits);
  });

  it('stops at a layer of which an expert lacks a plane, whose experts are then for the caller to run', () => {
    const wanted = oneByOne();
    const lacking = residentBits.slice();
    const layer = layerCount - 1;
    lacking[layer * expertCount + wanted.ids[layer * TOKENS * topK]!] = 2;
    begin();
    run(0, 1e6, lacking);
    expect(reached[REACHED.layer]).toBe(layer);
    expect(reached[REACHED.isRouted]).toBe(1);
    const pairs = TOKENS * topK;
    runExperts(layer, ids.slice(layer * pairs), weights.slice(layer * pairs));
    expect(logits()).toEqual(wanted.logits);
  });

  it('refuses slots that are none of the arena, and lives on', () => {
    const wanted = oneByOne();
    const wrong = bitSlots.map((slot) => slot + KEYS * LEVEL);
    begin();
    expect(() => run(0, 1e6, residentBits, wrong)).toThrow(/a bit slot must be one of the arena/);
    expect(() => run(0, 1e6, residentBits.subarray(1))).toThrow(/residentBits must be of at least/);
    expect(oneByOne().logits).toEqual(wanted.logits);
  });
});
