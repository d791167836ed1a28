/** How much one key may ask for: requests a minute, in a bucket that fills evenly, and requests at once. */
import type { KeyLimits } from '../config/key-file.js';
import { MoestroError } from '../errors.js';

const MINUTE_MS = 60_000;

/** A request that was let in. */
export interface Admitted {
  /** The bucket's state for the client, by header; empty without a limit. */
  readonly headers: Readonly<Record<string, string>>;
  /** To be called when the answer has ended; more than once does no harm. */
  release(): void;
}

interface Account {
  /** Requests that may come at once now, up to a minute's worth. */
  left: number;
  filledMs: number;
  underWay: number;
}

export class KeyLimiter {
  readonly #accounts = new Map<string, Account>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** @throws {MoestroError} RATE_LIMITED with `retryAfterSeconds` in its details. */
  admit(key: string, { requestsPerMinute, atOnce }: KeyLimits): Admitted {
    const account = this.#account(key, requestsPerMinute ?? 0);
    if (atOnce !== null && account.underWay >= atOnce) {
      throw limited(`Cannot take another request with this key: ${atOnce} are under way, as many as it may have`, 1);
    }
    if (requestsPerMinute !== null) {
      if (account.left < 1) {
        const seconds = Math.ceil(((1 - account.left) * MINUTE_MS) / requestsPerMinute / 1000);
        throw limited(`Cannot take another request with this key: it may send ${requestsPerMinute} a minute`, seconds);
      }
      account.left -= 1;
    }
    ++account.underWay;
    let isHeld = true;
    return {
      headers: requestsPerMinute === null ? {} : headersOf(account, requestsPerMinute),
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        --account.underWay;
      },
    };
  }

  #account(key: string, perMinute: number): Account {
    const now = this.#now();
    const known = this.#accounts.get(key);
    if (known === undefined) {
      const account = { left: perMinute, filledMs: now, underWay: 0 };
      this.#accounts.set(key, account);
      return account;
    }
    known.left = Math.min(perMinute, known.left + ((now - known.filledMs) * perMinute) / MINUTE_MS);
    known.filledMs = now;
    return known;
  }
}

function limited(message: string, retryAfterSeconds: number): MoestroError {
  return new MoestroError('RATE_LIMITED', message, { retryAfterSeconds });
}

/** As OpenAI's API names them. */
function headersOf({ left }: Account, perMinute: number): Record<string, string> {
  return {
    'x-ratelimit-limit-requests': String(perMinute),
    'x-ratelimit-remaining-requests': String(Math.floor(left)),
    'x-ratelimit-reset-requests': `${Math.ceil(((perMinute - left) * 60) / perMinute)}s`,
  };
}
