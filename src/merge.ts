/** Several async iterables as one, each value with the number of its source, in the order in which they come. */
export async function* mergeAsync<T>(
  sources: readonly AsyncIterable<T>[],
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
    // Left early or one failed: the others end too. What they still throw has nobody left to tell.
    const ends = [...waiting.entries()].map(async ([index, pending]) => {
      void pending.catch(() => undefined);
      await iterators[index]!.return?.();
    });
    await Promise.allSettled(ends);
  }
}
