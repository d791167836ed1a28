import { describe, expect, it } from 'vitest';
import type { Message } from '../../src/answer/types.js';
import { MoestroError } from '../../src/errors.js';
import { newestTurns } from '../../src/http/wire/truncation.js';

const CONTEXT = 40;
const message = (role: string, content: string): Message => ({ role, content });

/** A token a character and one a message; what was tokenised. */
function prompts() {
  const asked: number[] = [];
  const promptOf = (messages: readonly Message[]): readonly number[] => {
    const ids = messages.flatMap(({ content }) => [0, ...Buffer.from(content!)]);
    asked.push(ids.length);
    if (ids.length >= CONTEXT) throw new MoestroError('CONTEXT_LENGTH_EXCEEDED', 'Cannot take it', { param: 'input' });
    return ids;
  };
  return { asked, promptOf };
}
const kept = (messages: readonly Message[], answerTokens: number | null = null): string => {
  const ids = newestTurns(messages, prompts().promptOf, { contextLength: CONTEXT, answerTokens });
  return Buffer.from(ids.map((id) => id || 0x2f)).toString();
};

const turn = (n: number) => [message('user', `q${n}`), message('assistant', 'call'), message('tool', `r${n}`)];
const turns = (count: number) => Array.from({ length: count }, (_, n) => turn(n % 10)).flat();

describe('newestTurns()', () => {
  it('keeps what fits, to the last token', () => {
    const fits = [message('system', 's'), ...turns(3)];
    expect(kept(fits)).toBe('/s/q0/call/r0/q1/call/r1/q2/call/r2');
    expect(kept([message('user', 'x'.repeat(CONTEXT - 2))])).toBe(`/${'x'.repeat(CONTEXT - 2)}`);
  });

  it('leaves the oldest turns out with their calls and results, and makes room for the answer', () => {
    // 2 of the system message and 11 a turn: 10 of 40 are left to the answer, or what it may take if that is less.
    const long = [message('system', 's'), ...turns(9)];
    expect(kept(long)).toBe('/s/q7/call/r7/q8/call/r8');
    expect(kept(long, 5)).toBe('/s/q6/call/r6/q7/call/r7/q8/call/r8');
    expect(kept(long, 1000)).toBe('/s/q7/call/r7/q8/call/r8');
  });

  it('keeps as many turns as a search from the oldest on, for any number of them', () => {
    for (let count = 1; count < 40; ++count) {
      const many = turns(count);
      let first = 0;
      const { promptOf } = prompts();
      const lengthFrom = (at: number) => many.slice(at).reduce((sum, { content }) => sum + content!.length + 1, 0);
      if (lengthFrom(0) >= CONTEXT) while (lengthFrom(first) > CONTEXT - 10) first += 3;
      const ids = newestTurns(many, promptOf, { contextLength: CONTEXT, answerTokens: null });
      expect(ids).toEqual(promptOf(many.slice(first)));
    }
  });

  it('tokenises little more than what fits, however long the conversation is', () => {
    const { asked, promptOf } = prompts();
    newestTurns(turns(10_000), promptOf, { contextLength: CONTEXT, answerTokens: null });
    expect(asked.slice(1).every((length) => length < 2 * CONTEXT)).toBe(true);
    expect(asked.length).toBeLessThan(8);
  });

  it('keeps a newest turn that leaves the answer little room, and throws when it does not fit', () => {
    expect(kept([...turns(2), message('user', 'x'.repeat(35))])).toBe(`/${'x'.repeat(35)}`);
    const tooLong = [...turns(2), message('user', 'x'.repeat(40))];
    expect(() => kept(tooLong)).toThrow('Cannot take it');
    expect(() => kept([message('system', 's'), message('user', 'x'.repeat(40))])).toThrow('Cannot take it');
    expect(() => kept([message('system', 'x'.repeat(50))])).toThrow('Cannot take it');
  });

  it('passes other failures on', () => {
    const fails = (): never => {
      throw new MoestroError('TEMPLATE_FAILED', 'no');
    };
    const room = { contextLength: CONTEXT, answerTokens: null };
    expect(() => newestTurns(turns(1), fails, room)).toThrow('no');
  });
});
