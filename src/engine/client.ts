/** The engine as other threads see it: requests become messages, messages become async iterables and promises. */
import { Worker } from 'node:worker_threads';
import type { TokenBytes } from '../constrain/program.js';
import { MoestroError } from '../errors.js';
import { workerFile } from '../worker-file.js';
import { Answer, type Listener } from './answer.js';
import { errorFromWire, type FromEngine, type Line, type ToEngine } from './messages.js';
import type { EngineLive, EngineMetrics, MemoryState } from './engine-metrics.js';
import type {
  EmbedOptions,
  EngineClient,
  EngineConfig,
  EngineInfo,
  EvaluateOptions,
  GenerateRequest,
} from './types.js';

/** The client's end of the line, and what ends it. */
export interface EngineWire extends Line<ToEngine, FromEngine> {
  /** Called once when the other side is gone without having said so. */
  onGone(listener: (cause: unknown) => void): void;
  /** Ends the other side; resolves when it is gone. */
  terminate(): Promise<unknown>;
}

/** The old heap of the engine thread in MiB: plans and counters need a few, a manifest of a large model the rest. */
const WORKER_HEAP_MIB = 192;
/** A step leaves little garbage: a small young generation keeps the thread's resident memory small. */
const WORKER_YOUNG_MIB = 4;

/**
 * Starts the engine thread and loads the model.
 *
 * @param tokenBytes of the model's vocabulary, in shared memory: for requests with a format. Without it those are refused.
 * @throws {MoestroError} what opening and planning throw (MODEL_INVALID, MODEL_CORRUPT, BUDGET_BELOW_FLOOR,
 * INVALID_CONFIG, OUT_OF_MEMORY, IO_ERROR, ADDON_MISSING), or ENGINE_FAILED when the thread dies.
 */
export function startEngine(config: EngineConfig, tokenBytes?: TokenBytes): Promise<EngineClient> {
  const worker = new Worker(workerFile(import.meta.url, './worker.js'), {
    workerData: { config, tokenBytes },
    name: 'engine',
    // The thread inherits no loader of the process: it runs compiled files.
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: WORKER_HEAP_MIB, maxYoungGenerationSizeMb: WORKER_YOUNG_MIB },
  });
  return connectEngine(workerWire(worker));
}

export function workerWire(worker: Worker): EngineWire {
  return {
    postMessage: (message) => worker.postMessage(message),
    on: (event, listener) => worker.on(event, listener),
    off: (event, listener) => worker.off(event, listener),
    onGone: (listener) => {
      worker.once('error', listener);
      worker.once('exit', (code) => listener(new Error(`its thread ended with status ${code}`)));
    },
    terminate: () => worker.terminate(),
  };
}

/** Waits for the engine's first word and returns the handle to it. */
export async function connectEngine(wire: EngineWire): Promise<EngineClient> {
  const client = new ThreadClient(wire);
  try {
    await client.started;
  } catch (error) {
    await wire.terminate();
    throw error;
  }
  return client;
}

