// What takes too long for every commit: the native checks under AddressSanitizer with UBSan, the thread pool under
// ThreadSanitizer, and the NEON kernels under emulation. Each step is named and timed; any failure fails the whole.
// MOESTRO_NIGHTLY="asan,tsan" runs only the steps named.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildCheck, has, ROOT, runCheck } from './native-checks.mjs';

if (!has('g++')) {
  console.error('Cannot run the nightly checks: found no g++; on Debian and Ubuntu: apt-get install -y g++');
  process.exit(2);
}

const scratch = mkdtempSync(join(tmpdir(), 'moestro-nightly-'));
const files = join(scratch, 'files');
mkdirSync(files);
const ASAN = ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
const TSAN = ['-O1', '-g', '-fsanitize=thread'];

const STEPS = {
  // Every instruction set of this machine: the checks compare each with scalar.
  asan: async () => runCheck(await buildCheck('kernels', 'g++', ASAN, join(scratch, 'asan')), ['1', '2000']).ok,
  'asan-base': async () => runCheck(await buildCheck('base', 'g++', ASAN, join(scratch, 'asan')), [files, '1', '2']).ok,
  tsan: async () => runCheck(await buildCheck('base', 'g++', TSAN, join(scratch, 'tsan')), [files, '1', '1']).ok,
  neon: async () =>
    spawnSync(process.execPath, ['scripts/check-neon.mjs'], { cwd: ROOT, stdio: 'inherit' }).status === 0,
};

const wanted = process.env.MOESTRO_NIGHTLY?.split(',') ?? Object.keys(STEPS);
const unknown = wanted.filter((name) => !(name in STEPS));
if (unknown.length > 0) {
  console.error(`Cannot run step "${unknown.join('", "')}": needed some of ${Object.keys(STEPS).join(', ')}`);
  process.exit(2);
}

const results = [];
try {
  for (const name of wanted) {
    console.log(`== ${name}`);
    const start = performance.now();
    const ok = await STEPS[name]().catch((error) => {
      console.error(error.message);
      return false;
    });
    results.push({
      ok,
      line: `${ok ? 'ok    ' : 'FAILED'} ${name} ${((performance.now() - start) / 1000).toFixed(0)} s`,
    });
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
for (const { line } of results) console.log(line);
process.exit(results.every(({ ok }) => ok) ? 0 : 1);
