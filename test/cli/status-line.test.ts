import { describe, expect, it } from 'vitest';
import { statusLine } from '../../src/cli/status-line.js';

function recorded(isTTY: boolean) {
  const written: string[] = [];
  let clock = 0;
  const line = statusLine({ isTTY, write: (text: string) => written.push(text) }, () => clock);
  return {
    written,
    at(ms: number, text: string) {
      clock = ms;
      line.show(text);
    },
    clear: line.clear,
  };
}

describe('statusLine()', () => {
  it('statusLine() writes over itself in a terminal and takes itself away', () => {
    const { written, at, clear } = recorded(true);
    at(0, 'a');
    at(1, 'b');
    clear();
    expect(written).toEqual(['\r\x1b[Ka', '\r\x1b[Kb', '\r\x1b[K']);
  });

  it('statusLine() writes a plain line every ten seconds elsewhere', () => {
    const { written, at, clear } = recorded(false);
    at(9_999, 'a');
    at(10_000, 'b');
    at(12_000, 'c');
    at(20_000, 'd');
    clear();
    expect(written).toEqual(['b\n', 'd\n']);
  });
});
