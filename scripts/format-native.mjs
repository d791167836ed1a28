// Formats native/ with clang-format; `--check` only lists the files that differ and fails if there are any.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const entry = createRequire(import.meta.url).resolve('clang-format/index.js');
const files = readdirSync(join(root, 'native'), { recursive: true })
  .filter((name) => /\.(cc|h)$/.test(name))
  .map((name) => join('native', name));
const args = process.argv.includes('--check') ? ['--dry-run', '-Werror'] : ['-i'];
const result = spawnSync(process.execPath, [entry, '--style=file', ...args, ...files], { cwd: root, stdio: 'inherit' });
process.exit(result.status ?? 1);
