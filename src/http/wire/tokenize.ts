/** The body of /tokenize: a text under llama.cpp's names, or messages by the chat template. */
import type { TextGenerator } from '../../generate.js';
import { check, invalid } from '../check.js';
import { MESSAGES_FIELD, PROMPT_END_FIELDS, promptEnd, readMessage } from './chat.js';

const TOKENIZE_SCHEMA = {
  type: 'object',
  properties: {
    model: { type: 'string' },
    content: { type: 'string' },
    /** vLLM's name for content. */
    prompt: { type: 'string' },
    messages: MESSAGES_FIELD,
    ...PROMPT_END_FIELDS,
    add_special: { type: 'boolean' },
    parse_special: { type: 'boolean' },
    with_pieces: { type: 'boolean' },
  },
} as const;

/** @throws {MoestroError} INVALID_REQUEST, and for messages what a chat request throws. */
export function readTokenizeRequest(
  json: unknown,
  generator: TextGenerator,
): { readonly withPieces: boolean; readonly ids: readonly number[] } {
  const body = check(TOKENIZE_SCHEMA, json);
  const withPieces = body.with_pieces === true;
  const end = promptEnd(body);
  if (body.messages !== undefined) {
    const template = 'the chat template decides which special tokens there are';
    if (body.add_special === true) throw invalid('add_special', 'true beside "messages"', `false: ${template}`);
    if (body.parse_special === false) throw invalid('parse_special', 'false beside "messages"', `true: ${template}`);
    return { withPieces, ids: generator.prompts.fromChat(body.messages.map(readMessage), { end }) };
  }
  const text = body.content ?? body.prompt;
  if (text === undefined) throw invalid('content', 'nothing', 'a string');
  // What llama.cpp does when nothing is said: no bos, and special tokens written in the text are tokens.
  const options = { special: body.parse_special ?? true, ...(body.add_special === true ? {} : { addBos: false }) };
  return { withPieces, ids: generator.prompts.tokenize(text, options) };
}

/** A token's text, or its bytes where they are no text by themselves. */
export function pieceBody(bytes: Uint8Array): string | readonly number[] {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // A piece of a character: there is no text to show.
    return [...bytes];
  }
}
