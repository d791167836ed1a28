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
/** Most similar tokens that are asked, and tokens after each that are looked at. */
const NEIGHBOURS = 16;
const AHEAD = 4;
const CARRY = 0.5;
/** Layers that are compared, evenly spread, and at which neighbours are looked up: more of them tell little more. */
const COMPARED_LAYERS = 16;
/** Sequences whose overlap is kept; in a step of more the others only add to the history. */
const STREAMS_MAX = 4;
/** A use is the number of its token and the rank in it, in one integer of 31 bits. */
const USE_BITS = 30;

interface Stream {
  id: number;
  /** Number of its newest token; -1 before the first. */
  last: number;
  /** Row of the current step; -1 when it has none. */
  row: number;
  step: number;
  overlap: Float32Array;
  /** Its most similar tokens as of the last layer that was compared, and how much each is listened to: 1 in all. */
  neighbours: number;
  readonly nearest: Int32Array;
  readonly shares: Float64Array;
}

export class SimilarTokens {
  readonly #experts: number;
  readonly #topK: number;
  readonly #stride: number;
  readonly #rankBits: number;
  readonly #clockMax: number;
  /** [layer][token modulo WINDOW][rank]; of compared layers, for each such entry, the use of the same expert before: -1 for none. */
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
  readonly #nearness = new Float64Array(NEIGHBOURS);
  readonly #seen: Int32Array;
  #stamp = 0;

  /** @param rows of one step at most. */
  constructor(layers: number, experts: number, topK: number, rows: number) {
    this.#experts = experts;
    this.#topK = topK;
    this.#stride = Math.max(1, Math.round(layers / COMPARED_LAYERS));
    const compared = Math.ceil(layers / this.#stride);
    this.#rankBits = Math.ceil(Math.log2(Math.max(2, topK)));
    this.#clockMax = 2 ** (USE_BITS - this.#rankBits);
    this.#ids = new Uint16Array(layers * WINDOW * topK);
    this.#before = new Int32Array(compared * WINDOW * topK);
    this.#newestUse = new Int32Array(compared * experts).fill(-1);
    this.#streams = Array.from({ length: Math.min(rows, STREAMS_MAX) }, () => ({
      id: -1,
      last: -1,
      row: -1,
      step: -1,
      overlap: new Float32Array(WINDOW),
      neighbours: 0,
      nearest: new Int32Array(NEIGHBOURS),
      shares: new Float64Array(NEIGHBOURS),
    }));
    this.#rowFirst = new Int32Array(rows);
    this.#rowKept = new Int32Array(rows);
    this.#rowTokens = new Int32Array(rows);
    this.#seen = new Int32Array(experts);
  }

  /** A step begins: row r takes sequence streamIds[r] `rowTokens[r]` tokens further. */
  beginStep(rows: number, streamIds: ArrayLike<number>, rowTokens: ArrayLike<number>): void {
    if (this.#clock > this.#clockMax - 2 * WINDOW) this.#forget();
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
    const isCompared = layer % this.#stride === 0;
    if (isCompared) {
      for (const stream of this.#streams) {
        if (stream.row < 0) continue;
        this.#addOverlap(stream, layer / this.#stride, ids);
        this.#findNearest(stream);
      }
    }
    let token = 0;
    for (let row = 0; row < this.#rows; ++row) {
      token += this.#rowTokens[row]!;
      const kept = this.#rowKept[row]!;
      for (let i = 0; i < kept; ++i) {
        const number = this.#rowFirst[row]! + i;
        this.#keep(layer, number, ids, (token - kept + i) * this.#topK);
        if (isCompared) this.#link(layer / this.#stride, number, ids, (token - kept + i) * this.#topK);
      }
    }
  }

  #keep(layer: number, number: number, ids: Uint16Array, from: number): void {
    const entry = (layer * WINDOW + (number % WINDOW)) * this.#topK;
    for (let rank = 0; rank < this.#topK; ++rank) this.#ids[entry + rank] = ids[from + rank]!;
  }

  #link(compared: number, number: number, ids: Uint16Array, from: number): void {
    const entry = (compared * WINDOW + (number % WINDOW)) * this.#topK;
    const use = number << this.#rankBits;
    for (let rank = 0; rank < this.#topK; ++rank) {
      const key = compared * this.#experts + ids[from + rank]!;
      this.#before[entry + rank] = this.#newestUse[key]!;
      this.#newestUse[key] = use + rank;
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

  /** Walks the earlier uses of each expert of the row's last token. */
  #addOverlap(stream: Stream, compared: number, ids: Uint16Array): void {
    const topK = this.#topK;
    const rankBits = this.#rankBits;
    const rankMask = (1 << rankBits) - 1;
    const before = this.#before;
    const { overlap } = stream;
    const oldestUse = Math.max(0, this.#clock - WINDOW) << rankBits;
    let tokens = 0;
    for (let row = 0; row <= stream.row; ++row) tokens += this.#rowTokens[row]!;
    const from = (tokens - 1) * topK;
    const first = compared * WINDOW;
    for (let rank = 0; rank < topK; ++rank) {
      let use = this.#newestUse[compared * this.#experts + ids[from + rank]!]!;
      while (use >= oldestUse) {
        const slot = (use >> rankBits) % WINDOW;
        overlap[slot] = overlap[slot]! + 1;
        use = before[(first + slot) * topK + (use & rankMask)]!;
      }
    }
  }

  #addGuess(stream: Stream, layer: number, decay: number, soon: Float32Array, later: Float32Array): void {
    const topK = this.#topK;
    const { nearest, shares } = stream;
    const ids = this.#ids;
    const seen = this.#seen;
    for (let i = 0; i < stream.neighbours; ++i) {
      let weight = shares[i]!;
      const stamp = ++this.#stamp;
      let token = this.#next[nearest[i]! % WINDOW]!;
      for (let ahead = 1; ahead <= AHEAD && token > nearest[i]!; ++ahead) {
        const entry = (layer * WINDOW + (token % WINDOW)) * topK;
        for (let at = entry; at < entry + topK; ++at) {
          const id = ids[at]!;
          if (seen[id] === stamp) continue;
          seen[id] = stamp;
          if (ahead === 1) soon[id] = soon[id]! + weight;
          later[id] = later[id]! + weight;
        }
        weight *= decay;
        token = this.#next[token % WINDOW]!;
      }
    }
  }

  /** The tokens before this step with the largest overlap, best first, listened to by the fourth power of it. */
  #findNearest(stream: Stream): void {
    const { overlap, nearest, shares } = stream;
    const nearness = this.#nearness;
    let count = 0;
    let least = 0;
    for (let token = Math.max(0, this.#clock - WINDOW); token < this.#stepFirst; ++token) {
      const value = overlap[token % WINDOW]!;
      if (value <= least) continue;
      let at = count < NEIGHBOURS ? count++ : count - 1;
      while (at > 0 && nearness[at - 1]! < value) {
        nearness[at] = nearness[at - 1]!;
        nearest[at] = nearest[at - 1]!;
        --at;
      }
      nearness[at] = value;
      nearest[at] = token;
      if (count === NEIGHBOURS) least = nearness[count - 1]!;
    }
    let sum = 0;
    for (let i = 0; i < count; ++i) {
      const ratio = nearness[i]! / nearness[0]!;
      shares[i] = ratio * ratio * ratio * ratio;
      sum += shares[i]!;
    }
    for (let i = 0; i < count; ++i) shares[i] = shares[i]! / sum;
    stream.neighbours = count;
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
