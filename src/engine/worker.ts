/** The engine thread: opens the model named in workerData, says so, and serves until it is told to close. */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import type { TokenBytes } from '../constrain/program.js';
import { errorToWire } from './messages.js';
import { createFromAddon, openEngine } from './open-engine.js';
import type { EngineLine } from './serve-engine.js';
import { StepOutput, serveEngine } from './serve-engine.js';
import type { EngineConfig } from './types.js';

assert(parentPort !== null, 'src/engine/worker.ts runs as a worker thread only');
const port = parentPort;
const line: EngineLine = {
  postMessage: (message, transfer) =>
    transfer === undefined ? port.postMessage(message) : port.postMessage(message, [...transfer]),
  on: (event, listener) => port.on(event, listener),
  off: (event, listener) => port.off(event, listener),
};
try {
  const output = new StepOutput(line);
  const { config, tokenBytes } = workerData as { readonly config: EngineConfig; readonly tokenBytes?: TokenBytes };
  const { engine, native, info } = await openEngine(config, output, createFromAddon, tokenBytes);
  line.postMessage({ kind: 'ready', info });
  await serveEngine(line, engine, native, output);
} catch (error) {
  line.postMessage({ kind: 'broken', error: errorToWire(error) });
}
