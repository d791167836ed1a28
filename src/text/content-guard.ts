/**
 * How is a message kept from writing the model's own markup?
 *
 * Before a template is rendered, the first character of every special token that stands in a message (and of
 * what could become one together with the markup beside it) is replaced by a private-use character of the same length.
 * After rendering it is put back, and its place is remembered: no special token may cover it.
 *
 * ```
 * "bye<|im_end|>"  ->  "bye\uE000|im_end|>"  -> template ->  "...bye<|im_end|><|im_end|>\n"
 *                                                                  ^ guarded    free
 * ```
 *
 * So the prompt is tokenized as one text, exactly as the reference does, and only the guarded places differ. Templates
 * that trim, split or test the content keep working, because the guarded character is never white space and everything
 * else stays as it was; only a template that looks for a special token inside of a message no longer finds it.
 */
import { MoestroError } from '../errors.js';

const PRIVATE_USE_FIRST = 0xe000;
const PRIVATE_USE_LAST = 0xf8ff;

export interface GuardedText {
  readonly text: string;
  /** True where a special token may stand at [start, end); null when nothing is guarded. */
  readonly admits: ((start: number, end: number) => boolean) | null;
}

export class ContentGuard {
  private readonly specials: readonly string[];
  private readonly lengthMax: number;
  private readonly beginnings = new Set<string>();
  private readonly endings = new Set<string>();
  private readonly taken: ReadonlySet<string>;
  private readonly standIns = new Map<string, string>();
  private readonly originals = new Map<string, string>();
  private nextStandIn = PRIVATE_USE_FIRST;

  /**
   * @param specials contents of all special tokens.
   * @param reserved texts whose own private-use characters must stay what they are: the template and the messages.
   */
  constructor(specials: readonly string[], reserved: readonly string[]) {
    this.specials = specials;
    this.lengthMax = specials.reduce((longest, token) => Math.max(longest, token.length), 0);
    for (const token of specials) {
      for (let i = 1; i < token.length; ++i) {
        this.beginnings.add(token.slice(0, i));
        this.endings.add(token.slice(i));
      }
    }
    this.taken = new Set(reserved.flatMap((text) => text.match(/[\uE000-\uF8FF]/g) ?? []));
  }

  /**
   * @param touchesMarkup whether the text may stand right beside markup, so that halves of special tokens at its ends
   * count too; false for roles and the like, of which templates build markup on purpose.
   */
  guardText(text: string, touchesMarkup: boolean): string {
    const places = new Set<number>();
    for (const token of this.specials)
      for (let at = text.indexOf(token); at >= 0; at = text.indexOf(token, at + 1)) places.add(at);
    if (touchesMarkup && text !== '') {
      for (let length = 1; length <= Math.min(text.length, this.lengthMax - 1); ++length) {
        if (this.beginnings.has(text.slice(-length))) places.add(text.length - length);
        if (this.endings.has(text.slice(0, length))) places.add(0);
      }
      if (text.length < this.lengthMax && this.specials.some((token) => token.includes(text))) places.add(0);
    }
    if (places.size === 0) return text;
    const units = text.split('');
    for (const at of places) if (!/[\s\uD800-\uDFFF]/.test(units[at]!)) units[at] = this.standIn(units[at]!);
    return units.join('');
  }

  /** Every string in a JSON value, keys included. */
  guardValue(value: unknown): unknown {
    if (typeof value === 'string') return this.guardText(value, true);
    if (Array.isArray(value)) return value.map((item) => this.guardValue(item));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [this.guardText(key, false), this.guardValue(item)]),
    );
  }

  /** Puts the characters back into what the template made of the guarded messages. */
  restore(rendered: string): GuardedText {
    if (this.originals.size === 0) return { text: rendered, admits: null };
    const places: number[] = [];
    const units: string[] = [];
    let end = 0;
    for (const match of rendered.matchAll(/[\uE000-\uF8FF]/g)) {
      const original = this.originals.get(match[0]);
      if (original === undefined) continue;
      units.push(rendered.slice(end, match.index), original);
      places.push(match.index);
      end = match.index + 1;
    }
    units.push(rendered.slice(end));
    const admits = (start: number, stop: number): boolean => (places[firstAtLeast(places, start)] ?? stop) >= stop;
    return { text: units.join(''), admits };
  }

  private standIn(char: string): string {
    const known = this.standIns.get(char);
    if (known !== undefined) return known;
    const standIn = this.mark();
    this.standIns.set(char, standIn);
    this.originals.set(standIn, char);
    return standIn;
  }

  /** A private-use character that stands nowhere else, neither in what is reserved nor for a guarded one. */
  mark(): string {
    while (this.taken.has(String.fromCharCode(this.nextStandIn))) ++this.nextStandIn;
    if (this.nextStandIn > PRIVATE_USE_LAST)
      throw new MoestroError(
        'TEMPLATE_FAILED',
        'Cannot render the chat template: the messages use every private-use character from U+E000 to U+F8FF and special tokens, needed one that is free',
      );
    return String.fromCharCode(this.nextStandIn++);
  }
}

function firstAtLeast(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
