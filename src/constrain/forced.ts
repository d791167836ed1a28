/**
 * Texts that a format forces, as the model's own tokenizer splits them: the engine, which knows no text, then writes several
 * tokens in one step (jump-forward, as in SGLang, arXiv:2312.07104). The last token is left to the model, since what follows
 * may belong to it.
 */
import { Machine } from './machine.js';
import { forcedText } from './matcher.js';
import { type ForcedText, type FormatProgram, STATE } from './program.js';

export interface ForcedTokenizer {
  /** Ids of a text that goes on with another; special tokens written in it stay text. */
  encode(text: string): readonly number[];
  tokenBytes(id: number): Uint8Array;
}

/** States from which texts are looked for: enough for hundreds of names, and some milliseconds. */
const STATES_LOOKED_AT = 4_000;
/** Shorter texts are a token or two anyway. */
const LENGTH_MIN = 3;

export function addForcedTexts(program: FormatProgram, tokenizer: ForcedTokenizer): FormatProgram {
  const machine = new Machine(program);
  const found = new Map<string, readonly number[]>();
  const { kinds, loopOf } = program;
  const looked = Math.min(kinds.length, STATES_LOOKED_AT);
  for (let state = 0; state < looked; ++state) {
    if (kinds[state] !== STATE.byte || loopOf[state]! >= 0) continue;
    const bytes = forcedText(machine, machine.inState(state));
    if (bytes.length < LENGTH_MIN || found.has(bytes)) continue;
    found.set(bytes, tokensOf(bytes, tokenizer));
  }
  const forced: ForcedText[] = [];
  for (const [bytes, tokenIds] of found) if (tokenIds.length > 0) forced.push({ bytes, tokenIds });
  return { ...program, forced };
}

/** All tokens but the last; none where the tokenizer writes other bytes than these. */
function tokensOf(bytes: string, { encode, tokenBytes }: ForcedTokenizer): readonly number[] {
  const raw = Buffer.from(bytes, 'latin1');
  const text = raw.toString('utf8');
  if (Buffer.from(text, 'utf8').compare(raw) !== 0) return [];
  const ids = encode(text);
  const written = Buffer.concat(ids.map((id) => tokenBytes(id)));
  return written.compare(raw) === 0 ? ids.slice(0, -1) : [];
}
