/** Tells calls from text in an answer as it comes, and passes the arguments on piece by piece. */
import type { CallMarks } from './tool-rules.js';

export type ToolEvent =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'call'; readonly name: string }
  /** A piece of the JSON of the newest call's arguments. */
  | { readonly kind: 'arguments'; readonly text: string };

/** Pushed all pieces of an answer in order, and flushed at its end. */
export class ToolReader {
  readonly #marks: CallMarks;
  #state: 'text' | 'head' | 'arguments' | 'tail' = 'text';
  /** What is not told yet: it may be the beginning of a mark, or is the head of a call. */
  #held = '';
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  /** Calls so far. */
  calls = 0;
  /** Whether the newest call is whole. */
  isWhole = true;

  constructor(marks: CallMarks) {
    this.#marks = marks;
  }

  push(piece: string): ToolEvent[] {
    this.#held += piece;
    const events: ToolEvent[] = [];
    while (this.#advance(events));
    return events;
  }

  /** What is left: text that only began like a mark. */
  flush(): ToolEvent[] {
    const text = this.#state === 'text' && this.calls === 0 ? this.#held : '';
    this.#held = '';
    return text === '' ? [] : [{ kind: 'text', text }];
  }

  /** One step; false when more of the answer is needed. */
  #advance(events: ToolEvent[]): boolean {
    switch (this.#state) {
      case 'text':
        return this.#text(events);
      case 'head':
        return this.#head(events);
      case 'arguments':
        return this.#arguments(events);
      case 'tail': {
        if (this.#held.length < this.#marks.end.length) return false;
        this.#held = this.#held.slice(this.#marks.end.length);
        this.#state = 'text';
        this.isWhole = true;
        return true;
      }
      default:
        return this.#state satisfies never;
    }
  }

  #text(events: ToolEvent[]): boolean {
    const { begin } = this.#marks;
    const at = this.#held.indexOf(begin);
    if (at >= 0) {
      // Blanks before a call are part of its form.
      const text = this.#held.slice(0, at).trimEnd();
      if (text !== '' && this.calls === 0) events.push({ kind: 'text', text });
      this.#held = this.#held.slice(at + begin.length);
      this.#state = 'head';
      return true;
    }
    // Between calls stands nothing but the mark between them.
    if (this.calls > 0) return false;
    let kept = Math.min(begin.length - 1, this.#held.length);
    while (kept > 0 && !begin.startsWith(this.#held.slice(this.#held.length - kept))) kept--;
    const text = this.#held.slice(0, this.#held.length - kept).trimEnd();
    if (text === '') return false;
    events.push({ kind: 'text', text });
    this.#held = this.#held.slice(text.length);
    return false;
  }

  #head(events: ToolEvent[]): boolean {
    const { beforeName, afterName } = this.#marks;
    const end = this.#held.indexOf(afterName, beforeName.length);
    if (end < 0) return false;
    const name = JSON.parse(`"${this.#held.slice(beforeName.length, end)}"`) as string;
    this.#held = this.#held.slice(end + afterName.length);
    this.#state = 'arguments';
    this.#depth = 0;
    this.calls++;
    this.isWhole = false;
    events.push({ kind: 'call', name });
    return true;
  }

  #arguments(events: ToolEvent[]): boolean {
    for (let i = 0; i < this.#held.length; ++i) {
      const char = this.#held[i]!;
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#isInString) {
        if (char === '\\') this.#isEscaped = true;
        else if (char === '"') this.#isInString = false;
      } else if (char === '"') this.#isInString = true;
      else if (char === '{' || char === '[') this.#depth++;
      else if ((char === '}' || char === ']') && --this.#depth === 0) {
        events.push({ kind: 'arguments', text: this.#held.slice(0, i + 1) });
        this.#held = this.#held.slice(i + 1);
        this.#state = 'tail';
        return true;
      }
    }
    if (this.#held !== '') events.push({ kind: 'arguments', text: this.#held });
    this.#held = '';
    return false;
  }
}
