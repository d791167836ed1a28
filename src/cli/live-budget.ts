/** The budget while `moestro serve` runs: how it is written, and what becomes of it is told. */
import type { ModelMemory } from '../answer/types.js';
import { formatBytes, parseBytes } from '../bytes.js';
import { MoestroError, toMoestroError } from '../errors.js';
import type { TextGenerator } from '../generate.js';
import { defaultBudget, memoryLimitBytes, readMachine } from '../machine.js';

/** How often the state is looked at for something to tell. */
const LOOK_EVERY_MS = 1000;

/**
 * A budget as an operator writes it, in bytes.
 *
 * @param told what --budget or its variable says now, null for "auto": a share or a file may say something new.
 * @throws {MoestroError} INVALID_REQUEST naming what was found.
 */
export function readBudget(text: string, told: () => number | null): number {
  if (text === 'auto') return told() ?? defaultBudget(readMachine().availableBytes);
  try {
    return parseBytes(text, 'budget', memoryLimitBytes());
  } catch (error) {
    const { message } = toMoestroError(error);
    throw new MoestroError('INVALID_REQUEST', message, { param: 'budget' }, error);
  }
}

/** Says in one line each what the memory keeper did, for as long as the process runs. */
export function keepTold(
  generator: Pick<TextGenerator, 'memory'>,
  write: (line: string) => unknown = (line) => process.stderr.write(line),
): void {
  let last: ModelMemory | undefined;
  const look = async (): Promise<void> => {
    const now = await generator.memory();
    const line = last === undefined ? null : describeChange(last, now);
    last = now;
    if (line !== null) write(`moestro: ${line}\n`);
  };
  const stop = (): void => clearInterval(timer);
  // An engine that is closing has nothing more to tell.
  const timer = setInterval(() => void look().catch(stop), LOOK_EVERY_MS).unref();
  void look().catch(stop);
}

/** What an operator should know of what happened between two looks; null when nothing did. */
export function describeChange(before: ModelMemory, now: ModelMemory): string | null {
  if (now.allowedBytes === before.allowedBytes) return null;
  const shed = now.shedExperts - before.shedExperts;
  const given = now.givenBackBytes - before.givenBackBytes;
  const isLess = now.allowedBytes < before.allowedBytes;
  const why =
    now.reason !== null
      ? `: ${now.reason}`
      : now.budgetBytes === before.budgetBytes
        ? ': there is enough memory again'
        : '';
  const short =
    now.allowedBytes < now.floorBytes ? `; open requests need ${formatBytes(now.floorBytes)}, new ones wait` : '';
  const did = isLess
    ? `, ${shed} experts dropped, ${formatBytes(given)} given back so far${short}`
    : ', room for more experts';
  return `memory ${isLess ? 'down' : 'up'} from ${formatBytes(before.allowedBytes)} to ${formatBytes(now.allowedBytes)}${why}${did}`;
}
