/**
 * A deterministic toy in place of the addon's engine. It computes no model: a token's residual is a hash of its
 * sequence's tokens, read back through the block tables, of the experts that served it and their levels; logits are a
 * hash of that. So any slip of scheduler, block tables, plans or slots changes tokens, and beyond that every rule of
 * binding.ts is checked on the way: slots in range and holding the planes that a group claims, no slot written while
 * it is read or in use, tickets unique, each assignment served exactly once.
 *
 * Reads finish late and out of order, drawn from a seed; the seed is in every message.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { PLAIN_SCAN } from '../../src/engine/logit-scan.js';
import { MoestroError } from '../../src/errors.js';
import {
  COMPLETION_STRIDE,
  GROUP,
  GROUP_STRIDE,
  type IoStats,
  type NativeEngine,
  type NativeEngineOptions,
  REACHED,
  READ,
  READ_STRIDE,
} from '../../src/native/binding.js';
import { expertGroups } from './expert-groups.js';

export interface FakeOptions {
  readonly seed: number;
  /** Layout of the records in the pretended experts.bin. */
  readonly recordBytes: number;
  readonly moeLayers: readonly number[];
  /** CRC-32C that each plane is expected to be checked with. */
  readonly planeCrc: (layer: number, expert: number, plane: number) => number;
  readonly planeBits: readonly number[];
}

interface Read {
  readonly ticket: number;
  readonly key: number;
  readonly fromBit: number;
  readonly scaleSlot: number;
  readonly bitSlots: readonly number[];
  readonly bytes: number;
  /** Polls until it lands. */
  delay: number;
  error: number;
}

const EIO = 5;
const ECANCELED = 125;
const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

const mix = (a: number, b: number): number => {
  let h = Math.imul(a ^ Math.imul(b | 0, 0x9e3779b1), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35);
  return (h ^ (h >>> 13)) >>> 0;
};

export class FakeNativeEngine implements NativeEngine {
  readonly isa = 'scalar';
  readonly threads: number;
  /** Of every submitted read: ticket, fromBit, bits, checks. */
  readonly submitted: { key: number; fromBit: number; bits: number; checks: number }[] = [];
  batches = 0;
  isClosed = false;
  readonly #o: NativeEngineOptions;
  readonly #f: FakeOptions;
  /** Content of a slot: key * 16 + bit, or -1. */
  readonly #bitSlots: Int32Array;
  readonly #scaleSlots: Int32Array;
  readonly #pendingBit: Int32Array;
  readonly #pendingScale: Int32Array;
  readonly #writtenBits = new Set<number>();
  readonly #writtenScales = new Set<number>();
  #reads: Read[] = [];
  #landed: { ticket: number; error: number; bytes: number }[] = [];
  readonly #errorOf = new Map<number, number>();
  readonly #kv: Int32Array;
  #tokens: Int32Array = new Int32Array(0);
  #positions: Int32Array = new Int32Array(0);
  #rows: Int32Array = new Int32Array(0);
  #tables: Int32Array = new Int32Array(0);
  #perSequence = 0;
  #residual = new Uint32Array(0);
  #outputs = new Map<number, number>();
  #routed: Uint16Array = new Uint16Array(0);
  #random: number;
  #bytesRead = 0;
  #completed = 0;
  #failed = 0;
  #collecting = false;

  constructor(options: NativeEngineOptions, fake: FakeOptions) {
    this.#o = options;
    this.#f = fake;
    this.threads = options.threads;
    this.#random = fake.seed >>> 0;
    this.#bitSlots = new Int32Array(options.arena.bitSlots).fill(-1);
    this.#scaleSlots = new Int32Array(options.arena.scaleSlots).fill(-1);
    this.#pendingBit = new Int32Array(options.arena.bitSlots).fill(-1);
    this.#pendingScale = new Int32Array(options.arena.scaleSlots).fill(-1);
    this.#kv = new Int32Array(options.kv.blocks * options.kv.blockTokens).fill(-1);
  }

