import { describe, expect, it } from 'vitest';
import { Prompts } from '../src/prompts.js';
import { byteText, saying, scriptedEngine } from './http/scripted.js';

const { info } = scriptedEngine(saying(''));

describe('Prompts', () => {
  it('leave room for one token of answer', () => {
    const prompts = new Prompts(byteText, info);
    expect(prompts.fromText('x'.repeat(511)).length).toBe(511);
    expect(() => prompts.fromText('x'.repeat(512))).toThrow(
      expect.objectContaining({
        code: 'CONTEXT_LENGTH_EXCEEDED',
        details: { found: 512, needed: 511, param: 'prompt' },
      }),
    );
    expect(() => prompts.fromChat([{ role: 'user', content: 'x'.repeat(512) }])).toThrow(
      expect.objectContaining({ details: expect.objectContaining({ param: 'messages' }) }),
    );
  });

  it('that cannot fit however they are cut are refused before they are tokenised', () => {
    const untokenised = {
      ...byteText,
      encode: () => expect.unreachable('the text was tokenised'),
      encodeChat: () => expect.unreachable('the messages were tokenised'),
    };
    const prompts = new Prompts(untokenised, info);
    const tooLong = expect.objectContaining({ code: 'CONTEXT_LENGTH_EXCEEDED' });
    expect(() => prompts.fromText('x'.repeat(100_000))).toThrow(tooLong);
    expect(() => prompts.fromChat([{ role: 'user', content: 'x'.repeat(100_000) }])).toThrow(tooLong);
    const many = Array.from({ length: 100_000 }, () => ({ role: 'user', content: null }));
    expect(() => prompts.fromChat(many)).toThrow(tooLong);
  });
});
