import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blockKey, PrefixIndex } from '../../../src/engine/prefix/prefix-index.js';

/** A tree of blocks of 4 tokens: 1 2 3 4 | 5 6 7 8 | 9, and beside the second block 5 6 0 0. */
function tree() {
  const index = new PrefixIndex(4);
  const root = index.root('root');
  const first = index.add(root, [1, 2, 3, 4]);
  const second = index.add(first, [5, 6, 7, 8]);
  const fork = index.add(first, [5, 6, 0, 0]);
  const tail = index.add(second, [9]);
  return { index, root, first, second, fork, tail };
}

describe('PrefixIndex', () => {
  it.each<[string, number[], number, string[], string | null, number]>([
    ['whole blocks and a tail', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 9, ['first', 'second'], 'tail', 1],
    ['no more than may be found', [1, 2, 3, 4, 5, 6, 7, 8], 7, ['first'], 'second', 3],
    ['the branch that goes on longest', [1, 2, 3, 4, 5, 6, 0, 7], 8, ['first'], 'fork', 3],
    ['a part of the first block', [1, 2, 9], 2, [], 'first', 2],
    ['nothing', [7, 1, 2, 3], 3, [], null, 0],
    ['nothing of one token', [1], 0, [], null, 0],
  ])('finds %s', (_, tokens, limit, whole, partial, count) => {
    const { index, ...nodes } = tree();
    const name = (node: unknown): string => Object.entries(nodes).find(([, one]) => one === node)![0];
    const found = index.match('root', tokens, limit);
    expect(found.whole.map(name)).toEqual(whole);
    expect(found.partial === null ? null : name(found.partial.node)).toBe(partial);
    expect(found.partial?.count ?? 0).toBe(count);
    expect(index.match('other', tokens, limit)).toEqual({ whole: [], partial: null });
  });

  it('forgets a node with all that goes on from it, deepest first', () => {
    const { index, first, second, fork, tail } = tree();
    expect(index.remove(first)).toEqual([tail, second, fork, first]);
    expect([first, second, fork, tail].every((node) => node.parent === null)).toBe(true);
    expect(index.match('root', [1, 2, 3, 4, 5], 4).whole).toEqual([]);
    expect(index.remove(first)).toEqual([]);
  });

  it('names what a longer block makes needless, and what holds some tokens already', () => {
    const { index, second, tail } = tree();
    expect(index.outgrown(second, [9, 8])).toEqual([tail]);
    expect(index.outgrown(second, [9])).toEqual([]);
    expect(index.beginning(second, [9])).toBe(tail);
    expect(index.beginning(second, [9, 8])).toBeUndefined();
    expect(index.child(second, [9])).toBe(tail);
  });

  it('prefers what a KV block holds to what has as much in common, and takes less where nothing else is asked for', () => {
    const { index, first, second, fork } = tree();
    fork.block = 3;
    expect(index.match('root', [1, 2, 3, 4, 5, 6, 9], 7).partial).toEqual({ node: fork, count: 2 });
    expect(index.match('root', [1, 2, 3, 4, 5, 6, 7, 9], 8).partial).toEqual({ node: second, count: 3 });
    expect(index.match('root', [1, 2, 3, 4, 5, 6, 7, 9], 8, true).whole).toEqual([]);
    first.block = 2;
    expect(index.match('root', [1, 2, 3, 4, 5, 6, 7, 9], 8, true)).toEqual({
      whole: [first],
      partial: { node: fork, count: 2 },
    });
  });

  it('finds among many that begin alike what a look at each of them finds', () => {
    const block = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(block, { maxLength: 120 }),
        fc.array(block, { minLength: 1, maxLength: 20 }),
        (known, asked) => {
          const index = new PrefixIndex(4);
          const root = index.root('root');
          for (const tokens of known) if (index.child(root, tokens) === undefined) index.add(root, tokens);
          for (const tokens of known.slice(0, 30)) {
            const node = index.child(root, tokens);
            if (node !== undefined) index.remove(node);
          }
          const left = new Set(known.map(String));
          for (const tokens of known.slice(0, 30)) left.delete(String(tokens));
          const all = [...root.children];
          expect(new Set(all.map(({ tokens }) => String(tokens)))).toEqual(left);
          expect(all.map(({ tokens }) => tokens)).toEqual(all.map(({ tokens }) => tokens).sort(byTokens));
          for (const tokens of asked) {
            const beginsWith = (one: readonly number[], other: readonly number[]): boolean =>
              commonTokens(one, other) === other.length;
            expect(index.child(root, tokens)).toBe(all.find((node) => String(node.tokens) === String(tokens)));
            expect(index.beginning(root, tokens)).toBe(all.find((node) => beginsWith(node.tokens, tokens)));
            expect(index.outgrown(root, tokens)).toEqual(
              all.filter((node) => node.tokens.length < tokens.length && beginsWith(tokens, node.tokens)),
            );
            const { whole, partial } = index.match('root', tokens, tokens.length);
            const most = Math.max(0, ...all.map((node) => commonTokens(node.tokens, tokens)));
            expect(whole.length > 0 ? 4 : (partial?.count ?? 0)).toBe(most);
          }
        },
      ),
    );
  });

  it('has a key for each path, the same for the same tokens', () => {
    const { root, first, second, fork } = tree();
    expect(new Set([root.key, first.key, second.key, fork.key]).size).toBe(4);
    expect(blockKey('root', [1, 2, 3, 4])).toBe(first.key);
    expect(blockKey('roo', [1, 2, 3, 4])).not.toBe(first.key);
    expect(first.key).toMatch(/^[0-9a-f]{32}$/);
  });
});

function commonTokens(one: readonly number[], other: readonly number[]): number {
  let count = 0;
  while (count < one.length && count < other.length && one[count] === other[count]) ++count;
  return count;
}

/** By the first token that differs; what ends comes before what goes on. */
function byTokens(one: readonly number[], other: readonly number[]): number {
  const count = commonTokens(one, other);
  const isPrefix = count === one.length || count === other.length;
  return isPrefix ? one.length - other.length : one[count]! - other[count]!;
}
