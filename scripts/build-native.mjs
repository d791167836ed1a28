// Builds the addon: cmake-js where cmake is installed, node-gyp (which comes with npm) where it is not.
// cmake-js downloads nothing: it takes the headers of the package node-api-headers (package.json says `binary`). node-gyp
// takes those that stand beside the node that runs, as in Node's own archives and in nvm, and downloads them elsewhere.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const jobs = String(Math.max(1, availableParallelism()));

/** Runs a command in the project's folder with its output shown; true when it exits with 0. */
function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status === 0;
}

/** True when `command --version` runs. */
function has(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

const cmakeJs = () => {
  const entry = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
  return run(process.execPath, [entry, 'compile', '-O', 'build/cmake', '-p', jobs]);
};
const nodeGyp = () => {
  const nodeRoot = join(dirname(process.execPath), '..');
  const hasHeaders = existsSync(join(nodeRoot, 'include', 'node', 'common.gypi'));
  const isToldWhere = process.env.npm_config_nodedir !== undefined;
  const args = ['rebuild', '-j', jobs, ...(hasHeaders && !isToldWhere ? [`--nodedir=${nodeRoot}`] : [])];
  const npmBin = process.env.npm_config_node_gyp;
  return npmBin ? run(process.execPath, [npmBin, ...args]) : run('npx', ['--no-install', 'node-gyp', ...args]);
};

const wanted = process.env.MOESTRO_BUILDER ?? (has('cmake') ? 'cmake' : 'gyp');
const built = wanted === 'cmake' ? cmakeJs() : nodeGyp();
if (!built) {
  console.error(
    `Cannot build the native addon with ${wanted === 'cmake' ? 'cmake-js' : 'node-gyp'}: see the compiler's message above; ` +
      'needed are a C++20 compiler (g++ 11 or clang 14 or newer) and cmake 3.20, or python3 with make',
  );
  process.exit(1);
}
