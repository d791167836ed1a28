/** Bytes of a request body to a JSON value, refusing what is not UTF-8 instead of answering something else. */
import { MoestroError } from '../errors.js';

/** How much of what JSON.parse says goes into an error: it quotes the body. */
const WHY_LENGTH = 120;

/** @throws {MoestroError} INVALID_REQUEST saying where the body stops being UTF-8 or JSON. */
export function parseJsonBody(bytes: Uint8Array): unknown {
  if (bytes.length === 0) throw unreadable('nothing', 'JSON');
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw unreadable('bytes that are not UTF-8', 'JSON in UTF-8', cause);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw unreadable(`no JSON (${(cause as Error).message.slice(0, WHY_LENGTH)})`, 'a JSON object', cause);
  }
}

function unreadable(found: string, needed: string, cause?: unknown): MoestroError {
  return new MoestroError(
    'INVALID_REQUEST',
    `Cannot read the request body: found ${found}, needed ${needed}`,
    {},
    cause,
  );
}
