/** The tokens of one step, laid out as native code takes them. */
import type { LevelPolicy } from '../experts/precision.js';
import type { Sequence } from './sequence.js';

/** A row is one sequence of the batch; its tokens are consecutive and ascending in position. */
export interface Batch {
  /** Int32Array [tokens]; row is the index of a token's sequence. */
  readonly tokenIds: Int32Array;
  readonly positions: Int32Array;
  readonly rows: Int32Array;
  tokens: number;
  rowCount: number;
  /** By row: its tokens in this step, its sequence, at which levels it runs. */
  readonly rowTokens: Int32Array;
  readonly rowIds: Float64Array;
  readonly rowPolicies: LevelPolicy[];
  /** Int32Array [rows, blocksPerSequence]. */
  readonly blockTables: Int32Array;
  readonly blocksPerSequence: number;
}

/** @param tokens and rows of one step at most. */
export function createBatch(tokens: number, rows: number, blocksPerSequence: number): Batch {
  return {
    tokenIds: new Int32Array(tokens),
    positions: new Int32Array(tokens),
    rows: new Int32Array(tokens),
    tokens: 0,
    rowCount: 0,
    rowTokens: new Int32Array(rows),
    rowIds: new Float64Array(rows),
    rowPolicies: [],
    blockTables: new Int32Array(rows * blocksPerSequence),
    blocksPerSequence,
  };
}

/** Fills the batch with the next `counts[i]` tokens of sequence i, a row for each that has some. */
export function fillBatch(batch: Batch, sequences: readonly Sequence[], counts: Int32Array): void {
  batch.tokens = 0;
  batch.rowCount = 0;
  for (let i = 0; i < sequences.length; ++i) {
    const sequence = sequences[i]!;
    const count = counts[i]!;
    if (count === 0) continue;
    const row = batch.rowCount++;
    batch.rowTokens[row] = count;
    batch.rowIds[row] = sequence.id;
    batch.rowPolicies[row] = sequence.policy;
    batch.blockTables.set(sequence.table.blocks, row * batch.blocksPerSequence);
    for (let position = sequence.computed; position < sequence.computed + count; ++position) {
      batch.tokenIds[batch.tokens] = sequence.tokens[position]!;
      batch.positions[batch.tokens] = position;
      batch.rows[batch.tokens++] = row;
    }
  }
}
