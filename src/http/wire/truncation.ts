/** `truncation: "auto"` of /v1/responses: the oldest turns are left out of a conversation that is too long. */
import type { Message } from '../../answer/types.js';
import { MoestroError } from '../../errors.js';

/** Of the context, what is left to the answer at most once something has to go: the next turn is not to push out another. */
const ROOM_SHARE = 4;

/**
 * The prompt of a conversation, or of its newest turns. A turn begins with a message of the user; system messages at the
 * beginning stay, and so does the newest turn.
 *
 * @param promptOf messages to prompt ids.
 * @param answerTokens the answer's at most; null where nothing was said.
 * @throws {MoestroError} CONTEXT_LENGTH_EXCEEDED when the newest turn alone does not fit, and what else `promptOf` throws.
 */
export function newestTurns(
  messages: readonly Message[],
  promptOf: (messages: readonly Message[]) => readonly number[],
  { contextLength, answerTokens }: { readonly contextLength: number; readonly answerTokens: number | null },
): readonly number[] {
  const whole = fitting(messages, promptOf, contextLength);
  if (whole !== null) return whole;
  const first = messages.findIndex(({ role }) => role !== 'system');
  const turns = [...messages.keys()].filter((at) => at > first && messages[at]!.role === 'user');
  const newest = (count: number) => [...messages.slice(0, first), ...messages.slice(turns.at(-count)!)];
  if (turns.length === 0) return promptOf(messages);
  const room = Math.floor(contextLength / ROOM_SHARE);
  const longest = contextLength - Math.min(answerTokens ?? room, room);
  let prompt: readonly number[] | null = null;
  // Turns that fit and that do not. Doubled at first, so that not much more is tokenised than fits.
  let [least, most] = [0, turns.length + 1];
  while (most - least > 1) {
    const count = most > turns.length ? Math.min(2 * least || 1, turns.length) : (least + most) >> 1;
    const ids = fitting(newest(count), promptOf, longest);
    if (ids === null) most = count;
    else [least, prompt] = [count, ids];
  }
  return prompt ?? promptOf(newest(1));
}

/** Null when it is longer than that, or than the context. */
function fitting(
  messages: readonly Message[],
  promptOf: (messages: readonly Message[]) => readonly number[],
  longest: number,
): readonly number[] | null {
  try {
    const ids = promptOf(messages);
    return ids.length <= longest ? ids : null;
  } catch (error) {
    if (error instanceof MoestroError && error.code === 'CONTEXT_LENGTH_EXCEEDED') return null;
    throw error;
  }
}
