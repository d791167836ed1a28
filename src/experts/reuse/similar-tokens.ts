/**
 * Which experts followed when an earlier token was routed like this one?
 *
 * Text repeats itself, and routing with it: the tokens whose routing overlaps most with the newest one are found in the
 * history of the run, and what came after them is the guess for what comes next. Nothing is trained; it is the induction
 * rule of language models, applied to expert ids. Recall of the next token's experts in the same layer, guess of topK:
 * OLMoE .566 against .485 by decayed use, Kimi-Linear .438 / .345, Qwen3-30B code .545 / .471, general .512 / .467.
 *
 * Each sequence has an overlap of its own, layer by layer: entry s is the number of (layer, expert) pairs that its
 * newest token shares with token s, plus a half of what its token before shared with token s - 1.
 */

/** Tokens of the past that are compared with: as many as two prompts, for some 400 KB. */
const WINDOW = 512;
/** Most similar tokens that are asked, and tokens after each that are looked at: 8 to 32 and 4 to 16 do as well. */
const NEIGHBOURS = 16;
const AHEAD = 4;
const CARRY = 0.5;
/** Sequences whose overlap is kept; in a step of more the others only add to the history. */
const STREAMS_MAX = 4;
/** Numbers of tokens stay small: once a day or so the history starts anew. */
const CLOCK_MAX = 1 << 24;

interface Stream {
  id: number;
  /** Number of its newest token; -1 before the first. */
  last: number;
  /** Row of the current step; -1 when it has none. */
  row: number;
  step: number;
  overlap: Float32Array;
}

export class SimilarTokens {
  readonly #experts: number;
  readonly #topK: number;
  /** [layer][token modulo WINDOW][rank], and for each such entry the number of the token that used the expert before. */
  readonly #ids: Uint16Array;
  readonly #before: Int32Array;
  readonly #newestUse: Int32Array;
  /** [token modulo WINDOW]: the token after it in its sequence, -1 for none yet. */
  readonly #next = new Int32Array(WINDOW).fill(-1);
  readonly #streams: Stream[];
  #spare: Float32Array = new Float32Array(WINDOW);
  #clock = 0;
  #step = 0;
  /** Of the current step: the first new token, and by row the first of them and how many are kept. */
  #stepFirst = 0;
  readonly #rowFirst: Int32Array;
  readonly #rowKept: Int32Array;
  readonly #rowTokens: Int32Array;
  #rows = 0;
  readonly #nearest = new Int32Array(NEIGHBOURS);
  readonly #nearness = new Float64Array(NEIGHBOURS);
  readonly #seen: Int32Array;
  #stamp = 0;

