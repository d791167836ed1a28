/**
 * Several models within one budget: one is in memory at a time, and another is loaded when a request names it. Requests
 * for a model that is not loaded wait until the answers under way have ended; those that come after them wait behind, also
 * for the model that is loaded, so that nobody waits for ever.
 */
import { MoestroError } from '../errors.js';
import type { TextGenerator } from '../generate.js';

export interface ModelEntry {
  /** What /v1/models lists and every answer echoes. */
  readonly id: string;
  readonly createdSeconds: number;
}

export interface ServedModel extends ModelEntry {
  readonly generator: TextGenerator;
}

/** The model for the time of one request. */
export interface Lease {
  readonly model: ServedModel;
  /** To be called when the answer has ended, however it did; more than once does no harm. */
  release(): void;
}

/** What routes know of the models. */
export interface Models {
  readonly entries: readonly ModelEntry[];
  /** What is in memory; null while it loads. */
  current(): ServedModel | null;
  /**
   * @param name what the request calls the model, null for whichever is at hand.
   * @param signal the client has gone.
   * @param onWait is called, at once, when it has to wait for its turn; errors before that are known at once too.
   * @throws {MoestroError} MODEL_LOADING, MODEL_NOT_FOUND, QUEUE_FULL, CANCELLED, and what went wrong in loading.
   */
  lease(name: string | null, signal: AbortSignal, onWait?: () => void): Promise<Lease>;
}

interface Loaded {
  readonly model: ServedModel;
  close(): Promise<void>;
}

export interface ShelfParts {
  readonly entries: readonly ModelEntry[];
  readonly open: (
    entry: ModelEntry,
  ) => Promise<{ readonly generator: TextGenerator; readonly close: () => Promise<void> }>;
  /** Requests that wait for a model at most. */
  readonly waitingMax: number;
}

interface Waiting {
  readonly entry: ModelEntry;
  readonly grant: () => void;
  readonly refuse: (error: unknown) => void;
}

export class ModelShelf implements Models {
  readonly entries: readonly ModelEntry[];
  readonly #open: ShelfParts['open'];
  readonly #waitingMax: number;
  readonly #waiting: Waiting[] = [];
  #loaded: Loaded | null = null;
  #leases = 0;
  /** Settles when the model that is being put away or loaded is. */
  #changing: Promise<void> | null = null;
  #isStarted = false;
  #isClosed = false;

  constructor({ entries, open, waitingMax }: ShelfParts) {
    this.entries = entries;
    this.#open = open;
    this.#waitingMax = waitingMax;
  }

  /** Loads the first model. Until that is done requests are told to come back. */
  async start(): Promise<ServedModel> {
    await this.#load(this.entries[0]!);
    this.#isStarted = true;
    return this.#loaded!.model;
  }

  current(): ServedModel | null {
    return this.#loaded?.model ?? null;
  }

  async lease(name: string | null, signal: AbortSignal, onWait?: () => void): Promise<Lease> {
    if (!this.#isStarted) throw stillLoading();
    signal.throwIfAborted();
    const entry = this.#entryOf(name);
    const isAtHand = this.#loaded?.model.id === entry.id && this.#waiting.length === 0 && this.#changing === null;
    if (!isAtHand) await this.#turnOf(entry, signal, onWait);
    else ++this.#leases;
    let isHeld = true;
    return {
      model: this.#loaded!.model,
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        --this.#leases;
        this.#turn();
      },
    };
  }

  /** Ends what is under way and frees the memory. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const gone = new MoestroError('ENGINE_CLOSED', 'Cannot load a model: the server is stopping');
    for (const { refuse } of this.#waiting.splice(0)) refuse(gone);
    await this.#changing;
    await this.#putAway();
  }

  #entryOf(name: string | null): ModelEntry {
    const named = this.entries.find(({ id }) => id === name);
    if (named !== undefined) return named;
    const atHand = this.entries.find(({ id }) => id === this.#loaded?.model.id) ?? this.entries[0]!;
    // Clients have to say some name; where there is one model, it cannot be meant otherwise.
    if (name === null || this.entries.length === 1) return atHand;
    const ids = this.entries.map(({ id }) => `"${id}"`).join(', ');
    throw new MoestroError('MODEL_NOT_FOUND', `Cannot find the model "${name}": needed one of ${ids}`, {
      param: 'model',
    });
  }

  /** Resolves holding a lease. */
  #turnOf(entry: ModelEntry, signal: AbortSignal, onWait: (() => void) | undefined): Promise<void> {
    if (this.#waiting.length >= this.#waitingMax) {
      throw new MoestroError(
        'QUEUE_FULL',
        `Cannot take another request: ${this.#waiting.length} wait for a model to be loaded already`,
      );
    }
    onWait?.();
    return new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(one), 1);
        reject(signal.reason);
        this.#turn();
      };
      const one: Waiting = {
        entry,
        grant: () => {
          signal.removeEventListener('abort', leave);
          ++this.#leases;
          resolve();
        },
        refuse: (error) => {
          signal.removeEventListener('abort', leave);
          reject(error);
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(one);
      this.#turn();
    });
  }

  /** Lets in all that wait for the model at hand if the first of the queue does; else loads that one's when nobody answers. */
  #turn(): void {
    const first = this.#waiting[0];
    if (first === undefined || this.#changing !== null || this.#isClosed) return;
    if (this.#loaded?.model.id === first.entry.id) {
      const isNext = ({ entry }: Waiting) => entry.id === first.entry.id;
      const next = this.#waiting.filter(isNext);
      const others = this.#waiting.filter((one) => !isNext(one));
      this.#waiting.splice(0, this.#waiting.length, ...others);
      for (const { grant } of next) grant();
    } else if (this.#leases === 0) {
      this.#changing = this.#change(first.entry).finally(() => {
        this.#changing = null;
        this.#turn();
      });
    }
  }

  /** Never throws: those who wait for the model are told. */
  async #change(entry: ModelEntry): Promise<void> {
    try {
      await this.#putAway();
      await this.#load(entry);
    } catch (error) {
      for (let i = this.#waiting.length - 1; i >= 0; --i) {
        if (this.#waiting[i]!.entry.id === entry.id) this.#waiting.splice(i, 1)[0]!.refuse(error);
      }
    }
  }

  async #putAway(): Promise<void> {
    const loaded = this.#loaded;
    this.#loaded = null;
    await loaded?.close();
  }

  async #load(entry: ModelEntry): Promise<void> {
    const { generator, close } = await this.#open(entry);
    this.#loaded = { model: { ...entry, generator }, close };
  }
}

export const stillLoading = (): MoestroError =>
  new MoestroError('MODEL_LOADING', 'Cannot answer yet: the model is still loading');
