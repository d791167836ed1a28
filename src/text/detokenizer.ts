/**
 * How do token ids become text while they arrive? A token may hold half a character, so bytes wait until they are
 * whole; the WHATWG streaming decoder does exactly that, and says U+FFFD to bytes that never become whole.
 */
import type { Detokenizer } from './types.js';
import type { Vocabulary } from './vocabulary.js';

export class StreamingDetokenizer implements Detokenizer {
  private readonly vocabulary: Vocabulary;
  private readonly skipsSpecial: boolean;
  /** ignoreBOM: U+FEFF at the start of an answer is text like any other. */
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  private readonly continues: boolean;
  private isFirst!: boolean;
  /** Leading characters that the vocabulary put there and no reader should see, still to be taken off. */
  private stripLeft!: number;

  /** @param continues whether the ids go on with a text that is there already: then nothing is taken off the front. */
  constructor(vocabulary: Vocabulary, skipsSpecial = true, continues = false) {
    this.vocabulary = vocabulary;
    this.skipsSpecial = skipsSpecial;
    this.continues = continues;
    this.begin();
  }

  push(id: number): string {
    if (this.skipsSpecial && this.vocabulary.isSpecial(id)) return '';
    const bytes = this.isFirst ? this.vocabulary.firstContent(id) : this.vocabulary.content(id);
    this.isFirst = false;
    return this.strip(this.decoder.decode(bytes, { stream: true }));
  }

  flush(): string {
    const text = this.strip(this.decoder.decode());
    this.begin();
    return text;
  }

  private begin(): void {
    this.isFirst = !this.continues;
    this.stripLeft = this.continues ? 0 : (this.vocabulary.stripStart?.count ?? 0);
  }

  private strip(text: string): string {
    const content = this.vocabulary.stripStart?.content ?? '';
    let rest = text;
    while (this.stripLeft > 0 && rest !== '') {
      if (content === '' || !rest.startsWith(content)) this.stripLeft = 0;
      else {
        rest = rest.slice(content.length);
        --this.stripLeft;
      }
    }
    return rest;
  }
}

/** All ids at once; the same text that a stream of them gives. */
export function decodeIds(vocabulary: Vocabulary, ids: readonly number[], skipsSpecial: boolean): string {
  const detokenizer = new StreamingDetokenizer(vocabulary, skipsSpecial);
  const parts: string[] = [];
  for (const id of ids) parts.push(detokenizer.push(id));
  parts.push(detokenizer.flush());
  return parts.join('');
}
