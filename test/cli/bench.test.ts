/** `moestro bench` as a process. Needs the build that `npm test` makes. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import type { BenchResult } from '../../src/eval/bench.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const SHORT = ['--budget', '1GiB', '--prompt-tokens', '2', '--new-tokens', '2', '--repeat', '1', '--json'];

describe('moestro bench', () => {
  it.each([
    { flags: [], planned: 64 },
    { flags: ['--max-resident-experts', '64'], planned: 4 },
    { flags: ['--max-sequences', '2'], planned: 2 },
    { flags: ['--streams', '3'], planned: 3 },
    { flags: ['--streams', '3', '--max-sequences', '2'], planned: 3 },
  ])('divides its memory for $planned answers with $flags', async ({ flags, planned }) => {
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, 'bench', BUNDLED_MODEL, ...SHORT, ...flags]);
    expect((JSON.parse(stdout) as BenchResult).maxSequences).toBe(planned);
  });
});
