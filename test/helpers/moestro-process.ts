/** The built command line as a process. Needs the build that `npm test` makes. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. `stdout` may be a file descriptor instead of what is returned. */
export function moestro(args: readonly string[], stdout: 'pipe' | number = 'pipe'): Promise<Outcome> {
  const options: SpawnOptions = { stdio: ['ignore', stdout, 'pipe'] };
  const child = spawn(process.execPath, [MAIN, ...args], options);
  let out = '';
  let err = '';
  child.stdout?.on('data', (data) => (out += data));
  child.stderr?.on('data', (data) => (err += data));
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stdout: out, stderr: err })));
}
