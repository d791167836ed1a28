/** The engine thread's loop: a step, its events in one message, then the messages that came meanwhile. */
import { MoestroError } from '../errors.js';
import type { NativeEngine } from '../native/binding.js';
import type { Engine } from './engine.js';
import type { EngineSink } from './engine-sink.js';
import { errorToWire, type FromEngine, type Line, type ToEngine } from './messages.js';
import type { EngineEvent } from './types.js';

export type EngineLine = Line<FromEngine, ToEngine>;

/** Resolved when messages that have come meanwhile are handled. */
const afterMessages = (resolve: () => void): void => {
  setImmediate(resolve);
};
const WATCH_EVERY_MS = 500;

/** Gathers what a step emits, so that it crosses to the client in one message. */
export class StepOutput implements EngineSink {
  readonly #line: EngineLine;
  #events: (readonly [number, EngineEvent])[] = [];

  constructor(line: EngineLine) {
    this.#line = line;
  }

  event(id: number, event: EngineEvent): void {
    this.#events.push([id, event]);
  }

  failed(id: number, error: MoestroError): void {
    // Events of the same sequence come first.
    this.flush();
    this.#line.postMessage({ kind: 'failed', id, error: errorToWire(error) });
  }

  evaluated(id: number, logits: Float32Array): void {
    this.#line.postMessage({ kind: 'reply', id, value: logits }, [logits.buffer as ArrayBuffer]);
  }

  flush(): void {
    if (this.#events.length === 0) return;
    this.#line.postMessage({ kind: 'events', events: this.#events });
    this.#events = [];
  }
}

/**
 * Serves until the client says close, or something breaks that is no request's fault; then every open request fails,
 * the native engine is closed, which gives its memory back, and the client told.
 */
export async function serveEngine(
  line: EngineLine,
  engine: Engine,
  native: NativeEngine,
  output: StepOutput,
): Promise<void> {
  let isClosing = false;
  let wake = (): void => {};
  const onMessage = (message: ToEngine): void => {
    if (message.kind === 'close') isClosing = true;
    else answer(message, line, engine, native);
    wake();
  };
  line.on('message', onMessage);
  engine.onWork = () => wake();
  // What memory there is may change while nobody asks for anything.
  const watch = setInterval(() => wake(), WATCH_EVERY_MS);
  try {
    while (!isClosing) {
      const ran = engine.hasWork && engine.step();
      const isTending = !ran && engine.tend();
      output.flush();
      if (ran || isTending) {
        await new Promise<void>(afterMessages);
      } else if (!isClosing) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = () => {};
      }
    }
    engine.failAll(new MoestroError('ENGINE_CLOSED', 'Cannot finish the request: the engine is closing'));
    await engine.close();
    native.close();
    line.postMessage({ kind: 'closed' });
  } catch (cause) {
    // Not a request's failure but a broken invariant: go down and say why. It ends the open requests too.
    await engine.close(true);
    native.close();
    const error = new MoestroError('ENGINE_FAILED', `Cannot go on: the engine failed: ${(cause as Error).message}`);
    error.stack = (cause as Error).stack ?? '';
    line.postMessage({ kind: 'broken', error: errorToWire(error) });
  } finally {
    clearInterval(watch);
    line.off('message', onMessage);
  }
}

function answer(
  message: Exclude<ToEngine, { kind: 'close' }>,
  line: EngineLine,
  engine: Engine,
  native: NativeEngine,
): void {
  const reply = (value: unknown): void => line.postMessage({ kind: 'reply', id: message.id, value });
  try {
    switch (message.kind) {
      case 'generate':
        engine.generate(message.id, message.request);
        break;
      case 'evaluate':
        engine.evaluate(message.id, message.tokenIds, message.options);
        break;
      case 'embed':
        engine.embed(message.id, message.tokenIds, message.options);
        break;
      case 'abort':
        engine.abort(message.id);
        break;
      case 'stop':
        reply(engine.stop(message.id));
        break;
      case 'acknowledge':
        engine.acknowledge(message.id, message.count);
        break;
      case 'metrics':
        reply(engine.metrics());
        break;
      case 'memory':
        reply(engine.memory(message.budgetBytes));
        break;
      case 'live':
        reply(engine.live());
        break;
      case 'collectImportance':
        native.collectImportance(message.on, message.width);
        engine.collectWeights(message.on);
        reply(undefined);
        break;
      case 'importance':
        reply(native.importance(message.layer, message.expert));
        break;
      case 'routingWeights':
        reply(engine.routingWeights());
        break;
      default:
        message satisfies never;
    }
  } catch (error) {
    // One request's mistake ends that request.
    line.postMessage({ kind: 'failed', id: message.id, error: errorToWire(error) });
  }
}
