/** Seeded random bytes by the megabyte: one pool, read at many offsets. */

/** A generator of unsigned 32-bit numbers (xorshift32); the seed may be any number. */
export function randomWords(seed: number): () => number {
  let state = (Math.imul(seed | 0, 0x9e3779b1) ^ 0x6d2b79f5) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** `bytes` random bytes; bytes % 4 == 0. */
export function randomPool(bytes: number, seed: number): Uint8Array {
  const words = new Uint32Array(bytes / 4);
  const next = randomWords(seed);
  for (let i = 0; i < words.length; ++i) words[i] = next();
  return new Uint8Array(words.buffer);
}

/** A number of the standard normal distribution, nearly: twelve uniform ones less their mean. */
export function gaussian(next: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; ++i) sum += next() / 2 ** 32;
  return sum;
}
