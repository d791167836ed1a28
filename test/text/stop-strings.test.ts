import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopStrings } from '../../src/text/stop-strings.js';

/** The definition, on the whole text at once; a stop string that is whole within the first `free` characters does not count. */
function cutAtStop(text: string, stops: readonly string[], free = 0): { text: string; matched: string | null } {
  for (let end = free + 1; end <= text.length; ++end) {
    const here = stops.filter((stop) => stop !== '' && text.slice(0, end).endsWith(stop));
    if (here.length === 0) continue;
    const matched = here.reduce((longest, stop) => (stop.length > longest.length ? stop : longest));
    return { text: text.slice(0, end - matched.length), matched };
  }
  return { text, matched: null };
}

/** Few letters, so that stop strings overlap themselves and each other. */
const letters = (maxLength: number) => fc.string({ unit: fc.constantFrom('a', 'b', '\n', '😀'), maxLength });

describe('StopStrings', () => {
  test('push() ends the text where a search of the whole text does, however it is cut', () => {
    fc.assert(
      fc.property(fc.array(letters(6), { maxLength: 20 }), fc.array(letters(5), { maxLength: 4 }), (pieces, stops) => {
        const matcher = new StopStrings(stops);
        let shown = '';
        let matched: string | null = null;
        for (const piece of pieces) {
          const result = matcher.push(piece);
          shown += result.text;
          matched = result.matched;
          if (result.stopped) break;
        }
        shown += matcher.flush();
        expect({ text: shown, matched }).toEqual(cutAtStop(pieces.join(''), stops));
      }),
      { numRuns: 2000 },
    );
  });

  test('push() passes over what is whole before it may stop, and counts what is whole only then', () => {
    const pieces = fc.array(letters(6), { maxLength: 20 });
    fc.assert(
      fc.property(pieces, fc.array(letters(5), { maxLength: 4 }), fc.nat({ max: 20 }), (all, stops, free) => {
        const matcher = new StopStrings(stops);
        let shown = '';
        let matched: string | null = null;
        for (const [i, piece] of all.entries()) {
          const result = matcher.push(piece, i >= free);
          shown += result.text;
          matched = result.matched;
          if (result.stopped) break;
        }
        shown += matcher.flush();
        const length = all.slice(0, free).join('').length;
        expect({ text: shown, matched }).toEqual(cutAtStop(all.join(''), stops, length));
      }),
      { numRuns: 2000 },
    );
  });

  test('push() holds back no more than what may become a stop string', () => {
    const matcher = new StopStrings(['\nUser:', 'END']);
    expect(matcher.push('Paris.\n')).toEqual({ text: 'Paris.', stopped: false, matched: null });
    expect(matcher.push('Us')).toEqual({ text: '', stopped: false, matched: null });
    expect(matcher.push('a EN')).toEqual({ text: '\nUsa ', stopped: false, matched: null });
    expect(matcher.flush()).toBe('EN');
  });

  test('push() never shows a stop string when it straddles pieces', () => {
    const matcher = new StopStrings(['<end>']);
    expect(matcher.push('yes<e').text).toBe('yes');
    expect(matcher.push('nd>more')).toEqual({ text: '', stopped: true, matched: '<end>' });
    expect(matcher.push('again')).toEqual({ text: '', stopped: true, matched: null });
    expect(matcher.flush()).toBe('');
  });

  test('push() passes text through when there are no stop strings, or empty ones only', () => {
    expect(new StopStrings(['']).push('abc')).toEqual({ text: 'abc', stopped: false, matched: null });
  });
});
