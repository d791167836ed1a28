// Do the NEON kernels give the bits of scalar, and scalar on ARM those of scalar here? Cross-compiles the checks of the
// kernels and runs them under qemu: on a CPU with the int8 dot product, and on one without, which must take scalar.
// On an ARM machine the checks run as they are (npm test); this is for the others.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildCheck, has, runCheck } from './native-checks.mjs';

const CROSS = process.env.MOESTRO_ARM_CXX ?? 'aarch64-linux-gnu-g++';
const QEMU = process.env.MOESTRO_QEMU ?? 'qemu-aarch64';
const SEEDS = ['1', '20'];
const CASES = '1000';

const missing = [CROSS, QEMU, 'g++'].filter((tool) => !has(tool));
if (missing.length > 0) {
  console.error(
    `Cannot check the NEON kernels: found no ${missing.join(', no ')}; on Debian and Ubuntu: ` +
      'apt-get install -y --no-install-recommends g++ g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user',
  );
  process.exit(2);
}

/** The line that names the digest of the scalar results, or "none". */
const digestOf = (text) => /^digest.*$/m.exec(text)?.[0] ?? 'none';

const scratch = mkdtempSync(join(tmpdir(), 'moestro-neon-'));
const failures = [];
try {
  const here = await buildCheck('kernels', 'g++', ['-O2'], join(scratch, 'here'));
  const arm = await buildCheck('kernels', CROSS, ['-O2', '-static'], join(scratch, 'arm'));
  for (const seed of SEEDS) {
    console.log(`this machine, seed ${seed}`);
    const reference = runCheck(here, [seed, CASES]);
    if (!reference.ok) failures.push(`the kernels of this machine differ with seed ${seed}`);
    for (const [cpu, sets] of [
      ['max', 'neon scalar'],
      ['cortex-a57', 'scalar'],
    ]) {
      console.log(`${QEMU} -cpu ${cpu}, seed ${seed}`);
      const result = runCheck(QEMU, ['-cpu', cpu, arm, seed, CASES]);
      if (!result.ok) failures.push(`kernels differ on ${cpu} with seed ${seed}`);
      if (!result.text.includes(`all kernels agree: ${sets}\n`)) failures.push(`${cpu} does not take "${sets}"`);
      if (digestOf(result.text) !== digestOf(reference.text) || digestOf(result.text) === 'none') {
        failures.push(`scalar on ${cpu} gives other bits than scalar here with seed ${seed}`);
      }
    }
  }
} catch (error) {
  failures.push(error.message);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
for (const failure of failures) console.error(`NEON: ${failure}`);
if (failures.length === 0) console.log('NEON: every kernel gives the bits of scalar, here and on ARM');
process.exit(failures.length === 0 ? 0 : 1);
