/** Token reports in the two shapes of the API: that of chat, and the older one of completions. */
import type { ReportedToken, TokenReport } from '../../generate.js';

const entry = ({ text, logprob, bytes }: ReportedToken) => ({ token: text, logprob, bytes });

export const chatLogprobs = (tokens: readonly TokenReport[]) => ({
  content: tokens.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  refusal: null,
});

export const completionLogprobs = (tokens: readonly TokenReport[], wantsTop: boolean) => ({
  tokens: tokens.map(({ text }) => text),
  token_logprobs: tokens.map(({ logprob }) => logprob),
  top_logprobs: wantsTop
    ? tokens.map(({ top }) => Object.fromEntries(top.map(({ text, logprob }) => [text, logprob])))
    : null,
  text_offset: tokens.map(({ begin }) => begin),
});
