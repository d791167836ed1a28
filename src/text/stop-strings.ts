/**
 * Where does a stop string end an answer that arrives in pieces?
 *
 * The answer ends where the first stop string is complete (of those complete at the same character, the longest
 * counts), whatever pieces the text came in. Text that may be the beginning of a stop string waits. One automaton per
 * stop string, one step per character. Source: Knuth, Morris, Pratt, SIAM J. Comput. 6(2), 1977.
 */

export interface StopResult {
  /** What may be shown now. */
  readonly text: string;
  readonly stopped: boolean;
  /** The stop string that ended the answer. */
  readonly matched: string | null;
}

class PrefixAutomaton {
  readonly pattern: string;
  /** For each matched length, the longest proper prefix that is also a suffix of it. */
  private readonly fallback: Int32Array;
  /** Characters of the pattern that the text seen so far ends in. */
  matched = 0;

  constructor(pattern: string) {
    this.pattern = pattern;
    this.fallback = new Int32Array(pattern.length + 1);
    for (let i = 1, length = 0; i < pattern.length; ++i) {
      while (length > 0 && pattern[i] !== pattern[length]) length = this.fallback[length]!;
      if (pattern[i] === pattern[length]) ++length;
      this.fallback[i + 1] = length;
    }
  }

  step(char: string): boolean {
    while (this.matched > 0 && char !== this.pattern[this.matched]) this.matched = this.fallback[this.matched]!;
    if (char === this.pattern[this.matched]) ++this.matched;
    return this.matched === this.pattern.length;
  }

  /** The pattern that was completed does not count: goes on with the end of it that may begin another. */
  passOver(): void {
    this.matched = this.fallback[this.matched]!;
  }
}

export class StopStrings {
  private readonly automata: readonly PrefixAutomaton[];
  private held = '';
  private isStopped = false;

  /** @param stops empty ones are ignored: they would end every answer before it begins. */
  constructor(stops: readonly string[]) {
    this.automata = stops.filter((stop) => stop !== '').map((stop) => new PrefixAutomaton(stop));
  }

  /**
   * After a stop nothing more is shown.
   *
   * @param mayStop whether a stop string that this text completes ends the answer.
   */
  push(text: string, mayStop = true): StopResult {
    if (this.isStopped) return { text: '', stopped: true, matched: null };
    if (this.automata.length === 0) return { text, stopped: false, matched: null };
    const seen = this.held + text;
    for (let at = this.held.length; at < seen.length; ++at) {
      let matched: string | null = null;
      for (const automaton of this.automata)
        if (automaton.step(seen[at]!)) {
          if (!mayStop) automaton.passOver();
          else if (automaton.pattern.length > (matched?.length ?? 0)) matched = automaton.pattern;
        }
      if (matched !== null) {
        this.isStopped = true;
        this.held = '';
        return { text: seen.slice(0, at + 1 - matched.length), stopped: true, matched };
      }
    }
    const heldLength = Math.max(...this.automata.map((automaton) => automaton.matched));
    const shown = seen.length - heldLength;
    this.held = seen.slice(shown);
    return { text: seen.slice(0, shown), stopped: false, matched: null };
  }

  /** The answer is over: what was held back after all. */
  flush(): string {
    const text = this.held;
    this.held = '';
    this.isStopped = true;
    return text;
  }
}
