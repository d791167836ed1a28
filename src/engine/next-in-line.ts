/** Which of the requests that wait is let in next? */

/** A request as the line sees it. */
export interface InLine {
  /** Higher goes first. */
  readonly rank: number;
  readonly client: string;
  /** Tokens of its answer so far: one that was under way and had to give way goes on before others begin. */
  readonly generated: number;
}

/**
 * The highest rank; in it one whose answer has begun; then of the client with the fewest answers running, so that one that
 * asks for much leaves places to the others; then the one that came first.
 *
 * @param waiting in order of arrival, at least one.
 * @returns its index.
 */
export function nextInLine(waiting: readonly InLine[], running: readonly InLine[]): number {
  const held = new Map<string, number>();
  for (const { client } of running) held.set(client, (held.get(client) ?? 0) + 1);
  let best = 0;
  for (let i = 1; i < waiting.length; ++i) if (isBefore(waiting[i]!, waiting[best]!, held)) best = i;
  return best;
}

function isBefore(one: InLine, other: InLine, held: ReadonlyMap<string, number>): boolean {
  if (one.rank !== other.rank) return one.rank > other.rank;
  const hasBegun = one.generated > 0;
  if (hasBegun !== other.generated > 0) return hasBegun;
  return !hasBegun && (held.get(one.client) ?? 0) < (held.get(other.client) ?? 0);
}
