/**
 * What may the engine take right now? The configured budget, or less while the machine or its control groups have less
 * to give. Readings come as arguments; the watch only ever takes away from the budget, at once, and gives back slowly.
 */

/** What the system says, see readPressure of src/machine.ts. */
export interface Pressure {
  /** What control groups around this process leave it, Infinity without a limit. */
  readonly limitBytes: number;
  /** Free memory of the machine, page cache that can be given back included. */
  readonly availableBytes: number;
  readonly totalBytes: number;
  /** Share of the last ten seconds in which everything waited for memory, 0..1 (PSI "full"). */
  readonly stalledShare: number;
  /** Pages this process had to read back from disk since it started. */
  readonly majorFaults: number;
}

export interface Watched {
  /** At most the configured budget. */
  readonly allowedBytes: number;
  /** Why it is less, in words for an operator; null when it is not. */
  readonly reason: string | null;
}

/** Free memory that is left to everybody else. */
const RESERVE_SHARE = 1 / 32;
const RESERVE_MAX = 256 << 20;
/** A limit that was lowered below the budget also holds page tables and page cache of the process. */
const LIMIT_SHARE = 0.97;
/** Stalls and faults above which memory is too short, whatever the numbers say. */
const STALLED_MIN = 0.1;
const FAULTS_PER_SECOND_MIN = 100;
/** What goes at each reading in which it is; what comes back at each one in which nothing is short. */
const STEP_SHARE = 1 / 32;
const CALM_READINGS = 10;

export class MemoryWatch {
  #allowed = Number.POSITIVE_INFINITY;
  #reason: string | null = null;
  #calm = 0;
  #faults: number | null = null;

  /**
   * @param budgetBytes as configured.
   * @param seconds since the reading before.
   */
  read(pressure: Pressure, budgetBytes: number, seconds: number): Watched {
    const before = Math.min(this.#allowed, budgetBytes);
    const short = this.#shortage(pressure, before, budgetBytes, seconds);
    this.#faults = pressure.majorFaults;
    if (short !== null) {
      this.#calm = 0;
      this.#allowed = Math.min(before, short.allowedBytes);
      this.#reason = short.reason;
    } else if (before < budgetBytes && ++this.#calm >= CALM_READINGS) {
      const most = this.#ceiling(pressure, before);
      this.#allowed = Math.min(budgetBytes, most, before + budgetBytes * STEP_SHARE);
    }
    if (this.#allowed >= budgetBytes) {
      this.#allowed = Number.POSITIVE_INFINITY;
      this.#reason = null;
    }
    return { allowedBytes: Math.floor(Math.min(this.#allowed, budgetBytes)), reason: this.#reason };
  }

  #shortage(pressure: Pressure, now: number, budget: number, seconds: number): Watched | null {
    const { limitBytes, availableBytes, stalledShare, majorFaults } = pressure;
    if (limitBytes < budget && limitBytes * LIMIT_SHARE < now) {
      return { allowedBytes: limitBytes * LIMIT_SHARE, reason: 'a control group leaves less' };
    }
    const missing = reserve(pressure) - availableBytes;
    if (missing > 0) return { allowedBytes: now - missing, reason: 'the machine runs short of memory' };
    const faults = this.#faults === null ? 0 : (majorFaults - this.#faults) / Math.max(seconds, 1e-3);
    if (stalledShare >= STALLED_MIN && faults >= FAULTS_PER_SECOND_MIN) {
      return { allowedBytes: now - budget * STEP_SHARE, reason: 'pages of this process are read back from disk' };
    }
    return null;
  }

  /** Where growing would run into the next shortage. */
  #ceiling(pressure: Pressure, now: number): number {
    const limit = pressure.limitBytes * LIMIT_SHARE;
    return Math.max(now, Math.min(limit, now + (pressure.availableBytes - 2 * reserve(pressure))));
  }
}

const reserve = ({ totalBytes }: Pressure): number => Math.min(RESERVE_MAX, totalBytes * RESERVE_SHARE);
