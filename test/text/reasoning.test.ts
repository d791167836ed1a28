import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReasoningSplit } from '../../src/text/reasoning.js';

const MARKERS = { open: '<think>', close: '</think>' };

function split(pieces: readonly string[], startsOpen = false) {
  const splitter = new ReasoningSplit(MARKERS, startsOpen);
  const parts = [...pieces.map((piece) => splitter.push(piece)), splitter.flush()];
  return [parts.map(({ thoughts }) => thoughts).join(''), parts.map(({ answer }) => answer).join('')];
}

describe('ReasoningSplit', () => {
  it.each([
    ['thoughts, then an answer', '<think>\nHm.\n</think>\n\nYes.', false, ['Hm.', 'Yes.']],
    ['no thoughts', '  Yes <think> no', false, ['', '  Yes <think> no']],
    ['the beginning of a marker only', '<thi', false, ['', '<thi']],
    ['empty thoughts', '<think>\n\n</think>\n\nYes.', false, ['', 'Yes.']],
    ['thoughts that were opened by the prompt', 'Hm.</think>Yes.\n', true, ['Hm.', 'Yes.\n']],
    ['thoughts without an end', '<think>Hm, </thin', false, ['Hm, </thin', '']],
    ['nothing', '', true, ['', '']],
  ])('finds %s, however the text is cut', (_name, text, startsOpen, wanted) => {
    expect(split([text], startsOpen)).toEqual(wanted);
    expect(split([...text], startsOpen)).toEqual(wanted);
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 5 }), (cuts) => {
        const places = [0, ...cuts.sort((a, b) => a - b), text.length];
        const pieces = places.slice(1).map((end, i) => text.slice(places[i], end));
        expect(split(pieces, startsOpen)).toEqual(wanted);
      }),
    );
  });

  it('shows thoughts before they are over', () => {
    const splitter = new ReasoningSplit(MARKERS, false);
    expect(splitter.push('<think>one two')).toEqual({ thoughts: 'one two', answer: '' });
    expect(splitter.isThinking).toBe(true);
    expect(splitter.push(' three</think> four')).toEqual({ thoughts: ' three', answer: 'four' });
    expect(splitter.isThinking).toBe(false);
  });
});
