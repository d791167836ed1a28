/** How often is a router right that is asked a layer early? Of all it was asked about, resident or not, as recorded. */
import { marginOf } from '../experts/recorded-guesses.js';
import type { Recording } from '../experts/trace.js';

/** Share of the experts chosen that stand among the early router's own best top-k; null where nothing of that is recorded. */
export function earlyRecall({ tokens, layers, topK, ids, live }: Recording): number | null {
  const guesses = live?.guesses ?? null;
  if (guesses === null) return null;
  let chosen = 0;
  let named = 0;
  for (let token = 0; token < tokens; ++token) {
    const index = guesses.indexOf[token]!;
    for (let layer = 0; index >= 0 && layer < layers; ++layer) {
      const from = (index * layers + layer) * guesses.perToken;
      if (marginOf(guesses.codes[from]!) === null) continue;
      const best = guesses.ids.subarray(from, from + Math.min(topK, guesses.perToken));
      const at = (token * layers + layer) * topK;
      for (const id of ids.subarray(at, at + topK)) if (best.includes(id)) ++named;
      chosen += topK;
    }
  }
  return chosen === 0 ? null : named / chosen;
}
