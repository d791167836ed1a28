import { describe, expect, it } from 'vitest';
import { PrefillShare, prefillTokens } from '../../src/engine/prefill-share.js';

describe('prefillTokens()', () => {
  it.each([
    { decodeMs: 10, tokenMs: 0.5, most: 512, tokens: 60, why: 'what takes three steps of decoding' },
    { decodeMs: 1, tokenMs: 1, most: 512, tokens: 16, why: 'not so few that they cost as much as more would' },
    { decodeMs: 100, tokenMs: 0.1, most: 512, tokens: 512, why: 'no more than a step holds' },
    { decodeMs: 1, tokenMs: 1, most: 4, tokens: 4, why: 'nor where that is less' },
    { decodeMs: null, tokenMs: 1, most: 512, tokens: 512, why: 'all while nothing is known' },
  ])('gives $tokens tokens at $decodeMs and $tokenMs ms: $why', ({ decodeMs, tokenMs, most, tokens }) => {
    expect(prefillTokens(decodeMs, tokenMs, most)).toBe(tokens);
  });
});

describe('PrefillShare', () => {
  it('learns from steps with and without prompts, and cuts only where somebody reads along', () => {
    const share = new PrefillShare();
    expect(share.tokens(3, 512)).toBe(512);
    for (let i = 0; i < 100; ++i) {
      share.stepped(3, 0, 10);
      share.stepped(3, 100, 10 + 100 * 0.25);
    }
    expect(share.tokens(3, 512)).toBe(3 + 120);
    expect(share.tokens(0, 512)).toBe(512);
  });
});
