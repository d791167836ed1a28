/** A model of nothing but a rule, for tests of the instruments. */
import type { Evaluator } from '../../src/eval/evaluator.js';
import type { ChatMessage, TextModel } from '../../src/text/types.js';

export const FAKE_VOCAB = 8;

/**
 * After token t it thinks t + 1 likeliest, by `margin` nats over each other token. Counts what it was asked.
 */
export function ruleEvaluator(
  margin: number,
  change: Partial<Evaluator> = {},
): Evaluator & { readonly asked: (readonly number[])[] } {
  const asked: (readonly number[])[] = [];
  return {
    asked,
    model: 'rule',
    level: 4,
    mode: 'exact',
    vocabSize: FAKE_VOCAB,
    contextLength: 64,
    concurrency: 3,
    async logits(ids, begin, end) {
      asked.push(ids);
      // Later sequences come back first, so that their order has to be restored.
      for (let i = 0; i < 20 - (ids[1] ?? 0); ++i) await Promise.resolve();
      const out = new Float32Array((end - begin) * FAKE_VOCAB);
      for (let p = begin; p < end; ++p) out[(p - begin) * FAKE_VOCAB + ((ids[p]! + 1) % FAKE_VOCAB)] = margin;
      return out;
    },
    async answer(promptIds) {
      return [promptIds.length % FAKE_VOCAB];
    },
    meanBits: async () => undefined,
    close: async () => {},
    ...change,
  };
}

/** Digits as tokens. A chat is its content. */
export const digitText: TextModel = {
  vocabSize: FAKE_VOCAB,
  encode: (text) => [...text].map(Number),
  decode: (ids) => ` ${ids.join('')} \n`,
  tokenBytes: () => new Uint8Array(0),
  tokenText: String,
  eosTokenIds: [7],
  bosTokenId: 0,
  thinking: null,
  fill: null,
  hasChatTemplate: true,
  renderChat: (messages) => messages.map((message) => message.content).join(''),
  encodeChat: (messages: readonly ChatMessage[]) => [...(messages[0]?.content ?? '')].map(Number),
  detokenizer: () => ({ push: String, flush: () => '' }),
};
