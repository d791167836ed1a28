// Builds the native checks as programs, outside the addon: for sanitizers, and for processors that are emulated.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

/** What each program is made of: its main file, and the folders of native/sources.txt that it needs. */
const PROGRAMS = {
  kernels: { main: 'native/kernels/check_main.cc', from: ['native/kernels/', 'native/base/cpu.cc'] },
  base: { main: 'native/io/check_main.cc', from: ['native/base/', 'native/memory/', 'native/io/'] },
};

/** True when `command --version` runs. */
export const has = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** Runs a command with its output shown and resolves to its exit status. */
const run = (command, args) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit' });
    child.on('error', () => resolve(127));
    child.on('close', (code) => resolve(code ?? 1));
  });

/**
 * Compiles one of PROGRAMS with `compiler` and `flags`, as many files at a time as there are cores.
 *
 * @returns the program's path, `folder`/check_`program`.
 * @throws {Error} naming the file that does not compile.
 */
export async function buildCheck(program, compiler, flags, folder) {
  const { main, from } = PROGRAMS[program];
  const listed = readFileSync(join(ROOT, 'native/sources.txt'), 'utf8').split(/\r?\n/);
  const sources = [main, ...listed.filter((line) => from.some((prefix) => line.startsWith(prefix)))];
  mkdirSync(folder, { recursive: true });
  const common = ['-std=c++20', '-ffp-contract=off', '-fno-math-errno', '-I.', ...flags];
  const objects = sources.map((source) => join(folder, `${program}_${source.replaceAll('/', '_')}.o`));
  let next = 0;
  const compileRest = async () => {
    while (next < sources.length) {
      const i = next++;
      const status = await run(compiler, [...common, '-c', sources[i], '-o', objects[i]]);
      if (status !== 0) {
        next = sources.length;
        throw new Error(`Cannot compile ${sources[i]} with ${compiler}: see its message above`);
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, compileRest));
  const path = join(folder, `check_${program}`);
  if ((await run(compiler, [...flags, ...objects, '-pthread', '-o', path])) !== 0) {
    throw new Error(`Cannot link ${path} with ${compiler}: see its message above`);
  }
  return path;
}

/** Runs a program; returns its status and what it wrote, which is shown too. */
export function runCheck(command, args, environment = {}) {
  const { status, signal, stdout, error } = spawnSync(command, args, {
    cwd: ROOT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  process.stdout.write(stdout ?? '');
  if (error) console.error(`Cannot run ${command}: ${error.message}`);
  if (signal) console.error(`${command} ended by ${signal}`);
  return { ok: status === 0, text: stdout ?? '' };
}
