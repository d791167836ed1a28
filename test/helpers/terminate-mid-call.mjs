// Ends threads that are busy in the addon, ADDON being its path: what the end of a process does to the engine thread.
import { createRequire } from 'node:module';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const THREADS = 40;

if (isMainThread) {
  for (let i = 0; i < THREADS; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: process.argv[2] });
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
  }
  process.stdout.write('all ended\n');
} else {
  const addon = createRequire(import.meta.url)(workerData);
  parentPort.postMessage('busy');
  for (;;) {
    addon.cpuFeatures();
    try {
      addon.crc32c(-1);
    } catch {
      // INVALID_ARGUMENT, made by native code: the call under way when the thread ends may be one of these.
    }
  }
}
