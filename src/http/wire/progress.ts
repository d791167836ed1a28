/** What `return_progress` reports, in llama.cpp's words. */
import type { AnswerEvent } from '../../answer/types.js';

/** Tokens of the prompt in all, those of them that were known, and those that are there by now. */
export const progressBody = ({ total, cached, done }: Extract<AnswerEvent, { kind: 'prefill' }>) => ({
  total,
  cache: cached,
  processed: done,
});
