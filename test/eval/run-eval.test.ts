import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { forEachConcurrent } from '../../src/eval/concurrent.js';
import { readQuestions } from '../../src/eval/questions.js';
import { ReferenceReader } from '../../src/eval/reference-file.js';
import { type EvalRequest, runEval } from '../../src/eval/run-eval.js';
import { digitText, FAKE_VOCAB, ruleEvaluator } from './fakes.js';

const NOTHING: EvalRequest = {
  questions: null,
  prose: null,
  context: 8,
  chunks: null,
  reference: null,
  against: null,
  saveReference: null,
  onProgress: () => {},
};
/** Three chunks of eight, each token the one before and one. */
const PROSE = '012345671234567023456701';

/** Perplexity of a prediction that is right by `margin` nats, and the KL between two of them. */
const perplexityOf = (margin: number) => (Math.exp(margin) + FAKE_VOCAB - 1) / Math.exp(margin);
function klOf(reference: number, model: number): number {
  const p = 1 / perplexityOf(reference);
  const q = 1 / perplexityOf(model);
  return p * Math.log(p / q) + (1 - p) * Math.log((1 - p) / (1 - q));
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'moestro-eval-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const model = (margin: number, bos: number | null = null) => ({
  evaluator: ruleEvaluator(margin),
  text: digitText,
  bos,
});

describe('runEval()', () => {
  it('runEval() leaves out what was not asked for', async () => {
    const questions = [{ domain: 'length', question: '123', answer: '3' }];
    const result = await runEval(model(1), { ...NOTHING, questions });
    expect(result).toEqual({ model: 'rule', level: 4, mode: 'exact', accuracy: { length: 100, all: 100 } });
  });

  it('tells the bits that were taken', async () => {
    const questions = [{ domain: 'length', question: '123', answer: '3' }];
    const evaluator = ruleEvaluator(1, { meanBits: async () => 3.5 });
    const result = await runEval({ ...model(1), evaluator }, { ...NOTHING, questions });
    expect(result).toMatchObject({ level: 4, meanBits: 3.5 });
  });

  it('runEval() measures perplexity over the second half of every chunk', async () => {
    const result = await runEval(model(2), { ...NOTHING, prose: PROSE });
    expect(result.perplexity).toBeCloseTo(perplexityOf(2), 6);
    expect(result.positions).toBe(9);
    expect(result).not.toHaveProperty('kl');
    expect((await runEval(model(2), { ...NOTHING, prose: PROSE, chunks: 2 })).positions).toBe(6);
  });

  it('runEval() puts BOS before the text and in place of every first token', async () => {
    const asked = model(2, 5);
    await runEval(asked, { ...NOTHING, prose: PROSE });
    expect(asked.evaluator.asked.map((ids) => ids.join(''))).toEqual(['50123456', '51234567', '52345670']);
  });

  it('runEval() compares with another model over the same positions', async () => {
    const result = await runEval(model(1), { ...NOTHING, prose: PROSE, against: ruleEvaluator(3) });
    expect(result.kl).toBeCloseTo(klOf(3, 1), 6);
    expect(result).toMatchObject({ top1: 100, positions: 9 });
  });

  it('runEval() compares with what it saved, computing each sequence once', async () => {
    const path = join(directory, 'a.ref');
    await runEval(model(3), { ...NOTHING, prose: PROSE, saveReference: path });
    const reference = new ReferenceReader(path);
    // Saved in the order of the text, whatever order the answers came in.
    expect(reference.sequences.map((sequence) => sequence.ids.join(''))).toEqual(['01234567', '12345670', '23456701']);
    const both = model(1);
    const withText = await runEval(both, { ...NOTHING, prose: PROSE, reference });
    expect(withText.kl).toBeCloseTo(klOf(3, 1), 4);
    expect(both.evaluator.asked).toHaveLength(3);
    const alone = await runEval(model(1), { ...NOTHING, reference });
    expect(alone).toEqual(withText);
    expect((await runEval(model(1), { ...NOTHING, reference, chunks: 1 })).positions).toBe(3);
    // Another text than the reference's: both are computed, and only the reference's are compared.
    const other = model(1);
    expect((await runEval(other, { ...NOTHING, prose: '34567012', reference })).positions).toBe(9);
    expect(other.evaluator.asked).toHaveLength(4);
    reference.close();
  });

  it('runEval() refuses models of different vocabularies and sequences beyond the context', async () => {
    const against = ruleEvaluator(1, { vocabSize: 9 });
    await expect(runEval(model(1), { ...NOTHING, prose: PROSE, against })).rejects.toThrow(
      'Cannot compare logits: the model has 8 tokens, the other side 9',
    );
    const short = { ...model(1), evaluator: ruleEvaluator(1, { contextLength: 4 }) };
    await expect(runEval(short, { ...NOTHING, prose: PROSE })).rejects.toThrow(
      'Cannot evaluate sequences of 8 tokens: the model has room for 4',
    );
  });

  it('runEval() leaves no reference behind when the model fails', async () => {
    const logits = () => Promise.reject(new Error('broken'));
    const broken = { ...model(1), evaluator: ruleEvaluator(1, { logits }) };
    const saveReference = join(directory, 'a.ref');
    await expect(runEval(broken, { ...NOTHING, prose: PROSE, saveReference })).rejects.toThrow('broken');
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('questions', () => {
  it('runEval() counts an answer as right when it equals the expected one, stripped', async () => {
    const ask = (domain: string, question: string, answer: string) => ({ domain, question, answer });
    const questions = [ask('b', '1', '1'), ask('b', '11', '1'), ask('a', '111', ' 3'), ask('b', '1111', '44')];
    const { accuracy } = await runEval(model(1), { ...NOTHING, questions });
    expect(accuracy).toEqual({ a: 100, b: 33.33, all: 50 });
  });

  it.each([
    ['', 'it is empty'],
    ['{"domain":"a","question":"b","answer":"c"}\n[', 'line 2 is not JSON'],
    ['null', 'line 1 lacks one of the texts'],
    ['{"domain":"a","question":"b","answer":1}', 'line 1 lacks one of the texts'],
  ])('readQuestions() refuses %j', (text, message) => {
    const path = join(directory, 'q.jsonl');
    writeFileSync(path, text);
    expect(() => readQuestions(path)).toThrow(message);
  });
});

describe('forEachConcurrent()', () => {
  it('forEachConcurrent() holds its limit and starts nothing after an error', async () => {
    let open = 0;
    let most = 0;
    const started: number[] = [];
    const work = async (item: number) => {
      started.push(item);
      most = Math.max(most, ++open);
      await Promise.resolve();
      open--;
      if (item === 3) throw new Error('three');
    };
    await expect(forEachConcurrent([1, 2, 3, 4, 5, 6, 7, 8], 2, work)).rejects.toThrow('three');
    expect(most).toBe(2);
    expect(started).not.toContain(6);
  });
});
