// Builds the kernel benchmark (native/kernels/bench) beside the addon, in build/bench-kernels, and runs it with the
// arguments given: `npm run bench:kernels -- --help`. Needs cmake. What the build says goes to the error stream, so that
// the output is the benchmark's alone.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const source = join(root, 'native', 'kernels', 'bench');
const build = join(root, 'build', 'bench-kernels');

/** Runs a step of the build; its output is shown only where it fails. */
function step(command, args) {
  const done = spawnSync(command, args, { encoding: 'utf8' });
  if (done.status === 0) return;
  console.error(done.stdout ?? '', done.stderr ?? '', done.error?.message ?? '');
  console.error(
    `Cannot build the kernel benchmark: "${command} ${args.join(' ')}" failed; needed are cmake 3.20 and a C++20 compiler`,
  );
  process.exit(1);
}

step('cmake', ['-S', source, '-B', build]);
step('cmake', ['--build', build, '-j', String(availableParallelism())]);
const run = spawnSync(join(build, 'bench-kernels'), process.argv.slice(2), { stdio: 'inherit' });
process.exit(run.status ?? 1);
