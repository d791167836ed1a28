/** What a trace holds of the guesses of routers, or why it holds none. */
import { MoestroError } from '../errors.js';
import type { RecordedGuesses } from '../experts/recorded-guesses.js';
import type { TraceToReplay } from './types.js';

/** @throws {MoestroError} INVALID_CONFIG when there are none, with what was found and what is needed. */
export function recordedGuesses({ name, recording }: TraceToReplay): RecordedGuesses {
  const guesses = recording.live?.guesses ?? null;
  if (guesses !== null && guesses.ids.length > 0) return guesses;
  throw new MoestroError(
    'INVALID_CONFIG',
    `Cannot replay "${name}" with --prefetch router: ${whatItHolds(recording.live)}; needed a .moetrace that ` +
      `"--record-trace" wrote while a model decoded by its own routers`,
    { name: '--prefetch', found: 'router', trace: name },
  );
}

export function holdsGuesses({ recording }: TraceToReplay): boolean {
  return (recording.live?.guesses?.ids.length ?? 0) > 0;
}

function whatItHolds(live: TraceToReplay['recording']['live']): string {
  if (live === undefined) return 'it holds which experts were chosen and not what routers said early';
  if (live.header.version === 1) return 'it is of version 1, which holds no guesses of routers';
  if (live.guesses === null) return 'its routing was replayed from another recording, so no router was asked';
  return `none of its steps has at most ${live.header.guessTokens} tokens, and larger ones hold no guesses`;
}