class ThreadClient implements EngineClient {
  readonly started: Promise<void>;
  readonly #wire: EngineWire;
  readonly #listeners = new Map<number, Listener>();
  #info: EngineInfo | undefined;
  #nextId = 1;
  /** Why nothing more can be asked. */
  #ended: MoestroError | undefined;
  #closing: Promise<void> | undefined;
  #settleStart: { readonly resolve: () => void; readonly reject: (error: MoestroError) => void } = {
    resolve: () => {},
    reject: () => {},
  };
  #onClosed = (): void => {};

  constructor(wire: EngineWire) {
    this.#wire = wire;
    this.started = new Promise((resolve, reject) => {
      this.#settleStart = { resolve, reject };
    });
    wire.on('message', (message) => this.#receive(message));
    wire.onGone((cause) => {
      const text = cause instanceof Error ? cause.message : String(cause);
      this.#end(new MoestroError('ENGINE_FAILED', `Cannot go on: the engine failed: ${text}`, {}, cause));
    });
  }

  get info(): EngineInfo {
    return this.#info!;
  }

  generate(request: GenerateRequest, signal?: AbortSignal): Answer {
    const id = this.#nextId++;
    return new Answer(
      {
        start: (listener) => this.#ask(id, { kind: 'generate', id, request }, listener),
        acknowledge: (count) => this.#post({ kind: 'acknowledge', id, count }),
        abort: () => {
          this.#listeners.delete(id);
          this.#post({ kind: 'abort', id });
        },
        stop: () => this.#post({ kind: 'stop', id }),
        leave: () => this.#listeners.delete(id),
      },
      signal,
    );
  }

  evaluate(tokenIds: readonly number[], options: EvaluateOptions = {}): Promise<Float32Array> {
    return this.#call((id) => ({ kind: 'evaluate', id, tokenIds, options }));
  }

  async embed(tokenIds: readonly number[], options: EmbedOptions, signal?: AbortSignal): Promise<Float32Array> {
    const cancelled = () => new MoestroError('CANCELLED', 'Cannot finish the request: it was cancelled');
    if (signal?.aborted) throw cancelled();
    let onAbort = (): void => {};
    const aborted = new Promise<never>((_resolve, reject) => {
      onAbort = () => reject(cancelled());
    });
    const embedded = this.#call<Float32Array>((id) => {
      const rejectAborted = onAbort;
      onAbort = () => {
        this.#listeners.delete(id);
        this.#post({ kind: 'abort', id });
        rejectAborted();
      };
      return { kind: 'embed', id, tokenIds, options };
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([embedded, aborted]);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  collectImportance(on: boolean, width = 1): Promise<void> {
    return this.#call((id) => ({ kind: 'collectImportance', id, on, width }));
  }

  importance(layer: number, expert: number): Promise<{ tokens: number; gateUp: Float32Array; down: Float32Array }> {
    return this.#call((id) => ({ kind: 'importance', id, layer, expert }));
  }

  routingWeights(): Promise<Float64Array> {
    return this.#call((id) => ({ kind: 'routingWeights', id }));
  }

  metrics(): Promise<EngineMetrics> {
    return this.#call((id) => ({ kind: 'metrics', id }));
  }

  memory(budgetBytes?: number): Promise<MemoryState> {
    return this.#call((id) => ({ kind: 'memory', id, budgetBytes: budgetBytes ?? null }));
  }

  live(): Promise<EngineLive> {
    return this.#call((id) => ({ kind: 'live', id }));
  }

  /** Open requests end with ENGINE_CLOSED after the step that runs. Safe to call again, and after a failure. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#ended === undefined) {
      const closed = new Promise<void>((resolve) => {
        this.#onClosed = resolve;
      });
      this.#post({ kind: 'close' });
      await closed;
    }
    await this.#wire.terminate();
  }

  #receive(message: FromEngine): void {
    switch (message.kind) {
      case 'ready':
        this.#info = message.info;
        this.#settleStart.resolve();
        break;
      case 'events':
        for (const [id, event] of message.events) this.#listeners.get(id)?.event(event);
        break;
      case 'reply':
        this.#settle(message.id)?.reply(message.value);
        break;
      case 'failed':
        this.#settle(message.id)?.failed(errorFromWire(message.error));
        break;
      case 'broken':
        this.#end(errorFromWire(message.error));
        break;
      case 'closed':
        this.#end(new MoestroError('ENGINE_CLOSED', 'Cannot use the engine: it is closed'));
        break;
      default:
        message satisfies never;
    }
  }

  #settle(id: number): Listener | undefined {
    const listener = this.#listeners.get(id);
    this.#listeners.delete(id);
    return listener;
  }

  /** The first reason stays: a thread that said why it broke also exits. */
  #end(error: MoestroError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#settleStart.reject(error);
    const open = [...this.#listeners.values()];
    this.#listeners.clear();
    for (const listener of open) listener.failed(error);
    this.#onClosed();
  }

  #call<T>(message: (id: number) => ToEngine): Promise<T> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#ask(id, message(id), { event: () => {}, reply: (value) => resolve(value as T), failed: reject });
    });
  }

  #ask(id: number, message: ToEngine, listener: Listener): void {
    if (this.#ended !== undefined) {
      listener.failed(this.#ended);
      return;
    }
    if (this.#closing !== undefined) {
      listener.failed(new MoestroError('ENGINE_CLOSED', 'Cannot use the engine: it is closing'));
      return;
    }
    this.#listeners.set(id, listener);
    this.#post(message);
  }

  #post(message: ToEngine): void {
    if (this.#ended === undefined) this.#wire.postMessage(message);
  }
}
