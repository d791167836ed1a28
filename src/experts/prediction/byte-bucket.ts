/**
 * How many bytes may be read on a guess? A bucket that demand reads fill with a share of their bytes and guesses empty;
 * a guess that was right gives back what it took. So what is wasted stays below that share of all bytes read.
 */
export class ByteBucket {
  readonly #share: number;
  readonly #most: number;
  #bytes: number;

  /** @param most bytes it holds, and starts with. */
  constructor(share: number, most: number) {
    this.#share = share;
    this.#most = most;
    this.#bytes = most;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes were read on demand. */
  earn(bytes: number): void {
    this.#bytes = Math.min(this.#most, this.#bytes + this.#share * bytes);
  }

  spend(bytes: number): void {
    this.#bytes -= bytes;
  }

  /** Bytes spent were of use, or never read. */
  refund(bytes: number): void {
    this.#bytes = Math.min(this.#most, this.#bytes + bytes);
  }
}
