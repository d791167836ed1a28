/**
 * How long does the disk idle before a router has spoken, and how many reads fit in there? Learned as steps go by: what a guess
 * can save is what is read of it in that time, and what a wrong one costs is the rest, for which others wait.
 *
 *     compute | attention, router | experts ...
 *     disk    |== guess 0 ==|== guess| 1 ==|== miss ...
 *             |<---- window ---->|
 */

/** Share of the newest figure in what is believed. */
const RATE = 0.05;

export class IdleTime {
  #windowMs = 0;
  #readMs = 0;
  /** Of this step: windows that were too short for a guess that was right. */
  #shortMs = 0;

  /** Reads on a guess had so long before the router had spoken; `isShort` when one that was right had not landed by then. */
  observe(windowMs: number, isShort: boolean): void {
    this.#windowMs += this.#windowMs === 0 ? windowMs : RATE * (windowMs - this.#windowMs);
    if (isShort) this.#shortMs += this.#windowMs;
  }

  /** A step has ended, in which compute waited so long for so many experts that were not there. */
  end(stallMs: number, misses: number): void {
    if (misses > 0) {
      const readMs = (stallMs + this.#shortMs) / misses;
      this.#readMs += this.#readMs === 0 ? readMs : RATE * (readMs - this.#readMs);
    }
    this.#shortMs = 0;
  }

  /**
   * Chance of being right from which on guess number `at` of a layer saves more time than it costs; above 1 when it would not
   * begin in time.
   */
  least(at: number): number {
    if (this.#readMs === 0) return 0;
    const left = this.#windowMs / this.#readMs - at;
    return left <= 0 ? 2 : Math.max(0, 1 - left);
  }
}
