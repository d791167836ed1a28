/** Texts in a format, drawn from a vocabulary by random logits: a model that knows nothing. */
import type { Formats, Matcher } from '../../src/constrain/matcher.js';
import type { TokenMask } from '../../src/constrain/masks.js';
import type { FormatProgram } from '../../src/constrain/program.js';
import { Random } from '../../src/engine/random.js';
import { Sampler, SamplerScratch } from '../../src/engine/sampler.js';
import { GREEDY } from '../../src/engine/types.js';

export const idsOf = (mask: TokenMask, vocabSize: number): number[] => {
  if (mask.kind === 'few') return [...mask.ids];
  return Array.from({ length: vocabSize }, (_, id) => id).filter((id) => (mask.bits[id >>> 5]! >>> (id & 31)) & 1);
};

export interface Drawn {
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** False where the text was cut after `tokensMax`. */
  readonly isWhole: boolean;
}

/**
 * @param closing how much more likely than others tokens are that close something, so that texts come to an end.
 * @param visit called before each token with what may follow.
 */
export function drawText(
  formats: Formats,
  program: FormatProgram,
  seed: number,
  options: {
    readonly tokensMax?: number;
    readonly closing?: number;
    readonly visit?: (matcher: Matcher, mask: TokenMask) => void;
  } = {},
): Drawn {
  const { tokensMax = 400, closing = 4, visit } = options;
  const { vocabSize, tokenBytes } = formats.masks.trie;
  const random = new Random(seed);
  const end = vocabSize - 1;
  const stops = new Set([end]);
  const sampler = new Sampler({ ...GREEDY, temperature: 1 }, seed, new SamplerScratch(vocabSize));
  const matcher = formats.open(program);
  const tokenIds: number[] = [];
  const logits = new Float32Array(vocabSize);
  let isWhole = false;
  while (tokenIds.length < tokensMax) {
    if (matcher.mustEnd) {
      isWhole = true;
      break;
    }
    const mask = matcher.mask();
    visit?.(matcher, mask);
    for (let id = 0; id < vocabSize; ++id) {
      const first = tokenBytes.bytes[tokenBytes.offsets[id]!];
      const closes = first === 0x22 || first === 0x5d || first === 0x7d;
      logits[id] = random.next() * 4 + (id === end || closes ? closing : 0);
    }
    const { tokenId } = sampler.sample(logits, tokenIds, { mask, mayEnd: matcher.mayEnd }, stops);
    if (tokenId === end) {
      isWhole = true;
      break;
    }
    matcher.accept(tokenId);
    tokenIds.push(tokenId);
  }
  const parts = tokenIds.map((id) => tokenBytes.bytes.subarray(tokenBytes.offsets[id], tokenBytes.offsets[id + 1]));
  return { text: Buffer.concat(parts).toString('utf8'), tokenIds, isWhole };
}
