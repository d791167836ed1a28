/** Prompts for a load: words drawn from a seed, so that no two are alike and a run can be repeated. */

const WORDS =
  'river stone light paper market winter engine garden number island letter morning window bridge yellow simple travel music silver doctor' +
  ' forest kitchen answer train quiet north color story metal bread ocean village teacher summer record planet animal glass center road';

/** About so many tokens: a word is one or two of most vocabularies. */
export function promptOfWords(count: number, seed: number): string {
  const words = WORDS.split(' ');
  let state = (seed + 1) >>> 0;
  const drawn = Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return words[(state >>> 8) % words.length]!;
  });
  return drawn.join(' ');
}
