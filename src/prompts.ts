/** Text, messages and ids to the prompts of one model, and back; what can never fit its context is refused here. */
import type { Message, PromptEnd, Tool } from './answer/types.js';
import { withToolPrompt } from './constrain/tool-prompt.js';
import { HERMES } from './constrain/tool-rules.js';
import type { EngineInfo } from './engine/types.js';
import { MoestroError } from './errors.js';
import type { TextModel } from './text/types.js';

/** What a request calls its prompt, for errors. */
type PromptField = 'messages' | 'prompt' | 'input';

interface ChatPromptOptions {
  /** Extra variables for the chat template. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** What the template is to tell the model of. */
  readonly tools?: readonly Tool[];
  readonly param?: PromptField;
  readonly end?: PromptEnd;
}

/** A tenth of a second of tokenising. */
const TOKENIZE_CHARACTERS_MAX = 1 << 20;

/** Characters of a text that normalisation may turn into one: NFC joins three jamo, or a letter and its marks. */
const NORMALISED_MAX = 4;

/**
 * What `from...` and `between` return holds a token at least and leaves room for one of answer. The text model belongs
 * to whoever made it.
 */
export class Prompts {
  readonly #text: TextModel;
  readonly #info: EngineInfo;
  /** No prompt of more characters (UTF-16 units) can fit the context. */
  readonly #charactersMax: number;

  constructor(text: TextModel, info: EngineInfo) {
    this.#text = text;
    this.#info = info;
    let longest = 1;
    for (let id = 0; id < text.vocabSize; ++id) longest = Math.max(longest, text.tokenBytes(id).length);
    this.#charactersMax = info.contextLength * longest * NORMALISED_MAX;
  }

  /**
   * Messages to prompt ids by the model's chat template.
   *
   * @throws {MoestroError} TEMPLATE_FAILED, CONTEXT_LENGTH_EXCEEDED.
   */
  fromChat(
    messages: readonly Message[],
    { kwargs = {}, tools = [], param = 'messages', end = 'newTurn' }: ChatPromptOptions = {},
  ): readonly number[] {
    const described = tools.map(({ name, description, parameters }) => ({
      type: 'function',
      function: { name, ...(description === undefined ? {} : { description }), parameters },
    }));
    const characters = messages.reduce((sum, { content }) => sum + (content?.length ?? 0) + 1, 0);
    this.#checkCharacters(characters + (tools.length > 0 ? JSON.stringify(described).length : 0), param);
    if (this.#text.knowsTools ?? true) {
      return this.#checked(this.#text.encodeChat(messages, { kwargs, tools: described, end }), param);
    }
    const told = withToolPrompt(messages, described, HERMES);
    return this.#checked(this.#text.encodeChat(told, { kwargs, end }), param);
  }

  /** Plain text to prompt ids; special tokens written in it count as such. Throws CONTEXT_LENGTH_EXCEEDED. */
  fromText(text: string, param: PromptField = 'prompt'): readonly number[] {
    this.#checkCharacters(text.length, param);
    return this.#checked(this.#text.encode(text, { special: true }), param);
  }

  /** Ids as they are. Throws INVALID_REQUEST when one is outside of the vocabulary, CONTEXT_LENGTH_EXCEEDED. */
  fromIds(ids: readonly number[], param: PromptField = 'prompt'): readonly number[] {
    return this.#checked(this.checkIds(ids, param), param);
  }

  /**
   * A text and what follows it to the prompt for what stands between them, by the model's own markers.
   *
   * @throws {MoestroError} UNSUPPORTED_PARAMETER when the model has none, CONTEXT_LENGTH_EXCEEDED.
   */
  between(before: string, after: string): readonly number[] {
    if (this.#text.fill === null) {
      const found = `Cannot put a text before a suffix: "${this.#info.modelName}" has no markers for it`;
      throw new MoestroError('UNSUPPORTED_PARAMETER', `${found}, needed a model trained to fill in the middle`, {
        param: 'suffix',
      });
    }
    this.#checkCharacters(before.length + after.length, 'prompt');
    const [prefix, suffix, middle] = this.#text.fill;
    const encode = (text: string) => this.#text.encode(text, { special: false, addBos: false });
    const bos = this.#text.encode('');
    return this.#checked([...bos, prefix, ...encode(before), suffix, ...encode(after), middle], 'prompt');
  }

  /** Ids back to text: for `echo`, and with special tokens as they are written. */
  textOf(ids: readonly number[], withSpecial = false): string {
    return this.#text.decode(ids, { skipSpecial: !withSpecial });
  }

  /**
   * A text to ids as it stands: no prompt, so it may be longer than the context.
   *
   * @throws {MoestroError} INVALID_REQUEST when it is so long that tokenising it would hold up everybody else.
   */
  tokenize(text: string, options: { readonly special: boolean; readonly addBos?: boolean }): readonly number[] {
    const most = Math.max(TOKENIZE_CHARACTERS_MAX, this.#charactersMax);
    if (text.length > most) {
      const found = `Cannot tokenise ${text.length} characters at once: needed at most ${most}`;
      throw new MoestroError('INVALID_REQUEST', found, { param: 'content' });
    }
    return this.#text.encode(text, options);
  }

  /** Bytes of one token as it is written, special ones too. */
  tokenBytes(id: number): Uint8Array {
    const bytes = this.#text.tokenBytes(id);
    return bytes.length > 0 ? bytes : new TextEncoder().encode(this.#text.tokenText(id));
  }

  /** Ids that are all of the vocabulary. Throws INVALID_REQUEST. */
  checkIds(ids: readonly number[], param: string): readonly number[] {
    const outside = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.#info.vocabSize));
    if (outside === undefined) return ids;
    const found = `Cannot use the token id ${outside} of "${param}"`;
    throw new MoestroError('INVALID_REQUEST', `${found}: needed whole numbers from 0 to ${this.#info.vocabSize - 1}`, {
      param,
    });
  }

  /** Refuses at once what cannot fit however it is cut: tokenising megabytes would hold up everybody else. */
  #checkCharacters(characters: number, param: string): void {
    if (characters <= this.#charactersMax) return;
    throw new MoestroError(
      'CONTEXT_LENGTH_EXCEEDED',
      `Cannot take a prompt of ${characters} characters: the context of ${this.#info.contextLength} tokens never holds more than ${this.#charactersMax}`,
      { found: characters, needed: this.#charactersMax, param },
    );
  }

  #checked(ids: readonly number[], param: PromptField): readonly number[] {
    if (ids.length === 0) {
      throw new MoestroError('INVALID_REQUEST', 'Cannot answer an empty prompt: needed at least one token', { param });
    }
    const most = this.#info.contextLength - 1;
    if (ids.length > most) {
      throw new MoestroError(
        'CONTEXT_LENGTH_EXCEEDED',
        `Cannot take a prompt of ${ids.length} tokens: needed at most ${most}, the context of ${this.#info.contextLength} less one token of answer`,
        { found: ids.length, needed: most, param },
      );
    }
    return ids;
  }
}