  #check(condition: boolean, message: string): asserts condition {
    if (!condition) throw new Error(`fake native engine (seed ${this.#f.seed}): ${message}`);
  }

  #draw(below: number): number {
    this.#random = mix(this.#random, 0x51ed27);
    return this.#random % below;
  }

  loadDense(): void {}
  ready(): void {}

  setBatch(
    tokenIds: Int32Array,
    positions: Int32Array,
    sequences: Int32Array,
    blockTables: Int32Array,
    perSequence: number,
  ): void {
    const { architecture, kv, maxBatchTokens, contextLength } = this.#o;
    const n = tokenIds.length;
    this.#check(n >= 1 && n <= maxBatchTokens, `a batch of ${n} tokens`);
    this.#check(positions.length === n && sequences.length === n, 'batch arrays of different lengths');
    const used = new Map<number, number>();
    for (let t = 0; t < n; ++t) {
      const row = sequences[t]!;
      const position = positions[t]!;
      this.#check(tokenIds[t]! >= 0 && tokenIds[t]! < architecture.vocabSize, `token ${tokenIds[t]}`);
      this.#check(position >= 0 && position < contextLength, `position ${position}`);
      this.#check(row >= 0 && (row + 1) * perSequence <= blockTables.length, `row ${row}`);
      if (t > 0 && sequences[t - 1] === row) this.#check(position === positions[t - 1]! + 1, 'positions not ascending');
      const block = blockTables[row * perSequence + Math.floor(position / kv.blockTokens)]!;
      this.#check(block >= 0 && block < kv.blocks, `block ${block}`);
      this.#check((used.get(block) ?? row) === row, `block ${block} belongs to two sequences`);
      used.set(block, row);
    }
    this.#tokens = tokenIds.slice();
    this.#positions = positions.slice();
    this.#rows = sequences.slice();
    this.#tables = blockTables.slice();
    this.#perSequence = perSequence;
    ++this.batches;
  }

  embed(): void {
    const { kv } = this.#o;
    this.#residual = new Uint32Array(this.#tokens.length);
    for (let t = 0; t < this.#tokens.length; ++t) {
      const at = this.#kvAt(this.#rows[t]!, this.#positions[t]!);
      this.#kv[at] = this.#tokens[t]!;
    }
    for (let t = 0; t < this.#tokens.length; ++t) {
      let h = 7;
      for (let p = 0; p <= this.#positions[t]!; ++p) {
        const token = this.#kv[this.#kvAt(this.#rows[t]!, p)]!;
        this.#check(token >= 0, `position ${p} was never computed`);
        h = mix(h, token);
      }
      this.#residual[t] = h;
    }
    this.#check(kv.blockTokens > 0, 'no block size');
  }

  #kvAt(row: number, position: number): number {
    const { blockTokens } = this.#o.kv;
    const block = this.#tables[row * this.#perSequence + Math.floor(position / blockTokens)]!;
    return block * blockTokens + (position % blockTokens);
  }

  attention(layer: number): void {
    for (let t = 0; t < this.#residual.length; ++t) this.#residual[t] = mix(this.#residual[t]!, layer + 101);
  }

  route(layer: number, ids: Uint16Array, weights: Float32Array): void {
    const { topK } = this.#o.architecture;
    const n = this.#tokens.length;
    this.#check(ids.length === n * topK && weights.length === n * topK, 'routing arrays of a wrong length');
    this.#check(this.#o.architecture.layerKinds[layer] === 'moe', `layer ${layer} has no experts`);
    this.#outputs.clear();
    for (let t = 0; t < n; ++t) {
      this.#choose(this.#residual[t]!, layer, ids.subarray(t * topK, (t + 1) * topK));
      for (let rank = 0; rank < topK; ++rank) {
        weights[t * topK + rank] = (2 * (topK - rank)) / (topK * (topK + 1));
      }
    }
    this.#routed = ids.slice();
  }

  #choose(residual: number, layer: number, ids: Uint16Array): void {
    const { expertCount, topK } = this.#o.architecture;
    const chosen = new Set<number>();
    // Skewed, so that some experts are hot.
    for (let draw = 0; chosen.size < topK; ++draw) {
      const h = mix(residual, layer * 7919 + draw);
      chosen.add(Math.floor(((h % 1024) / 1024) ** 2 * expertCount));
    }
    ids.set([...chosen]);
  }

  submitReads(count: number, reads: Int32Array, offsets: Float64Array): void {
    const { arena, io } = this.#o;
    for (let i = 0; i < count; ++i) {
      const r = reads.subarray(i * READ_STRIDE, (i + 1) * READ_STRIDE);
      const ticket = r[READ.ticket]!;
      this.#check(!this.#reads.some((read) => read.ticket === ticket), `ticket ${ticket} is in flight`);
      this.#check(!this.#landed.some((done) => done.ticket === ticket), `ticket ${ticket} was not taken`);
      const offset = offsets[i]!;
      const key = Math.floor(offset / this.#f.recordBytes);
      const within = offset - key * this.#f.recordBytes;
      const scaleSlot = r[READ.scaleSlot]!;
      const fromBit = within === 0 ? 0 : (within - arena.scaleSlotBytes) / arena.bitSlotBytes;
      this.#check(scaleSlot >= 0 === (fromBit === 0), 'a scale slot is read with the base only');
      const bits = r[READ.bitSlotCount]!;
      const bitSlots = Array.from(r.subarray(READ.bitSlots, READ.bitSlots + bits));
      if (scaleSlot >= 0) {
        this.#check(scaleSlot < arena.scaleSlots && this.#pendingScale[scaleSlot] === -1, `scale slot ${scaleSlot}`);
        this.#pendingScale[scaleSlot] = ticket;
        this.#scaleSlots[scaleSlot] = -1;
        this.#writtenScales.add(scaleSlot);
      }
      for (const slot of bitSlots) {
        this.#check(slot >= 0 && slot < arena.bitSlots && this.#pendingBit[slot] === -1, `bit slot ${slot}`);
        this.#pendingBit[slot] = ticket;
        this.#bitSlots[slot] = -1;
        this.#writtenBits.add(slot);
      }
      this.#checkChecksums(r, key, fromBit, bits);
      const bytes = bits * arena.bitSlotBytes + (scaleSlot >= 0 ? arena.scaleSlotBytes : 0);
      const faults = io.faultRanges ?? [];
      let error = 0;
      for (let f = 0; f < faults.length; f += 2) {
        if (offset < faults[f + 1]! && offset + bytes > faults[f]!) error = EIO;
      }
      this.#reads.push({ ticket, key, fromBit, scaleSlot, bitSlots, bytes, delay: this.#draw(4), error });
      this.submitted.push({ key, fromBit, bits, checks: r[READ.checkCount]! });
    }
  }

  #checkChecksums(r: Int32Array, key: number, fromBit: number, bits: number): void {
    const checks = r[READ.checkCount]!;
    if (checks === 0) return;
    const expertCount = this.#o.architecture.expertCount;
    const layer = this.#f.moeLayers[Math.floor(key / expertCount)]!;
    let bit = 0;
    let at = 0;
    for (const [plane, planeBits] of this.#f.planeBits.entries()) {
      if (bit >= fromBit && bit < fromBit + bits) {
        const segments = (r[READ.checkSegments]! >>> (8 * at)) & 0xff;
        this.#check(segments === planeBits + (plane === 0 ? 1 : 0), `check ${at} covers ${segments} segments`);
        const wanted = this.#f.planeCrc(layer, key % expertCount, plane) | 0;
        this.#check(r[READ.checkCrcs + at] === wanted, `check ${at} has a wrong checksum`);
        ++at;
      }
      bit += planeBits;
    }
    this.#check(at === checks, `${checks} checks, needed ${at}`);
  }

  sharedFfn(): void {}

  /** Lets time pass: reads whose delay is over land, in a drawn order. */
  #advance(): void {
    const arrived = this.#reads.filter((read) => read.delay-- <= 0);
    this.#reads = this.#reads.filter((read) => !arrived.includes(read));
    while (arrived.length > 0) {
      const [read] = arrived.splice(this.#draw(arrived.length), 1);
      this.#land(read!);
    }
  }

  #land(read: Read): void {
    for (const [i, slot] of read.bitSlots.entries()) {
      this.#pendingBit[slot] = -1;
      this.#bitSlots[slot] = read.error === 0 ? read.key * 16 + read.fromBit + i : -1;
    }
    if (read.scaleSlot >= 0) {
      this.#pendingScale[read.scaleSlot] = -1;
      this.#scaleSlots[read.scaleSlot] = read.error === 0 ? read.key : -1;
    }
    this.#errorOf.set(read.ticket, read.error);
    this.#landed.push({ ticket: read.ticket, error: read.error, bytes: read.error === 0 ? read.bytes : 0 });
    if (read.error === 0) {
      this.#bytesRead += read.bytes;
      ++this.#completed;
    } else {
      ++this.#failed;
    }
  }

  runExperts(layer: number, groupCount: number, groups: Int32Array, assignments: Int32Array): number {
    const { topK, expertCount } = this.#o.architecture;
    const moe = this.#f.moeLayers.indexOf(layer);
    let waits = 0;
    for (let g = 0; g < groupCount; ++g) {
      const group = groups.subarray(g * GROUP_STRIDE, (g + 1) * GROUP_STRIDE);
      const ticket = group[GROUP.ticket]!;
      group[GROUP.waited] = 0;
      group[GROUP.error] = 0;
      if (ticket >= 0) {
        while (this.#reads.some((read) => read.ticket === ticket)) {
          group[GROUP.waited] = 1;
          ++waits;
          this.#advance();
        }
        this.#check(this.#errorOf.has(ticket), `ticket ${ticket} was never submitted`);
        group[GROUP.error] = this.#errorOf.get(ticket)!;
        if (group[GROUP.error] !== 0) continue;
      }
      const expert = group[GROUP.expert]!;
      const level = group[GROUP.level]!;
      const key = moe * expertCount + expert;
      this.#check(this.#scaleSlots[group[GROUP.scaleSlot]!] === key, `scales of expert ${layer}/${expert}`);
      for (let bit = 0; bit < level; ++bit) {
        const slot = group[GROUP.bitSlots + bit]!;
        this.#check(this.#bitSlots[slot] === key * 16 + bit, `bit ${bit} of expert ${layer}/${expert} in slot ${slot}`);
      }
      for (let i = 0; i < group[GROUP.count]!; ++i) {
        const at = assignments[group[GROUP.first]! + i]!;
        this.#check(!this.#outputs.has(at), `assignment ${at} served twice`);
        const token = Math.floor(at / topK);
        this.#outputs.set(at, mix(mix(this.#residual[token]!, expert), level));
      }
    }
    return waits;
  }

  finishLayer(layer: number, weights: Float32Array): void {
    const { topK, layerKinds } = this.#o.architecture;
    for (let t = 0; t < this.#residual.length; ++t) {
      let h = mix(this.#residual[t]!, layer);
      for (let rank = 0; rank < topK && layerKinds[layer] === 'moe'; ++rank) {
        const output = this.#outputs.get(t * topK + rank);
        if (output === undefined) continue;
        float[0] = weights[t * topK + rank]!;
        h = mix(mix(h, output), word[0]!);
      }
      this.#residual[t] = h;
    }
  }

  runLayers(
    ...[layer, level, spanMs, residentBits, scaleSlots, bitSlots, ids, weights, reached]: Parameters<
      NativeEngine['runLayers']
    >
  ): void {
    const { topK, expertCount, layerKinds, layerCount } = this.#o.architecture;
    this.#check(this.#reads.length === 0, 'layers run on their own while reads are on their way');
    this.#check(spanMs > 0, 'no time for a layer');
    const pairs = this.#tokens.length * topK;
    reached.fill(0);
    // A layer or two a call, so that callers come back.
    const most = layer + 1 + this.#draw(2);
    for (; layer < Math.min(most, layerCount); ++layer) {
      const moe = this.#f.moeLayers.indexOf(layer);
      this.attention(layer);
      if (layerKinds[layer] !== 'moe') {
        this.finishLayer(layer, weights);
        continue;
      }
      const own = ids.subarray(moe * pairs, (moe + 1) * pairs);
      const ownWeights = weights.subarray(moe * pairs, (moe + 1) * pairs);
      this.route(layer, own, ownWeights);
      if (own.some((id) => residentBits[moe * expertCount + id]! < level)) {
        reached[REACHED.isRouted] = 1;
        break;
      }
      const { count, groups, assignments } = expertGroups(own, level, moe * expertCount, scaleSlots, bitSlots);
      this.runExperts(layer, count, groups, assignments);
      this.finishLayer(layer, ownWeights);
      reached[REACHED.experts] = reached[REACHED.experts]! + count;
    }
    reached[REACHED.layer] = layer;
  }

  /** Assignments that no group served in the newest layer. */
  get unserved(): number {
    return this.#routed.length - this.#outputs.size;
  }

  logits(rows: Int32Array, out: Float32Array): void {
    const { vocabSize } = this.#o.architecture;
    this.#check(rows.length <= this.#o.maxLogitRows, `${rows.length} rows of logits`);
    this.#check(out.length === rows.length * vocabSize, 'a wrong length of logits');
    for (let i = 0; i < rows.length; ++i) {
      const h = this.#residual[rows[i]!]!;
      for (let id = 0; id < vocabSize; ++id) out[i * vocabSize + id] = (mix(h, id) % 4096) / 512;
    }
  }

  largestLogit(logits: Float32Array): number {
    return PLAIN_SCAN.largestLogit(logits);
  }

  bestLogits(logits: Float32Array, least: number, most: number, ids: Int32Array): number {
    return PLAIN_SCAN.bestLogits(logits, least, most, ids);
  }

  hiddenStates(rows: Int32Array, out: Float32Array): void {
    const { hiddenSize } = this.#o.architecture;
    this.#check(out.length === rows.length * hiddenSize, 'a wrong length of hidden states');
    for (let i = 0; i < rows.length; ++i) {
      const h = this.#residual[rows[i]!]!;
      for (let at = 0; at < hiddenSize; ++at) out[i * hiddenSize + at] = (mix(h, ~at) % 4096) / 2048 - 1;
    }
  }

  takeCompletions(out: Int32Array): number {
    this.#advance();
    const taken = this.#landed.splice(0, Math.floor(out.length / COMPLETION_STRIDE));
    for (const [i, done] of taken.entries()) {
      out.set([done.ticket, done.error, done.bytes, 100], i * COMPLETION_STRIDE);
    }
    return taken.length;
  }

  waitCompletions(out: Int32Array): number {
    while (this.#landed.length === 0 && this.#reads.length > 0) this.#advance();
    return this.takeCompletions(out);
  }

  /** Bytes of slots that were given memory before anything was read into them, since start. */
  populatedBytes = 0;

  /** Bytes of slots that were written and not given back. */
  get slotBytes(): number {
    const { bitSlotBytes, scaleSlotBytes } = this.#o.arena;
    return this.#writtenBits.size * bitSlotBytes + this.#writtenScales.size * scaleSlotBytes;
  }

  moveSlots(count: number, moves: Int32Array): void {
    for (let i = 0; i < count; ++i) {
      const [kind, from, to] = [moves[3 * i]!, moves[3 * i + 1]!, moves[3 * i + 2]!];
      const [slots, pending, written] =
        kind === 0
          ? [this.#bitSlots, this.#pendingBit, this.#writtenBits]
          : [this.#scaleSlots, this.#pendingScale, this.#writtenScales];
      this.#check(pending[from] === -1 && pending[to] === -1, `slot ${from} or ${to} is moved while it is read`);
      slots[to] = slots[from]!;
      written.add(to);
    }
  }

  populateSlots(bitFirst: number, bitEnd: number, scaleFirst: number, scaleEnd: number): void {
    const { bitSlotBytes, scaleSlotBytes } = this.#o.arena;
    this.populatedBytes += (bitEnd - bitFirst) * bitSlotBytes + (scaleEnd - scaleFirst) * scaleSlotBytes;
    for (let slot = bitFirst; slot < bitEnd; ++slot) {
      this.#check(this.#bitSlots[slot] === -1, `bit slot ${slot} is given memory and is in use`);
      this.#writtenBits.add(slot);
    }
    for (let slot = scaleFirst; slot < scaleEnd; ++slot) {
      this.#check(this.#scaleSlots[slot] === -1, `scale slot ${slot} is given memory and is in use`);
      this.#writtenScales.add(slot);
    }
  }

  discardSlots(bitFirst: number, bitEnd: number, scaleFirst: number, scaleEnd: number): void {
    for (let slot = bitFirst; slot < bitEnd; ++slot) {
      this.#check(this.#pendingBit[slot] === -1, `bit slot ${slot} is given back while it is read`);
      this.#bitSlots[slot] = -1;
      this.#writtenBits.delete(slot);
    }
    for (let slot = scaleFirst; slot < scaleEnd; ++slot) {
      this.#check(this.#pendingScale[slot] === -1, `scale slot ${slot} is given back while it is read`);
      this.#scaleSlots[slot] = -1;
      this.#writtenScales.delete(slot);
    }
  }

  discardKv(first: number, end: number): void {
    this.#kv.fill(-1, first * this.#o.kv.blockTokens, end * this.#o.kv.blockTokens);
  }

  copyKv(from: number, to: number): void {
    const { blocks, blockTokens } = this.#o.kv;
    this.#check(from >= 0 && from < blocks && to >= 0 && to < blocks && from !== to, `block ${from} copied to ${to}`);
    this.#kv.copyWithin(to * blockTokens, from * blockTokens, (from + 1) * blockTokens);
  }

  saveKv(block: number, path: string, header: Uint8Array): void {
    const { blockTokens } = this.#o.kv;
    this.#check(!existsSync(path), `${path} is written twice`);
    const kv = this.#kv.slice(block * blockTokens, (block + 1) * blockTokens);
    const bytes = Buffer.concat([header, new Uint8Array(kv.buffer)]);
    writeFileSync(path, Buffer.concat([bytes, new Uint8Array(Uint32Array.of(crc32(bytes)).buffer)]));
  }

  loadKv(block: number, path: string, headerBytes: number): void {
    const { blockTokens } = this.#o.kv;
    const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    const end = headerBytes + 4 * blockTokens;
    if (bytes.length !== end + 4) throw new MoestroError('IO_ERROR', `Cannot read "${path}": ${bytes.length} bytes`);
    this.#kv.set(new Int32Array(Uint8Array.from(bytes.subarray(headerBytes, end)).buffer), block * blockTokens);
    if (crc32(bytes.subarray(0, end)) !== bytes.readUInt32LE(end)) {
      throw new MoestroError('IO_ERROR', `Cannot read "${path}": its checksum does not match`);
    }
  }

  /** As with parts: half of the reads on their way are too far gone, the others end as soon as time passes. */
  cancelRead(ticket: number): boolean {
    const read = this.#reads.find((other) => other.ticket === ticket && other.error === 0);
    if (read === undefined || this.#draw(2) === 0) return false;
    read.error = ECANCELED;
    read.delay = this.#draw(3);
    return true;
  }

  promoteRead(ticket: number): boolean {
    const read = this.#reads.find((other) => other.ticket === ticket);
    if (read !== undefined) read.delay = Math.min(read.delay, 1);
    return read !== undefined;
  }

  /** What `route` will say, in two cases of three. */
  predict(layer: number, scores: Float32Array): void {
    const { expertCount, topK } = this.#o.architecture;
    const ids = new Uint16Array(topK);
    this.#check(scores.length === this.#tokens.length * expertCount, 'scores of a wrong length');
    for (let t = 0; t < this.#tokens.length; ++t) {
      const row = scores.subarray(t * expertCount, (t + 1) * expertCount);
      // Of the residual alone, as the real one: asked twice it says the same.
      const ahead = mix(this.#residual[t]!, layer + 101);
      for (let expert = 0; expert < expertCount; ++expert) row[expert] = (mix(ahead, expert) % 100) / 100;
      this.#choose(ahead, layer, ids);
      for (const id of ids) if (mix(ahead, expertCount + id) % 3 > 0) row[id] = 3 + row[id]!;
    }
  }

  collectImportance(on: boolean): void {
    this.#collecting = on;
  }

  importance(layer: number, expert: number) {
    if (!this.#collecting)
      throw new MoestroError('INVALID_ARGUMENT', 'Cannot give the importance: it is not collected');
    return { tokens: layer * 100 + expert, gateUp: new Float32Array(2), down: new Float32Array(1) };
  }

  ioStats(): IoStats {
    return {
      backend: 'fake',
      direct: true,
      submitted: this.submitted.length,
      completed: this.#completed,
      failed: this.#failed,
      cancelled: 0,
      bytesRead: this.#bytesRead,
      shortReads: 0,
      waitMs: 0,
      inFlight: this.#reads.length,
      queued: 0,
      inFlightMax: 0,
    };
  }

  memory(): Readonly<Record<string, number>> {
    return {};
  }

  close(): void {
    this.isClosed = true;
  }
}
