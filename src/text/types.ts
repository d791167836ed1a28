/** What the rest of the product sees of text: ids in and out, prompts from messages. */

export interface TextModel {
  readonly vocabSize: number;
  /**
   * Text to ids. `special` (default true, as in the reference): whether special tokens written in the text (e.g.
   * <|im_end|>) become their ids; added tokens that are not special always do. `addBos`: default as the model says.
   */
  encode(text: string, options?: { readonly special?: boolean; readonly addBos?: boolean }): number[];
  /** Ids to text; special tokens are left out unless `skipSpecial` is false. */
  decode(ids: readonly number[], options?: { readonly skipSpecial?: boolean }): string;
  /** Bytes of one token as they appear in text; empty for special tokens. */
  tokenBytes(id: number): Uint8Array;
  /** The token as text for logprobs (lossy where it is a piece of a character). */
  tokenText(id: number): string;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
  readonly hasChatTemplate: boolean;
  /** Whether the chat template tells the model of tools; true when absent. */
  readonly knowsTools?: boolean;
  /** What a model that thinks before it answers writes around its thoughts; null where the template knows of none. */
  readonly thinking: { readonly open: string; readonly close: string } | null;
  /** Ids before a text, before what follows it, and before what is to be put between; null where there are none. */
  readonly fill: readonly [prefix: number, suffix: number, middle: number] | null;
  /** Messages to prompt text by the model's chat template. Throws TEMPLATE_FAILED with the template's own message. */
  renderChat(
    messages: readonly ChatMessage[],
    options?: {
      readonly addGenerationPrompt?: boolean;
      readonly tools?: readonly unknown[];
      readonly kwargs?: Readonly<Record<string, unknown>>;
    },
  ): string;
  /**
   * Messages to prompt ids. The prompt is tokenised as one text, but special tokens written inside a message stay text,
   * so that a message cannot end its turn or open another. `end`: "newTurn" when absent.
   */
  encodeChat(
    messages: readonly ChatMessage[],
    options?: {
      readonly tools?: readonly unknown[];
      readonly kwargs?: Readonly<Record<string, unknown>>;
      readonly end?: PromptEnd;
    },
  ): number[];
  /**
   * A streaming detokenizer of one answer. `continues` (default false): whether its text goes on with one that is there
   * already; vocabularies that begin every text with a space of their own keep the space of the first token then.
   */
  detokenizer(options?: { readonly continues?: boolean }): Detokenizer;
}

/**
 * Where a prompt of messages ends: with the opening of the assistant's turn, after the last message, or in that message,
 * which the answer then goes on with.
 */
export type PromptEnd = 'newTurn' | 'closed' | 'inMessage';

export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly name?: string;
  readonly tool_calls?: readonly unknown[];
  readonly tool_call_id?: string;
  /** What an assistant thought before it said this: templates of models that think ask for it. */
  readonly reasoning_content?: string;
}

/** Ids to text pieces that never end inside a character. */
export interface Detokenizer {
  /** Text that this id completes; may be empty. */
  push(id: number): string;
  /** What is left at the end; bytes that form no character become U+FFFD. */
  flush(): string;
}
