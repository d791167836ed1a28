/** Events of an answer with the model's thoughts told apart from it. */
import type { ReasoningSplit } from '../text/reasoning.js';
import type { AnswerEvent, TokenReport } from './types.js';

/** Thoughts become events of their own; the usage says how many tokens they took. */
export async function* withReasoning(
  events: AsyncIterable<AnswerEvent>,
  split: ReasoningSplit,
): AsyncGenerator<AnswerEvent, void, void> {
  let reasoningTokens = 0;
  let tokenCount = 0;
  /** Reports that wait for the text they stand beside. */
  let reports: TokenReport[] = [];
  function* told(thoughts: string, answer: string): Generator<AnswerEvent, void, void> {
    if (thoughts !== '') yield { kind: 'reasoning', text: thoughts, tokens: reports.splice(0), tokenCount };
    if (answer !== '') yield { kind: 'delta', text: answer, tokens: reports.splice(0), tokenCount };
  }
  function* flushed(): Generator<AnswerEvent, void, void> {
    const { thoughts, answer } = split.flush();
    yield* told(thoughts, answer);
  }
  for await (const event of events) {
    if (event.kind === 'delta') {
      const wasThinking = split.isThinking;
      tokenCount = event.tokenCount;
      reports = [...reports, ...event.tokens];
      const { thoughts, answer } = split.push(event.text);
      // The marker at the end belongs to the thoughts.
      if (wasThinking || split.isThinking || thoughts !== '') reasoningTokens = event.tokenCount;
      yield* told(thoughts, answer);
    } else if (event.kind === 'finish') {
      yield* flushed();
      if (reports.length > 0) yield { kind: 'delta', text: '', tokens: reports, tokenCount };
      yield { ...event, usage: { ...event.usage, reasoningTokens } };
    } else {
      // What was held back of the text stands before a call.
      if (event.kind === 'toolCall') yield* flushed();
      yield event;
    }
  }
}