  /** @param rows of one step at most. */
  constructor(layers: number, experts: number, topK: number, rows: number) {
    this.#experts = experts;
    this.#topK = topK;
    this.#ids = new Uint16Array(layers * WINDOW * topK);
    this.#before = new Int32Array(layers * WINDOW * topK);
    this.#newestUse = new Int32Array(layers * experts).fill(-1);
    this.#streams = Array.from({ length: Math.min(rows, STREAMS_MAX) }, () => ({
      id: -1,
      last: -1,
      row: -1,
      step: -1,
      overlap: new Float32Array(WINDOW),
    }));
    this.#rowFirst = new Int32Array(rows);
    this.#rowKept = new Int32Array(rows);
    this.#rowTokens = new Int32Array(rows);
    this.#seen = new Int32Array(experts);
  }

  /** A step begins: row r takes sequence streamIds[r] `rowTokens[r]` tokens further. */
  beginStep(rows: number, streamIds: ArrayLike<number>, rowTokens: ArrayLike<number>): void {
    if (this.#clock > CLOCK_MAX) this.#forget();
    ++this.#step;
    this.#rows = rows;
    this.#stepFirst = this.#clock;
    for (const stream of this.#streams) stream.row = -1;
    for (let row = 0; row < rows; ++row) {
      const kept = Math.min(rowTokens[row]!, Math.max(1, Math.floor(WINDOW / 2 / rows)));
      const first = this.#clock;
      this.#clock += kept;
      this.#rowFirst[row] = first;
      this.#rowKept[row] = kept;
      this.#rowTokens[row] = rowTokens[row]!;
      for (let token = first; token < this.#clock; ++token) {
        this.#next[token % WINDOW] = token + 1 < this.#clock ? token + 1 : -1;
      }
      this.#bindStream(row, streamIds[row]!, first, kept === rowTokens[row]);
    }
  }

  /**
   * The experts that every token of the step uses at `layer`: ids [tokens of all rows, topK]. To be called for each layer in
   * turn; overlaps grow by what this layer tells.
   */
  append(layer: number, ids: Uint16Array): void {
    const topK = this.#topK;
    for (const stream of this.#streams) if (stream.row >= 0) this.#addOverlap(stream, layer, ids);
    let token = 0;
    for (let row = 0; row < this.#rows; ++row) {
      token += this.#rowTokens[row]!;
      const kept = this.#rowKept[row]!;
      for (let i = 0; i < kept; ++i) {
        const number = this.#rowFirst[row]! + i;
        const entry = (layer * WINDOW + (number % WINDOW)) * topK;
        const from = (token - kept + i) * topK;
        for (let rank = 0; rank < topK; ++rank) {
          const key = layer * this.#experts + ids[from + rank]!;
          this.#ids[entry + rank] = ids[from + rank]!;
          this.#before[entry + rank] = this.#newestUse[key]!;
          this.#newestUse[key] = number;
        }
      }
    }
  }

  /**
   * @param decay what a use one token later counts, of 0 to 1.
   * @param soon out: Float32Array [experts], share of the similar tokens after which the expert came at once.
   * @param later out: the same over the next tokens, the first use of each counted with decay. Both are sums over the
   * sequences of the step, at most 1.
   */
  guess(layer: number, decay: number, soon: Float32Array, later: Float32Array): void {
    soon.fill(0);
    later.fill(0);
    for (const stream of this.#streams) if (stream.row >= 0) this.#addGuess(stream, layer, decay, soon, later);
  }

  #bindStream(row: number, id: number, first: number, isWhole: boolean): void {
    let oldest: Stream | null = null;
    let stream: Stream | null = null;
    for (const one of this.#streams) {
      if (one.id === id) stream = one;
      if (one.row < 0 && (oldest === null || one.step < oldest.step)) oldest = one;
    }
    stream ??= oldest;
    if (stream === null) return;
    if (stream.id !== id) {
      stream.id = id;
      stream.last = -1;
    }
    const oldestKept = this.#clock - WINDOW;
    const follows = isWhole && stream.last >= oldestKept && stream.last >= 0;
    if (follows) this.#next[stream.last % WINDOW] = first;
    const shifted = this.#spare;
    shifted.fill(0);
    if (follows && this.#clock === first + 1) {
      for (let token = Math.max(0, oldestKept); token < this.#stepFirst; ++token) {
        const next = this.#next[token % WINDOW]!;
        if (next > token) shifted[next % WINDOW] = CARRY * stream.overlap[token % WINDOW]!;
      }
    }
    this.#spare = stream.overlap;
    stream.overlap = shifted;
    stream.last = this.#clock - 1;
    stream.row = row;
    stream.step = this.#step;
  }

  /** Walks the earlier users of each expert of the row's last token. */
  #addOverlap(stream: Stream, layer: number, ids: Uint16Array): void {
    const topK = this.#topK;
    const { overlap } = stream;
    const oldestKept = Math.max(0, this.#clock - WINDOW);
    let tokens = 0;
    for (let row = 0; row <= stream.row; ++row) tokens += this.#rowTokens[row]!;
    const from = (tokens - 1) * topK;
    for (let rank = 0; rank < topK; ++rank) {
      const id = ids[from + rank]!;
      let user = this.#newestUse[layer * this.#experts + id]!;
      while (user >= oldestKept) {
        const slot = user % WINDOW;
        overlap[slot] = overlap[slot]! + 1;
        let entry = (layer * WINDOW + slot) * topK;
        while (this.#ids[entry] !== id) ++entry;
        user = this.#before[entry]!;
      }
    }
  }

  #addGuess(stream: Stream, layer: number, decay: number, soon: Float32Array, later: Float32Array): void {
    const topK = this.#topK;
    const nearest = this.#nearest;
    const count = this.#findNearest(stream.overlap);
    const most = this.#nearness[0]!;
    if (count === 0 || most <= 0) return;
    let sum = 0;
    for (let i = 0; i < count; ++i) sum += (this.#nearness[i]! / most) ** 4;
    for (let i = 0; i < count; ++i) {
      let weight = (this.#nearness[i]! / most) ** 4 / sum;
      const stamp = ++this.#stamp;
      let token = this.#next[nearest[i]! % WINDOW]!;
      for (let ahead = 1; ahead <= AHEAD && token > nearest[i]!; ++ahead) {
        const entry = (layer * WINDOW + (token % WINDOW)) * topK;
        for (let rank = 0; rank < topK; ++rank) {
          const id = this.#ids[entry + rank]!;
          if (this.#seen[id] === stamp) continue;
          this.#seen[id] = stamp;
          if (ahead === 1) soon[id] = Math.min(1, soon[id]! + weight);
          later[id] = Math.min(1, later[id]! + weight);
        }
        weight *= decay;
        token = this.#next[token % WINDOW]!;
      }
    }
  }

  /** The tokens before this step with the largest overlap, best first; returns their number. */
  #findNearest(overlap: Float32Array): number {
    const nearest = this.#nearest;
    const nearness = this.#nearness;
    let count = 0;
    for (let token = Math.max(0, this.#clock - WINDOW); token < this.#stepFirst; ++token) {
      const value = overlap[token % WINDOW]!;
      if (value === 0 || (count === NEIGHBOURS && value <= nearness[count - 1]!)) continue;
      let at = count < NEIGHBOURS ? count++ : count - 1;
      while (at > 0 && nearness[at - 1]! < value) {
        nearness[at] = nearness[at - 1]!;
        nearest[at] = nearest[at - 1]!;
        --at;
      }
      nearness[at] = value;
      nearest[at] = token;
    }
    return count;
  }

  #forget(): void {
    this.#clock = 0;
    this.#newestUse.fill(-1);
    this.#next.fill(-1);
    for (const stream of this.#streams) {
      stream.id = -1;
      stream.last = -1;
    }
  }
}
