/**
 * Where do thoughts end and the answer begin, in a text that comes in pieces?
 *
 * ```
 * <think>\nThe user greets.\n</think>\n\nHello!   ->   thoughts "The user greets.", answer "Hello!"
 * ```
 *
 * Thoughts stand at the very beginning or nowhere, as all models that write them do; white space around the markers
 * belongs to neither. Some templates write the first marker themselves: then the text begins within the thoughts.
 */

export interface SplitText {
  readonly thoughts: string;
  readonly answer: string;
}

export class ReasoningSplit {
  readonly #open: string;
  readonly #close: string;
  #state: 'start' | 'thinking' | 'answer';
  /** Text that is not decided yet: the beginning of a marker, or white space that may stand before one. */
  #held = '';
  /** Nothing was shown since the last marker. */
  #isFresh = true;

  /** @param startsOpen whether the prompt ended with the first marker. */
  constructor(markers: { readonly open: string; readonly close: string }, startsOpen: boolean) {
    this.#open = markers.open;
    this.#close = markers.close;
    this.#state = startsOpen ? 'thinking' : 'start';
  }

  get isThinking(): boolean {
    return this.#state === 'thinking';
  }

  push(text: string): SplitText {
    this.#held += text;
    if (this.#state === 'start') this.#begin();
    let thoughts = '';
    if (this.#state === 'thinking') {
      const end = this.#held.indexOf(this.#close);
      if (end < 0) return { thoughts: this.#shown(this.#takeDecided()), answer: '' };
      thoughts = this.#shown(this.#held.slice(0, end).trimEnd());
      this.#held = this.#held.slice(end + this.#close.length);
      this.#state = 'answer';
      this.#isFresh = true;
    }
    if (this.#state === 'start') return { thoughts, answer: '' };
    const answer = this.#held;
    this.#held = '';
    return { thoughts, answer: this.#shown(answer) };
  }

  /** The text is over: what was held after all. */
  flush(): SplitText {
    const rest = this.#held;
    this.#held = '';
    return this.#state === 'thinking'
      ? { thoughts: this.#shown(rest.trimEnd()), answer: '' }
      : { thoughts: '', answer: rest };
  }

  #begin(): void {
    const text = this.#held.trimStart();
    if (text.startsWith(this.#open)) {
      this.#state = 'thinking';
      this.#held = text.slice(this.#open.length);
    } else if (!this.#open.startsWith(text)) {
      this.#state = 'answer';
      // An answer without thoughts is left as it is, white space and all.
      this.#isFresh = false;
    }
  }

  /** Thoughts so far, but for white space at their end and for what may be the beginning of the marker. */
  #takeDecided(): string {
    let length = Math.min(this.#held.length, this.#close.length - 1);
    while (length > 0 && !this.#close.startsWith(this.#held.slice(-length))) --length;
    const decided = this.#held.slice(0, this.#held.length - length).trimEnd();
    this.#held = this.#held.slice(decided.length);
    return decided;
  }

  /** White space right after a marker is not shown. */
  #shown(text: string): string {
    const shown = this.#isFresh ? text.trimStart() : text;
    if (shown !== '') this.#isFresh = false;
    return shown;
  }
}
