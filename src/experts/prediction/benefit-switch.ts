/**
 * Does speculation pay here and now? Steps with and without it alternate in short windows; what takes longer with it is
 * switched off for a while, and then tried anew. Windows alternate because disks drift: what is compared is neighbours.
 */

/** Decode steps of a window; the first of each is not counted, as it still feels the window before. */
const WINDOW_STEPS = 8;
/** Pairs of windows of a trial. */
const TRIAL_PAIRS = 4;
/** Steps until the next trial: an eighth of the time is spent on trials while it pays, and less when it does not. */
const STEPS_WHEN_ON = 7 * 2 * TRIAL_PAIRS * WINDOW_STEPS;
const STEPS_WHEN_OFF = 31 * 2 * TRIAL_PAIRS * WINDOW_STEPS;

export interface Verdict {
  readonly pays: boolean;
  /** Mean milliseconds of a step with and without. */
  readonly withMs: number;
  readonly withoutMs: number;
}

export class BenefitSwitch {
  #isTrial = true;
  #pays = true;
  /** Steps since the trial or the verdict began. */
  #steps = 0;
  readonly #ms = [0, 0];
  readonly #counted = [0, 0];

  /** Whether the next step speculates. */
  get isOn(): boolean {
    return this.#isTrial ? Math.floor(this.#steps / WINDOW_STEPS) % 2 === 0 : this.#pays;
  }

  /** A decode step took so long. Returns the verdict when it ends a trial, else null. */
  stepped(ms: number): Verdict | null {
    if (!this.#isTrial) {
      if (++this.#steps >= (this.#pays ? STEPS_WHEN_ON : STEPS_WHEN_OFF)) this.#begin(true);
      return null;
    }
    const arm = this.isOn ? 0 : 1;
    if (this.#steps % WINDOW_STEPS > 0) {
      this.#ms[arm] = this.#ms[arm]! + ms;
      this.#counted[arm] = this.#counted[arm]! + 1;
    }
    if (++this.#steps < 2 * TRIAL_PAIRS * WINDOW_STEPS) return null;
    const withMs = this.#ms[0]! / this.#counted[0]!;
    const withoutMs = this.#ms[1]! / this.#counted[1]!;
    this.#pays = withMs < withoutMs;
    this.#begin(false);
    return { pays: this.#pays, withMs, withoutMs };
  }

  #begin(isTrial: boolean): void {
    this.#isTrial = isTrial;
    this.#steps = 0;
    this.#ms.fill(0);
    this.#counted.fill(0);
  }
}
