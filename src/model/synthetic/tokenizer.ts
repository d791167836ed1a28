/** The smallest byte-level tokenizer: a token a byte and the two marks of ChatML. A random model has nothing to say. */

export interface SyntheticTokenizer {
  readonly tokenizerJson: string;
  readonly configJson: string;
  readonly endId: number;
}

export function syntheticTokenizer(vocabSize: number): SyntheticTokenizer {
  const vocab = Object.fromEntries(byteLetters().map((letter, byte) => [letter, byte]));
  // Special tokens stand at the end of the vocabulary, as they do in real models.
  const marks = ['<|im_start|>', '<|im_end|>'];
  const added = marks.map((content, index) => ({
    id: vocabSize - marks.length + index,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: true };
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: [],
    },
  };
  const config = {
    tokenizer_class: 'Qwen2Tokenizer',
    add_bos_token: false,
    bos_token: null,
    eos_token: '<|im_end|>',
    unk_token: null,
    model_max_length: 2048,
    added_tokens_decoder: Object.fromEntries(added.map(({ id, ...rest }) => [String(id), rest])),
    chat_template:
      "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}" +
      "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
  };
  return { tokenizerJson: JSON.stringify(tokenizer), configJson: JSON.stringify(config), endId: vocabSize - 1 };
}

/** The letter that stands for each byte: itself where it is printable, else one from U+0100 on, in order. */
function byteLetters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
    return String.fromCodePoint(isPrintable ? byte : next++);
  });
}
