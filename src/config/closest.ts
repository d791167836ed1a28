/** What was meant by a name that is not known. */

/** Edits between two names: a character more, less or another, or two neighbours swapped. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const row = [i];
    for (let j = 1; j <= b.length; ++j) {
      const isSame = a[i - 1] === b[j - 1];
      let least = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2]! + 1);
      row.push(least);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}

/** "maxSequences", "max_sequences" and "--max-sequences" are one name written in three ways. */
const plain = (name: string): string => name.replace(/[^a-z\d]/gi, '').toLowerCase();

/** The known name that differs least, or null when none differs by less than a third of its length. */
export function closest(name: string, known: readonly string[]): string | null {
  const wanted = plain(name);
  const scored = known.map((candidate) => ({ candidate, edits: editDistance(wanted, plain(candidate)) }));
  scored.sort((a, b) => a.edits - b.edits);
  const best = scored[0];
  return best !== undefined && best.edits <= plain(best.candidate).length / 3 ? best.candidate : null;
}
