/**
 * Blocks of ggml's formats made from codes, for tests of decoding. Each format is told as a list of bit fields, one
 * per code: an encoder that shares no line of thought with the decoder in native/quantise.
 */
import { fromHalf, toHalf } from './number-formats.js';

export interface GgmlBlock {
  readonly bytes: Uint8Array;
  /** What the block stands for, in double precision. */
  readonly values: readonly number[];
}

/** Whole numbers in [0, limit) from a seed. */
export type Draw = (limit: number) => number;

type BlockMaker = (draw: Draw) => GgmlBlock;

/** Bits of a block, set field by field. */
class Fields {
  readonly bytes: Uint8Array;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
  }

  /** ORs `width` bits of `value` (from its bit `from` on) into byte `at` at bit `shift`. */
  put(at: number, shift: number, width: number, value: number, from = 0): void {
    this.bytes[at]! |= ((value >> from) & ((1 << width) - 1)) << shift;
  }

  half(at: number, value: number): number {
    const bits = toHalf(value);
    this.bytes[at] = bits & 255;
    this.bytes[at + 1] = bits >> 8;
    return fromHalf(bits);
  }
}

const drawScale = (draw: Draw): number => (draw(2) === 0 ? 1 : -1) * (0.001 + draw(1000) / 20_000);

/** Blocks of 32 with optional minimum and fifth bit. */
function simple(bits: 4 | 5, hasMinimum: boolean): BlockMaker {
  return (draw) => {
    const start = hasMinimum ? 4 : 2;
    const codesAt = start + (bits === 5 ? 4 : 0);
    const fields = new Fields(codesAt + 16);
    const scale = fields.half(0, drawScale(draw));
    const minimum = hasMinimum ? fields.half(2, drawScale(draw)) : 0;
    const values: number[] = [];
    for (let i = 0; i < 32; i++) {
      const code = draw(1 << bits);
      fields.put(codesAt + (i % 16), i < 16 ? 0 : 4, 4, code);
      if (bits === 5) fields.put(start + (i >> 3), i % 8, 1, code, 4);
      values.push(hasMinimum ? scale * code + minimum : scale * (code - (1 << (bits - 1))));
    }
    return { bytes: fields.bytes, values };
  };
}

/** Eight 6-bit scales and minima in 12 bytes at `at`: the table of llama.cpp's K-quants, one bit range a line. */
function putScaleMin(fields: Fields, at: number, group: number, scale: number, minimum: number): void {
  if (group < 4) {
    fields.put(at + group, 0, 6, scale);
    fields.put(at + 4 + group, 0, 6, minimum);
    return;
  }
  fields.put(at + 4 + group, 0, 4, scale);
  fields.put(at + 4 + group, 4, 4, minimum);
  fields.put(at + group - 4, 6, 2, scale, 4);
  fields.put(at + group, 6, 2, minimum, 4);
}

function fourOrFiveK(bits: 4 | 5): BlockMaker {
  return (draw) => {
    const codesAt = bits === 4 ? 16 : 48;
    const fields = new Fields(codesAt + 128);
    const d = fields.half(0, drawScale(draw));
    const dmin = fields.half(2, drawScale(draw));
    const values: number[] = [];
    for (let group = 0; group < 8; group++) {
      const [scale, minimum] = [draw(64), draw(64)];
      putScaleMin(fields, 4, group, scale, minimum);
      for (let i = 0; i < 32; i++) {
        const code = draw(1 << bits);
        fields.put(codesAt + 32 * (group >> 1) + i, group % 2 === 0 ? 0 : 4, 4, code);
        if (bits === 5) fields.put(16 + i, group, 1, code, 4);
        values.push(d * scale * code - dmin * minimum);
      }
    }
    return { bytes: fields.bytes, values };
  };
}

/** Every format but the plain floats: bytes and weights of a block by construction, and a maker. */
export const GGML_BLOCKS: Readonly<Record<string, BlockMaker>> = {
  Q8_0: (draw) => {
    const fields = new Fields(34);
    const scale = fields.half(0, drawScale(draw));
    const values = Array.from({ length: 32 }, (_, i) => {
      const code = draw(256) - 128;
      fields.bytes[2 + i] = code & 255;
      return scale * code;
    });
    return { bytes: fields.bytes, values };
  },
  Q4_0: simple(4, false),
  Q4_1: simple(4, true),
  Q5_0: simple(5, false),
  Q5_1: simple(5, true),
  Q2_K: (draw) => {
    const fields = new Fields(84);
    const d = fields.half(80, drawScale(draw));
    const dmin = fields.half(82, drawScale(draw));
    const values: number[] = [];
    for (let group = 0; group < 16; group++) {
      const [scale, minimum] = [draw(16), draw(16)];
      fields.put(group, 0, 4, scale);
      fields.put(group, 4, 4, minimum);
      for (let i = 0; i < 16; i++) {
        const code = draw(4);
        const [half, run] = [group >> 3, (group >> 1) & 3];
        fields.put(16 + 32 * half + 16 * (group & 1) + i, 2 * run, 2, code);
        values.push(d * scale * code - dmin * minimum);
      }
    }
    return { bytes: fields.bytes, values };
  },
  Q3_K: (draw) => {
    const fields = new Fields(110);
    const d = fields.half(108, drawScale(draw));
    const values: number[] = [];
    for (let group = 0; group < 16; group++) {
      const scale = draw(64);
      fields.put(96 + (group % 8), group < 8 ? 0 : 4, 4, scale);
      fields.put(104 + (group % 4), 2 * (group >> 2), 2, scale, 4);
      for (let i = 0; i < 16; i++) {
        const code = draw(8); // stands for code - 4
        const [half, run] = [group >> 3, (group >> 1) & 3];
        const byte = 16 * (group & 1) + i;
        fields.put(32 + 32 * half + byte, 2 * run, 2, code);
        fields.put(byte, 4 * half + run, 1, code, 2);
        values.push(d * (scale - 32) * (code - 4));
      }
    }
    return { bytes: fields.bytes, values };
  },
  Q4_K: fourOrFiveK(4),
  Q5_K: fourOrFiveK(5),
  Q6_K: (draw) => {
    const fields = new Fields(210);
    const d = fields.half(208, drawScale(draw));
    const values: number[] = [];
    for (let group = 0; group < 16; group++) {
      const scale = draw(256) - 128;
      fields.bytes[192 + group] = scale & 255;
      for (let i = 0; i < 16; i++) {
        const code = draw(64);
        const [half, run] = [group >> 3, (group >> 1) & 3];
        const j = 16 * (group & 1) + i;
        fields.put(64 * half + 32 * (run & 1) + j, run < 2 ? 0 : 4, 4, code);
        fields.put(128 + 32 * half + j, 2 * run, 2, code, 4);
        values.push(d * scale * (code - 32));
      }
    }
    return { bytes: fields.bytes, values };
  },
};
