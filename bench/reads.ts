/**
 * Which share of what fio reads does the read queue reach while misses are outstanding?
 *   npx tsx bench/reads.ts MODEL.moe [--seconds 0.4] [--rounds 5] [--outstanding 6] [--parts 1MiB,2MiB,64MiB] [--depths 4,8]
 *
 * Sketch: a record of 3.3 MB at 1 GB/s takes 3.3 ms, and a layer misses three to eight; so a layer's reads fill any queue,
 * and only how they are cut decides. Inside the timed window: whole expert records from random places into arena slots,
 * so many outstanding at any time, landed ones replaced at once; nothing is computed. fio reads records of the same size at
 * depths 1 to 8, and 1 MiB at 8, into buffers on huge pages, as the arena has them (on this kind of virtual disk that alone is
 * a factor of three). Disks drift, so all take turns in every round; medians, one JSON object a line. Needs fio, and root
 * for huge pages.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { parseBytes } from '../src/bytes.js';
import { medianOf } from '../src/eval/bench.js';
import { type MoeModel, openMoe } from '../src/model/read-moe.js';
import { COMPLETION_STRIDE, loadAddon, READ, READ_STRIDE } from '../src/native/binding.js';

/** Records of memory that reads go through in turn: no cache holds them, as none holds an arena. */
const LANES = 64;
const HUGE_PAGES = '/proc/sys/vm/nr_hugepages';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '0.4' },
    rounds: { type: 'string', default: '5' },
    outstanding: { type: 'string', default: '6' },
    parts: { type: 'string', default: '1MiB,2MiB,64MiB' },
    depths: { type: 'string', default: '4,8' },
  },
});
const seconds = Number(values.seconds);
const model = await openMoe(positionals[0] ?? '');
const recordBytes = model.manifest.geometry.recordBytes;

/** GB/s of fio with buffers on huge pages. */
function fio(blockBytes: number, depth: number): number {
  const options = `--readonly --rw=randread --ioengine=io_uring --direct=1 --time_based --ramp_time=50ms --norandommap
    --randrepeat=0 --mem=mmaphuge --hugepage-size=2m --output-format=json --name=x`.split(/\s+/);
  const before = readFileSync(HUGE_PAGES, 'utf8');
  writeFileSync(HUGE_PAGES, '64');
  try {
    const asked = [
      `--filename=${model.expertsPath}`,
      `--bs=${blockBytes}`,
      `--iodepth=${depth}`,
      `--runtime=${1000 * seconds}ms`,
    ];
    const { jobs } = JSON.parse(execFileSync('fio', [...options, ...asked], { encoding: 'utf8' }));
    return jobs[0].read.bw_bytes / 1e9;
  } finally {
    writeFileSync(HUGE_PAGES, before);
  }
}

/** GB/s of whole records through the read queue of an engine that computes nothing. */
function queue(opened: MoeModel, partBytes: number, queueDepth: number, outstanding: number): number {
  const { manifest } = opened;
  const { bitsStored, bitBytes, scaleBytes } = manifest.geometry;
  const engine = loadAddon().createEngine({
    architecture: { ...manifest.architecture, vocabSize: 32, layerCount: 1, layerKinds: ['moe'] },
    tables: manifest.tables,
    threads: 1,
    maxBatchTokens: 1,
    maxLogitRows: 1,
    contextLength: 64,
    kv: { type: 'f16', blockTokens: 32, blocks: 2 },
    arena: {
      bitSlots: bitsStored * LANES,
      bitSlotBytes: bitBytes,
      scaleSlots: LANES,
      scaleSlotBytes: scaleBytes,
    },
    io: { path: opened.expertsPath, backend: 'automatic', queueDepth, direct: true, partBytes },
  });
  const records = Math.floor(manifest.experts.bytes / manifest.geometry.recordBytes);
  const reads = new Int32Array(READ_STRIDE);
  const offsets = new Float64Array(1);
  const landed = new Int32Array(64 * COMPLETION_STRIDE);
  const submit = (lane: number): void => {
    reads.fill(0);
    reads[READ.ticket] = lane;
    reads[READ.scaleSlot] = lane;
    reads[READ.bitSlotCount] = bitsStored;
    for (let bit = 0; bit < bitsStored; ++bit) reads[READ.bitSlots + bit] = lane * bitsStored + bit;
    offsets[0] = Math.floor(Math.random() * records) * manifest.geometry.recordBytes;
    engine.submitReads(1, reads, offsets);
  };
  const free = Array.from({ length: LANES }, (_, lane) => lane);
  while (free.length > LANES - outstanding) submit(free.shift()!);
  const warm = performance.now() + 50;
  let from = 0;
  let bytesFrom = 0;
  for (;;) {
    const count = engine.waitCompletions(landed);
    for (let i = 0; i < count; ++i) free.push(landed[i * COMPLETION_STRIDE]!);
    while (free.length > LANES - outstanding) submit(free.shift()!);
    const now = performance.now();
    if (from === 0 && now > warm) {
      from = now;
      bytesFrom = engine.ioStats().bytesRead;
    } else if (from > 0 && now - from > 1000 * seconds) {
      const rate = (engine.ioStats().bytesRead - bytesFrom) / 1e6 / (now - from);
      engine.close();
      return rate;
    }
  }
}

interface Reader {
  readonly row: Readonly<Record<string, unknown>>;
  readonly run: () => number;
  readonly rates: number[];
}

const outstanding = Number(values.outstanding);
const fioReader = (blockBytes: number, depth: number): Reader => ({
  row: { reader: 'fio', blockBytes, depth },
  run: () => fio(blockBytes, depth),
  rates: [],
});
const queueReader = (partBytes: number, depth: number): Reader => ({
  row: { reader: 'queue', partBytes, depth, outstanding },
  run: () => queue(model, partBytes, depth, outstanding),
  rates: [],
});
const depths = values.depths.split(',').map(Number);
const readers = [
  ...[1, 2, 4, 8].map((depth) => fioReader(recordBytes, depth)),
  fioReader(1 << 20, 8),
  ...values.parts
    .split(',')
    .flatMap((part) => depths.map((depth) => queueReader(parseBytes(part, '--parts', 0), depth))),
];
for (let turn = 0; turn < Number(values.rounds); ++turn) for (const { run, rates } of readers) rates.push(run());
for (const { row, rates } of readers) {
  const gbPerSecond = medianOf(rates);
  const deviation = medianOf(rates.map((rate) => Math.abs(rate - gbPerSecond)));
  process.stdout.write(`${JSON.stringify({ ...row, gbPerSecond: round(gbPerSecond), deviation: round(deviation) })}\n`);
}

function round(value: number): number {
  return Math.round(1000 * value) / 1000;
}
