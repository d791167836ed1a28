import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * The JavaScript file of a worker that stands beside the calling module. Run from source (under the test runner)
 * the module is src/x/y.ts, and a thread of Node.js needs the compiled dist/x/ file instead.
 *
 * @param base the caller's import.meta.url.
 * @param relative path of the worker from the caller, with its .js ending.
 */
export function workerFile(base: string, relative: string): string {
  const beside = fileURLToPath(new URL(relative, base));
  if (existsSync(beside)) return beside;
  return fileURLToPath(new URL(relative, base.replace('/src/', '/dist/')));
}
