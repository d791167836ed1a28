import { describe, expect, it } from 'vitest';
import { denseTensorBytes } from '../../src/model/dense-layout.js';
import { DEFAULT_TABLES } from '../../src/model/manifest.js';
import { planeGeometry } from '../../src/model/plane-geometry.js';
import { type Level, loadAddon } from '../../src/native/binding.js';
import { encodeValues, fromHalf } from '../helpers/number-formats.js';
import { gaussian } from '../helpers/tiny-models.js';

const addon = loadAddon();
const HIDDEN = 96;
const EXPERT = 64;
const COUNT = HIDDEN * EXPERT;
const LEVELS: readonly Level[] = [2, 3, 4, 8];

interface Weights {
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

function draw(seed: number, count = COUNT): Weights {
  const random = gaussian(seed);
  const matrix = (spread: number) => Float32Array.from({ length: count }, () => spread * random());
  return { gate: matrix(0.02), up: matrix(0.03), down: matrix(0.5) };
}

interface Options {
  readonly bits?: 4 | 8;
  readonly importance?: { gateUp: Float32Array; down: Float32Array };
  readonly hidden?: number;
  readonly expert?: number;
  readonly onlyLevel?: 2 | 3 | 4;
}

function quantise(
  weights: Weights,
  { bits = 8, importance, hidden = HIDDEN, expert = EXPERT, onlyLevel }: Options = {},
) {
  const out = new Uint8Array(planeGeometry(hidden, expert, bits).recordBytes).fill(0xaa);
  const result = addon.quantiseExpert({
    gate: encodeValues('F32', weights.gate),
    up: encodeValues('F32', weights.up),
    down: encodeValues('F32', weights.down),
    gateDtype: 'F32',
    upDtype: 'F32',
    downDtype: 'F32',
    hiddenSize: hidden,
    expertSize: expert,
    tables: DEFAULT_TABLES,
    residual: bits === 8,
    ...(importance === undefined ? {} : { importance }),
    ...(onlyLevel === undefined ? {} : { onlyLevel }),
    out,
  });
  return { record: out, relativeError: result.relativeError };
}

function decode(record: Uint8Array, level: Level, hidden = HIDDEN, expert = EXPERT): Weights {
  const matrix = () => new Float32Array(hidden * expert);
  const out = { gate: matrix(), up: matrix(), down: matrix() };
  addon.dequantiseExpert(record, hidden, expert, DEFAULT_TABLES, level, out.gate, out.up, out.down);
  return out;
}

function relativeError(found: Weights, needed: Weights): number {
  let error = 0;
  let energy = 0;
  for (const name of ['gate', 'up', 'down'] as const) {
    needed[name].forEach((value, i) => {
      error += (found[name][i]! - value) ** 2;
      energy += value ** 2;
    });
  }
  return error / energy;
}

describe('quantiseExpert()', () => {
  it('keeps the error of every level near the best of a nested code when weights are Gaussian', () => {
    const weights = draw(1, 256 * 256);
    const { record, relativeError: reported } = quantise(weights, { hidden: 256, expert: 256 });
    // A little above what was measured on 3 million weights: 10.38, 2.415, 0.566 and 0.0073 %.
    const bounds = { 2: 0.107, 3: 0.025, 4: 0.0059, 8: 0.000077 };
    for (const level of LEVELS) {
      const error = relativeError(decode(record, level, 256, 256), weights);
      expect(error, `level ${level}`).toBeLessThan(bounds[level]);
      expect(reported[level]).toBeCloseTo(error, 6);
    }
  });

  it('gives each level the same weights when the record ends after its planes', () => {
    const { record } = quantise(draw(2));
    const { scaleBytes, bitBytes } = planeGeometry(HIDDEN, EXPERT, 8);
    for (const level of LEVELS) {
      const prefix = record.slice(0, scaleBytes + level * bitBytes);
      expect(decode(prefix, level)).toEqual(decode(record, level));
      expect(() => decode(prefix.subarray(1), level)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
  });

  it('places codes and scales as formats.h says when read bit by bit', () => {
    const { record } = quantise(draw(3));
    const { scaleBytes, bitBytes } = planeGeometry(HIDDEN, EXPERT, 8);
    const { gate, up, down } = decode(record, 8);
    const [gateRows, downRows] = [EXPERT, HIDDEN];
    const tilesEach = (HIDDEN * EXPERT) / 512;
    const matrices = [
      { values: gate, cols: HIDDEN, firstTile: 0, firstRow: 0 },
      { values: up, cols: HIDDEN, firstTile: tilesEach, firstRow: gateRows },
      { values: down, cols: EXPERT, firstTile: 2 * tilesEach, firstRow: 2 * gateRows },
    ];
    expect(downRows * EXPERT).toBe(down.length);
    const bit = (slot: number, tile: number, byte: number) => record[scaleBytes + slot * bitBytes + tile * 64 + byte]!;
    for (const { values, cols, firstTile, firstRow } of matrices) {
      for (const index of [0, 1, 37, 1000, 3333, values.length - 1]) {
        const [row, col] = [Math.floor(index / cols), index % cols];
        const tile = firstTile + (row >> 4) * (cols / 32) + (col >> 5);
        const step = (col & 31) >> 2;
        const byte = (row & 15) * 4 + (col & 3);
        const top = (bit(step >> 2, tile, byte) >> (2 * (step & 3))) & 3;
        const third = (bit(2, tile, step * 8 + (byte >> 3)) >> (byte & 7)) & 1;
        const fourth = (bit(3, tile, step * 8 + (byte >> 3)) >> (byte & 7)) & 1;
        const residual = (bit(4 + (step >> 1), tile, byte) >> (4 * (step & 1))) & 15;
        const code = top * 4 + third * 2 + fourth;
        const scaleByte = record[tile * 16 + (row & 15)]!;
        const group = (1 + (scaleByte & 15) / 16) * 2 ** (((scaleByte >> 4) & 7) - 7) * (scaleByte & 128 ? -1 : 1);
        const rowAt = 3 * tilesEach * 16 + 2 * (firstRow + row);
        const rowScale = new Float32Array(
          new Uint32Array([(record[rowAt]! | (record[rowAt + 1]! << 8)) << 16]).buffer,
        )[0]!;
        const needed = (rowScale * group * (2 * DEFAULT_TABLES.t4[code]! + 3 * residual - 23)) / 2;
        expect(values[index]).toBeCloseTo(needed, 6);
      }
    }
  });

  it('stores the same base and bits in both kinds of record when only the residual differs', () => {
    // Level 8 has a small say in the choice of codes, so this holds for the layout and not for every bit.
    const four = quantise(draw(4), { bits: 4 });
    const eight = quantise(draw(4), { bits: 8 });
    expect(four.relativeError[4]).toBeCloseTo(eight.relativeError[4], 3);
    expect(four.relativeError[8]).toBe(four.relativeError[4]);
  });

  it('lowers the weighted error when importance says where errors matter', () => {
    const weights = draw(5);
    const gateUp = Float32Array.from({ length: HIDDEN }, (_, i) => (i % 8 === 0 ? 50 : 0.1));
    const down = Float32Array.from({ length: EXPERT }, (_, i) => (i % 8 === 3 ? 50 : 0.1));
    const weighted = (found: Weights) => {
      let error = 0;
      weights.gate.forEach((value, i) => {
        error += gateUp[i % HIDDEN]! * (found.gate[i]! - value) ** 2;
      });
      return error;
    };
    const plain = quantise(weights, { bits: 4 });
    const aware = quantise(weights, { bits: 4, importance: { gateUp, down } });
    for (const level of [2, 3, 4] as const)
      expect(weighted(decode(aware.record, level))).toBeLessThan(0.9 * weighted(decode(plain.record, level)));
  });

  it('gives zeros for a row of zeros and keeps its neighbours when rows differ by far in size', () => {
    const weights = draw(6);
    for (let col = 0; col < HIDDEN; col++) {
      weights.gate[5 * HIDDEN + col] = 0;
      weights.gate[6 * HIDDEN + col]! *= 1e-6;
      weights.gate[7 * HIDDEN + col]! *= 1e6;
    }
    const found = decode(quantise(weights).record, 8).gate;
    for (let col = 0; col < HIDDEN; col++) expect(Math.abs(found[5 * HIDDEN + col]!)).toBe(0);
    for (const row of [4, 6, 7, 8]) {
      let error = 0;
      let energy = 0;
      for (let col = 0; col < HIDDEN; col++) {
        const value = weights.gate[row * HIDDEN + col]!;
        error += (found[row * HIDDEN + col]! - value) ** 2;
        energy += value ** 2;
      }
      expect(error / energy, `row ${row}`).toBeLessThan(2e-4);
    }
  });

  // 1e20: a number, but its square is none in float32, and the errors would come out as NaN.
  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e20])(
    'throws SOURCE_INVALID naming matrix and row when a weight is %d',
    (bad) => {
      const weights = draw(7);
      weights.up[3 * HIDDEN + 1] = bad;
      expect(() => quantise(weights)).toThrow(
        expect.objectContaining({ code: 'SOURCE_INVALID', message: expect.stringMatching(/up: row 3 /) }),
      );
    },
  );

  it('lets errors cancel at every level when it knows which inputs move together', () => {
    const weights = draw(6, 256 * 256);
    const shape = { hidden: 256, expert: 256 } as const;
    const gateUp = products(inputs(7, 256));
    const down = products(inputs(8, 256));
    const alone = (width256: Float32Array) => Float32Array.from({ length: 256 }, (_, i) => width256[i * 257]!);
    const weighed = quantise(weights, { ...shape, importance: { gateUp: alone(gateUp), down: alone(down) } });
    const fedBack = quantise(weights, { ...shape, importance: { gateUp, down } });
    const outputError = (record: Uint8Array, level: Level) => {
      const found = decode(record, level, 256, 256);
      return quadratic(found.gate, weights.gate, gateUp) + quadratic(found.down, weights.down, down);
    };
    for (const level of [2, 3, 4] as const)
      expect(outputError(fedBack.record, level), `level ${level}`).toBeLessThan(
        0.6 * outputError(weighed.record, level),
      );
    // Codes that feedback moves stay where the residual of level 8 reaches.
    expect(outputError(fedBack.record, 8)).toBeLessThan(outputError(weighed.record, 8));
    expect(fedBack.relativeError[4]).toBeLessThan(fedBack.relativeError[3]);
    expect(fedBack.relativeError[3]).toBeLessThan(fedBack.relativeError[2]);
    // Again, and with blocks that leave columns over: the same bytes, and every weight still near its own.
    expect(quantise(weights, { ...shape, importance: { gateUp, down } }).record).toEqual(fedBack.record);
    const narrow = { gateUp: new Float32Array(HIDDEN * 64), down: new Float32Array(EXPERT * 64) };
    for (let i = 0; i < HIDDEN; i++) narrow.gateUp[i * 64 + (i % 64)] = 1;
    for (let i = 0; i < EXPERT; i++) narrow.down[i * 64 + (i % 64)] = 1;
    const small = draw(9);
    expect(relativeError(decode(quantise(small, { importance: narrow }).record, 4), small)).toBeLessThan(0.0065);
  });

  it.each([2, 3, 4] as const)('errs less at level %i when no other level has a say', (onlyLevel) => {
    const weights = draw(11, HIDDEN * HIDDEN);
    const importance = { gateUp: products(inputs(12, HIDDEN)), down: products(inputs(13, HIDDEN)) };
    for (const options of [{}, { importance }]) {
      const shape = { ...options, bits: 4, hidden: HIDDEN, expert: HIDDEN } as const;
      const all = quantise(weights, shape).relativeError[onlyLevel];
      expect(quantise(weights, { ...shape, onlyLevel }).relativeError[onlyLevel]).toBeLessThan(all);
    }
  });

  it('ends in a record, whatever products it is given, when they are no covariance', () => {
    const gateUp = Float32Array.from({ length: HIDDEN * 32 }, (_, i) =>
      i % 32 === Math.floor(i / 32) % 32 ? 1 : 1e30,
    );
    const down = new Float32Array(EXPERT * 32);
    const { record } = quantise(draw(10), { importance: { gateUp, down } });
    for (const level of LEVELS) expect(decode(record, level).gate.every((value) => Number.isFinite(value))).toBe(true);
    const refused = { gateUp: gateUp.fill(Number.NaN), down };
    expect(() => quantise(draw(10), { importance: refused })).toThrow(/column 0: got nan/);
    const uneven = { gateUp: new Float32Array(HIDDEN * 32), down: new Float32Array(EXPERT) };
    expect(() => quantise(draw(10), { importance: uneven })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  it('throws INVALID_ARGUMENT when lengths, shape or importance are wrong', () => {
    const weights = draw(8);
    const short = { ...weights, down: weights.down.subarray(1) };
    expect(() => quantise(short)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => quantise(weights, { hidden: 48, expert: 128 })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
    expect(() => quantise(weights, { onlyLevel: 5 as 4 })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
    const importance = { gateUp: new Float32Array(HIDDEN).fill(-1), down: new Float32Array(EXPERT) };
    expect(() => quantise(weights, { importance })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

describe('quantiseDense()', () => {
  const dense = (values: Float32Array, rows: number, cols: number, bits: 4 | 6 | 8): Uint8Array => {
    const out = new Uint8Array(denseTensorBytes(`q${bits}`, rows, cols));
    addon.quantiseDense('F32', encodeValues('F32', values), rows, cols, bits, out);
    return out;
  };
  const decoded = (values: Float32Array, rows: number, cols: number, bits: 4 | 6 | 8): Float32Array => {
    const out = new Float32Array(values.length);
    addon.dequantiseDense(dense(values, rows, cols, bits), rows, cols, bits, out);
    return out;
  };

  it.each([
    [8, 127, 0.502],
    [6, 31, 2],
  ] as const)(
    'comes back at %i bits, whose codes reach %i, within %d steps of each group when rows are no multiple of a tile',
    (bits, end, steps) => {
      const random = gaussian(9);
      const [rows, cols] = [19, 64];
      const values = Float32Array.from({ length: rows * cols }, (_, i) => random() * 10 ** ((i >> 5) % 5));
      const out = decoded(values, rows, cols, bits);
      for (let group = 0; group < values.length; group += 32) {
        const size = Math.max(...values.subarray(group, group + 32).map(Math.abs));
        // At 6 bits the largest may be clipped where the group gains.
        for (let i = group; i < group + 32; i++)
          expect(Math.abs(out[i]! - values[i]!)).toBeLessThanOrEqual((size / end) * steps);
      }
    },
  );

  it.each([
    [4, 0.0056],
    [6, 0.00042],
    [8, 0.00003],
  ] as const)('loses as little of normal weights at %i bits as its format can', (bits, limit) => {
    const random = gaussian(10);
    const [rows, cols] = [64, 544];
    const values = Float32Array.from({ length: rows * cols }, (_, i) => random() * 10 ** (Math.floor(i / cols) % 5));
    const out = decoded(values, rows, cols, bits);
    for (let row = 0; row < rows; row++) {
      let error = 0;
      let energy = 0;
      for (let i = row * cols; i < (row + 1) * cols; i++) {
        error += (out[i]! - values[i]!) ** 2;
        energy += values[i]! ** 2;
      }
      // A row's own draw moves it by some percent.
      expect(error / energy, `row ${row}`).toBeLessThan(1.15 * limit);
    }
  });

  it.each([4, 6, 8] as const)('keeps a row of zeros at %i bits', (bits) => {
    const values = Float32Array.from({ length: 16 * 32 }, (_, i) => (i < 32 ? 0 : i % 7));
    const out = decoded(values, 16, 32, bits);
    expect(Math.max(...out.subarray(0, 32).map(Math.abs))).toBe(0);
    expect(out.subarray(32).some((value) => value !== 0)).toBe(true);
  });

  it('does not clip when the scale falls among the subnormals of f16', () => {
    const values = Float32Array.from({ length: 16 * 32 }, (_, i) => (i % 32 === 0 ? 1 : 0.3) * 1.2e-5);
    const out = decoded(values, 16, 32, 8);
    const scale = fromHalf(new Uint16Array(dense(values, 16, 32, 8).slice(512, 514).buffer)[0]!);
    values.forEach((value, i) => {
      expect(Math.abs(out[i]! - value)).toBeLessThanOrEqual(scale * 0.501);
    });
  });

  it.each([
    [8, 1e7],
    [6, 3e6],
    [4, 1e20],
  ] as const)('throws SOURCE_INVALID when a weight is beyond the scales of %i bits or not finite', (bits, large) => {
    for (const bad of [large, Number.NaN, Number.NEGATIVE_INFINITY]) {
      const values = new Float32Array(16 * 32);
      values[40] = bad;
      expect(() => dense(values, 16, 32, bits)).toThrow(expect.objectContaining({ code: 'SOURCE_INVALID' }));
    }
  });

  it('throws INVALID_ARGUMENT for bits that no format has and for another length', () => {
    const values = new Float32Array(16 * 32);
    const bytes = encodeValues('F32', values);
    for (const [bits, length] of [
      [5, 340],
      [4, 303],
      [6, 417],
    ] as const)
      expect(() => addon.quantiseDense('F32', bytes, 16, 32, bits as 4, new Uint8Array(length))).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
  });
});

/** 400 inputs of `size` columns in which a few directions outweigh the rest: [400][size]. */
function inputs(seed: number, size: number): Float32Array[] {
  const random = gaussian(seed);
  const directions = Array.from({ length: 12 }, () => Float32Array.from({ length: size }, () => random()));
  return Array.from({ length: 400 }, () => {
    const shares = directions.map(() => random());
    return Float32Array.from({ length: size }, (_, i) =>
      directions.reduce((sum, direction, d) => sum + shares[d]! * direction[i]!, 0.3 * random()),
    );
  });
}

/** Their mean products [size, size]. */
function products(rows: readonly Float32Array[]): Float32Array {
  const size = rows[0]!.length;
  const out = new Float32Array(size * size);
  for (const row of rows)
    for (let i = 0; i < size; i++)
      for (let k = 0; k < size; k++) out[i * size + k]! += (row[i]! * row[k]!) / rows.length;
  return out;
}

/** Mean squared error of the outputs: sum over rows of e C e. */
function quadratic(found: Float32Array, needed: Float32Array, covariance: Float32Array): number {
  const size = Math.sqrt(covariance.length);
  let sum = 0;
  for (let first = 0; first < found.length; first += size)
    for (let i = 0; i < size; i++)
      for (let k = 0; k < size; k++)
        sum +=
          (found[first + i]! - needed[first + i]!) *
          covariance[i * size + k]! *
          (found[first + k]! - needed[first + k]!);
  return sum;
}
