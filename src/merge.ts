/**
 * Several async iterables as one, each value with the number of its source, in the order in which they come.
 *
 * @param leave is called before the sources are ended early (the reader left, or one failed): it has to make values
 *     that are awaited come or fail, since an async generator ends only after the value it works on.
 */
export async function* mergeAsync<T>(
  sources: readonly AsyncIterable<T>[],
  leave: () => void,
): AsyncGenerator<{ readonly index: number; readonly value: T }, void, void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const step = async (index: number) => ({ index, result: await iterators[index]!.next() });
  const waiting = new Map(iterators.map((_, index) => [index, step(index)]));
  try {
    while (waiting.size > 0) {
      const { index, result } = await Promise.race(waiting.values());
      if (result.done) {
        waiting.delete(index);
      } else {
        waiting.set(index, step(index));
        yield { index, value: result.value };
      }
    }
  } finally {
    leave();
    // Left early or one failed: the others end too. What they still throw has nobody left to tell.
    const ends = [...waiting.entries()].map(async ([index, pending]) => {
      void pending.catch(() => undefined);
      await iterators[index]!.return?.();
    });
    await Promise.allSettled(ends);
  }
}
