/** Token reports in the two shapes of the API: that of chat, and the older one of completions. */
import type { PromptReport, ReportedToken, TokenReport } from '../../answer/types.js';

const entry = ({ text, logprob, bytes }: ReportedToken) => ({ token: text, logprob, bytes });

export const chatLogprobs = (tokens: readonly TokenReport[]) => ({
  content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  refusal: null,
});

/**
 * @param prompt its tokens, where it is repeated. Nothing foretells the very first one: it has no logprob.
 * @param echoLength characters before the answer: places are counted from the beginning of both.
 */
export function completionLogprobs(
  prompt: readonly PromptReport[],
  tokens: readonly TokenReport[],
  wantsTop: boolean,
  echoLength: number,
) {
  const all = [...prompt, ...tokens];
  const alternatives = ({ top, logprob }: PromptReport) =>
    logprob === null ? null : Object.fromEntries(top.map((other) => [other.text, other.logprob]));
  return {
    tokens: all.map(({ text }) => text),
    token_logprobs: all.map(({ logprob }) => logprob),
    top_logprobs: wantsTop ? all.map(alternatives) : null,
    text_offset: [...prompt.map(({ begin }) => begin), ...tokens.map(({ begin }) => begin + echoLength)],
  };
}

/** How likely the model found an answer, per token; an empty one is as likely as can be. */
export function meanLogprob(tokens: readonly TokenReport[]): number {
  return tokens.reduce((sum, { logprob }) => sum + logprob, 0) / Math.max(1, tokens.length);
}
