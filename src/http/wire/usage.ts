/** What an answer took, as OpenAI counts it, and beside it the account of precision and disk that is our own. */
import type { AnswerUsage } from '../../answer/types.js';

/**
 * @param usages one per choice. Choices of one prompt count it once; `promptCount` prompts were sent.
 */
export function usageBody(usages: readonly AnswerUsage[], promptCount = 1) {
  const sum = (read: (usage: AnswerUsage) => number): number => usages.reduce((total, one) => total + read(one), 0);
  const perPrompt = usages.length / promptCount;
  const promptTokens = sum((usage) => usage.promptTokens) / perPrompt;
  const cachedTokens = sum((usage) => usage.cachedTokens) / perPrompt;
  const completionTokens = sum((usage) => usage.completionTokens);
  const decodeMs = sum((usage) => usage.decodeMs);
  const prefillMs = sum((usage) => usage.prefillMs);
  // Weighted by the tokens each choice ran through the experts.
  const tokens = (usage: AnswerUsage): number => usage.promptTokens - usage.cachedTokens + usage.completionTokens;
  const mean = (read: (usage: AnswerUsage) => number): number =>
    sum((usage) => read(usage) * tokens(usage)) / Math.max(1, sum(tokens));
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: Math.round(cachedTokens) },
    completion_tokens_details: { reasoning_tokens: sum((usage) => usage.reasoningTokens) },
    moestro: {
      mean_bits: mean((usage) => usage.meanBits),
      share_below_full_level: mean((usage) => usage.shareBelowFullLevel),
      bytes_read: sum((usage) => usage.bytesRead),
      stall_ms: sum((usage) => usage.stallMs),
      queue_ms: sum((usage) => usage.queueMs),
      prefill_ms: prefillMs,
      decode_ms: decodeMs,
      prefill_tokens_per_second: perSecond(
        sum((usage) => usage.promptTokens - usage.cachedTokens),
        prefillMs,
      ),
      // The first token of an answer comes out of its prefill.
      decode_tokens_per_second: perSecond(
        sum((usage) => Math.max(0, usage.completionTokens - 1)),
        decodeMs,
      ),
    },
  };
}

const perSecond = (count: number, ms: number): number | null => (ms > 0 ? (count * 1000) / ms : null);
