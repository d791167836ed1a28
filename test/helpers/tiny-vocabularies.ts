/** Two small vocabularies: byte-level BPE as Qwen and OLMo have it, SentencePiece-style BPE as Mixtral has it. */

export interface TinyVocabulary {
  readonly model: 'gpt2' | 'llama';
  /** tokenizer.ggml.pre; null for "llama". */
  readonly pre: string | null;
  readonly tokens: readonly string[];
  /** GGUF token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte. */
  readonly types: readonly number[];
  readonly merges: readonly (readonly [string, string])[];
  /** Log-probabilities of SentencePiece; empty for byte-level BPE. */
  readonly scores: readonly number[];
  readonly bosId: number | null;
  readonly eosId: number;
  readonly addBos: boolean;
  readonly chatTemplate: string;
}

export const CHATML_TEMPLATE =
  "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}" +
  "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

/** The printable stand-in of each byte in byte-level BPE: itself where printable, else the next from U+0100. */
export function byteCharacters(): readonly string[] {
  const isPlain = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPlain(byte) ? byte : next++));
}

const MERGES =
  'Ġ t|h e|i n|e r|a n|Ġ a|o n|r e|Ġt he|Ġ s|a t|o r|Ġ w|e s|i s|Ġ c|in g|Ġ o|e n|an d|Ġ and|o u|Ġ f|0 0|l l|e d';

export function byteLevelVocabulary(pre: string): TinyVocabulary {
  const merges = MERGES.split('|').map((pair) => pair.split(' ') as [string, string]);
  const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
  const plain = [...byteCharacters(), ...merges.map(([left, right]) => left + right)];
  const tokens = [...plain, ...special];
  return {
    model: 'gpt2',
    pre,
    tokens,
    types: [...plain.map(() => 1), ...special.map(() => 3)],
    merges,
    scores: [],
    bosId: null,
    eosId: tokens.length - 1,
    addBos: false,
    chatTemplate: CHATML_TEMPLATE,
  };
}

const PIECES =
  '▁t he in er an ▁a on re ▁the ▁s at or ▁w es is ▁c ing ▁o en and ▁and ou ▁f ll ed ▁an ▁in ng nd ▁th'.split(' ');

export function sentencePieceVocabulary(): TinyVocabulary {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const letters = [...'▁etaoinshrdlcumwfgypbvkjxqzETAOINSHRDLCUMWFGYPBVKJXQZ0123456789.,!?\'"-:;()éüñßж'];
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...PIECES, ...letters];
  const firstPiece = 3 + bytes.length;
  return {
    model: 'llama',
    pre: null,
    tokens,
    types: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < firstPiece ? 6 : 1)),
    merges: [],
    scores: tokens.map((_, id) => (id < firstPiece ? 0 : firstPiece - id)),
    bosId: 1,
    eosId: 2,
    addBos: true,
    chatTemplate:
      "{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message.content + ' [/INST]' }}{% endfor %}",
  };
}
