/** What routing weights look like before anybody has measured a model's: those of normally distributed router logits. */

/** Standard deviations of the logits to average over, in place of the unknown one. */
const SPREADS = [1, 1.5, 2, 2.5, 3] as const;

/**
 * Weights of the top-k experts at each spread, by the expected order of `expertCount` normal numbers.
 *
 * @returns [spreads * topK], each in (0, 1].
 */
export function nominalWeights(architecture: {
  readonly expertCount: number;
  readonly topK: number;
  readonly normTopK: boolean;
}): number[] {
  const { expertCount, topK, normTopK } = architecture;
  return SPREADS.flatMap((spread) => {
    // Blom's plotting positions (1958), largest first.
    const logits = Array.from({ length: expertCount }, (_, rank) =>
      Math.exp(spread * normalQuantile((expertCount - rank - 0.375) / (expertCount + 0.25))),
    );
    const chosen = logits.slice(0, topK);
    const sum = (normTopK ? chosen : logits).reduce((total, value) => total + value, 0);
    return chosen.map((value) => value / sum);
  });
}

/** The p-quantile of the standard normal distribution, within 0.03 for p from 0.001 to 0.999. */
function normalQuantile(p: number): number {
  // Tukey's lambda distribution with the exponent that comes closest.
  return (p ** 0.135 - (1 - p) ** 0.135) / 0.1975;
}
