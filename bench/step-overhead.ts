/**
 * What share of a decode step do TypeScript and the calls into native code take?
 *
 *   npx tsx bench/step-overhead.ts MODEL.moe [--budget 18GiB] [--tokens 64] [--threads 2] [--greedy]
 *
 * A real engine answers one prompt in this thread, served as its own thread serves it, messages to a client in another and all. Timed from the
 * first token of the answer to the last: all that is not inside a native call is TypeScript. What crossing the border
 * costs is inside, so it is measured on a call that finds nothing to do (`takeCompletions` without reads on their way)
 * and multiplied with the calls counted. Sketch: 48 layers of 6 calls of 0.5 us are 0.15 ms of a step of 50 ms.
 */
import { EventEmitter } from 'node:events';
import { parseArgs } from 'node:util';
import { MessageChannel, Worker } from 'node:worker_threads';
import { engineConfig } from '../src/config.js';
import type { FromEngine, ToEngine } from '../src/engine/messages.js';
import { openEngine } from '../src/engine/open-engine.js';
import { type EngineLine, StepOutput, serveEngine } from '../src/engine/serve-engine.js';
import { GREEDY } from '../src/engine/types.js';
import { COMPLETION_STRIDE, loadAddon, type NativeEngine, type NativeEngineOptions } from '../src/native/binding.js';

/** The first prompt brings the experts into memory, the second is short. */
const WARM_TOKENS = 512;
const PROMPT_TOKENS = 16;
const EMPTY_CALLS = 200_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string' },
    threads: { type: 'string' },
    context: { type: 'string', default: '1024' },
    tokens: { type: 'string', default: '64' },
    greedy: { type: 'boolean', default: false },
  },
});
const [modelPath] = positionals;
const tokens = Number(values.tokens);
if (modelPath === undefined || !Number.isInteger(tokens) || tokens < 2) {
  throw new Error(
    `Cannot measure: needed MODEL.moe and at least 2 --tokens, found ${positionals} and ${values.tokens}`,
  );
}

let calls = 0;

/** The addon's engine, with every call counted. */
function counted(native: NativeEngine): NativeEngine {
  const wrapper: Record<string, unknown> = { isa: native.isa, threads: native.threads };
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(native))) {
    const method = (native as unknown as Record<string, unknown>)[name];
    if (name === 'constructor' || typeof method !== 'function') continue;
    wrapper[name] = (...given: unknown[]) => {
      ++calls;
      return method.apply(native, given);
    };
  }
  return wrapper as unknown as NativeEngine;
}

const { port1, port2 } = new MessageChannel();
// The client has a thread of its own, as in a server; this one only has to be there to receive.
const client = new Worker("require('node:worker_threads').workerData.on('message', () => {})", {
  eval: true,
  workerData: port2,
  transferList: [port2],
});
const tell = new EventEmitter();
const line: EngineLine = {
  postMessage: (message, transfer) => {
    watch(message);
    if (transfer === undefined) port1.postMessage(message);
    else port1.postMessage(message, [...transfer]);
  },
  on: (event, listener) => tell.on(event, listener),
  off: (event, listener) => tell.off(event, listener),
};
const { budget, threads, context } = values;
const config = engineConfig(modelPath, {
  ...(budget === undefined ? {} : { budget }),
  ...(threads === undefined ? {} : { threads }),
  context,
});
const output = new StepOutput(line);
const create = (options: NativeEngineOptions) => counted(loadAddon().createEngine(options));
const { engine, native, info } = await openEngine({ ...config, routingTrace: null }, output, create);

const state = () => ({ ...engine.metrics(), at: performance.now(), calls });
let first: ReturnType<typeof state> | null = null;
let last: ReturnType<typeof state> | null = null;
let emptyCallUs = 0;
let nextId = 1;
let answered = 0;
const send = (message: ToEngine) => setImmediate(() => tell.emit('message', message));
const ask = (promptTokens: number, maxTokens: number) => {
  const promptIds = Array.from({ length: promptTokens }, (_, i) => (7919 * (i + nextId)) % info.vocabSize);
  const sampling = values.greedy ? GREEDY : { ...GREEDY, temperature: 0.7, topK: 40, topP: 0.95, minP: 0.05, seed: 1 };
  send({ kind: 'generate', id: nextId++, request: { promptIds, maxTokens, stopTokenIds: [], sampling } });
};
function watch(message: FromEngine): void {
  if (message.kind === 'failed' || message.kind === 'broken')
    throw new Error(`The engine failed: ${message.error.message}`);
  if (message.kind !== 'events') return;
  for (const [id, event] of message.events) {
    // Answer 1 warms up; 2 is measured.
    // To read the counters takes time itself: at the first and the last token only.
    if (id === 2 && event.kind === 'token') {
      ++answered;
      if (answered === 1) first = state();
      if (answered === tokens) last = state();
    }
    if (event.kind !== 'finish') continue;
    if (id === 1) {
      ask(PROMPT_TOKENS, tokens);
    } else {
      emptyCallUs = timeEmptyCalls();
      send({ kind: 'close' });
    }
  }
}

ask(WARM_TOKENS, 8);
await serveEngine(line, engine, native, output);
await client.terminate();
port1.close();

function timeEmptyCalls(): number {
  const completions = new Int32Array(64 * COMPLETION_STRIDE);
  const from = performance.now();
  for (let i = 0; i < EMPTY_CALLS; ++i) native.takeCompletions(completions);
  return (1000 * (performance.now() - from)) / EMPTY_CALLS;
}

if (first === null || last === null) throw new Error('The engine answered nothing');
const [from, to]: readonly ReturnType<typeof state>[] = [first, last];
const steps = to!.steps - from!.steps;
const stepMs = (to!.at - from!.at) / steps;
const nativeMs = (to!.decodeMs - to!.decodeScriptMs - (from!.decodeMs - from!.decodeScriptMs)) / steps;
const callsPerStep = (to!.calls - from!.calls) / steps;
const betweenMs = stepMs - (to!.decodeMs - from!.decodeMs) / steps;
const borderMs = (callsPerStep * emptyCallUs) / 1000;
const scriptMs = stepMs - nativeMs;
console.log(
  JSON.stringify({
    model: info.modelName,
    isa: info.isa,
    threads: info.threads,
    steps,
    stepMs: Number(stepMs.toFixed(3)),
    scriptMs: Number(scriptMs.toFixed(3)),
    betweenStepsMs: Number(betweenMs.toFixed(3)),
    callsPerStep: Number(callsPerStep.toFixed(1)),
    emptyCallUs: Number(emptyCallUs.toFixed(3)),
    borderMs: Number(borderMs.toFixed(3)),
    share: Number(((scriptMs + borderMs) / stepMs).toFixed(5)),
  }),
);
