/**
 * Golden logits: what llama.cpp gave, kept small enough to commit. Per position the 64 likeliest tokens with their
 * log-probabilities. Little-endian:
 *
 *   "MOEGOLD1", u32 vocabSize, u32 kept, u32 sequence count
 *   a sequence: u32 tokens, u32 ids [tokens], u16 top ids [tokens, kept], f32 log-probabilities [tokens, kept]
 */
import { logSumExp, rowOf } from '../../src/eval/distribution.js';

const MAGIC = 'MOEGOLD1';

export interface GoldenSequence {
  readonly ids: readonly number[];
  /** [tokens, kept], likeliest first. */
  readonly topIds: Uint16Array;
  readonly logProbabilities: Float32Array;
}

export interface Golden {
  readonly vocabSize: number;
  readonly kept: number;
  readonly sequences: readonly GoldenSequence[];
}

/** Keeps the `kept` likeliest tokens of logits [tokens, vocabSize]. */
export function goldenSequence(ids: readonly number[], logits: Float32Array, kept: number): GoldenSequence {
  const vocabSize = logits.length / ids.length;
  const topIds = new Uint16Array(ids.length * kept);
  const logProbabilities = new Float32Array(ids.length * kept);
  for (let position = 0; position < ids.length; ++position) {
    const row = rowOf(logits, position, vocabSize);
    const sum = logSumExp(row);
    const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
    for (let rank = 0; rank < kept; ++rank) {
      topIds[position * kept + rank] = order[rank]!;
      logProbabilities[position * kept + rank] = row[order[rank]!]! - sum;
    }
  }
  return { ids, topIds, logProbabilities };
}

export function goldenBytes(golden: Golden): Uint8Array {
  const parts: Uint8Array[] = [new TextEncoder().encode(MAGIC)];
  const words = (values: readonly number[]) => parts.push(new Uint8Array(Uint32Array.from(values).buffer));
  words([golden.vocabSize, golden.kept, golden.sequences.length]);
  for (const { ids, topIds, logProbabilities } of golden.sequences) {
    words([ids.length, ...ids]);
    parts.push(new Uint8Array(topIds.buffer), new Uint8Array(logProbabilities.buffer));
  }
  return Buffer.concat(parts);
}

export function parseGolden(bytes: Uint8Array): Golden {
  const view = Buffer.from(bytes);
  if (view.toString('latin1', 0, 8) !== MAGIC) throw new Error('not a golden file');
  const [vocabSize, kept, count] = [view.readUInt32LE(8), view.readUInt32LE(12), view.readUInt32LE(16)];
  let at = 20;
  const take = (length: number): ArrayBuffer => {
    const own = Uint8Array.from(view.subarray(at, at + length));
    if (own.length !== length) throw new Error(`golden file ends at ${view.length}, needed ${at + length}`);
    at += length;
    return own.buffer;
  };
  const sequences = Array.from({ length: count }, () => {
    const [tokens] = new Uint32Array(take(4));
    return {
      ids: [...new Uint32Array(take(tokens! * 4))],
      topIds: new Uint16Array(take(tokens! * kept * 2)),
      logProbabilities: new Float32Array(take(tokens! * kept * 4)),
    };
  });
  return { vocabSize, kept, sequences };
}

/**
 * Divergence of logits [tokens, vocabSize] from the golden ones: the kept tokens one by one, all others as one. That
 * joining can only lower a KL, and hardly does: the rest holds little of the mass, and its parts move together.
 */
export function goldenDivergence(
  golden: Golden,
  sequence: GoldenSequence,
  logits: Float32Array,
): { readonly kl: number; readonly same: number } {
  const { kept, vocabSize } = golden;
  let kl = 0;
  let same = 0;
  for (let position = 0; position < sequence.ids.length; ++position) {
    const row = rowOf(logits, position, vocabSize);
    const sum = logSumExp(row);
    let restGolden = 1;
    let restModel = 1;
    let best = 0;
    for (let id = 1; id < vocabSize; ++id) if (row[id]! > row[best]!) best = id;
    if (best === sequence.topIds[position * kept]) ++same;
    for (let rank = 0; rank < kept; ++rank) {
      const logP = sequence.logProbabilities[position * kept + rank]!;
      const logQ = row[sequence.topIds[position * kept + rank]!]! - sum;
      kl += Math.exp(logP) * (logP - logQ);
      restGolden -= Math.exp(logP);
      restModel -= Math.exp(logQ);
    }
    // Below 1e-6 the rests are rounding of the float32 log-probabilities.
    if (restGolden > 1e-6 && restModel > 1e-6) kl += restGolden * Math.log(restGolden / restModel);
  }
  return { kl: kl / sequence.ids.length, same: same / sequence.ids.length };
}
