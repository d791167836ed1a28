/** `moestro replay` as a process. Needs the build that `npm test` makes. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { openMoe } from '../../src/model/read-moe.js';
import type { MachineModel, ReplayRow } from '../../src/replay/types.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

describe('moestro replay', () => {
  const directory = mkdtempSync(join(tmpdir(), 'moestro-replay-'));
  const trace = join(directory, 'walk.u8');
  const replay = (...args: string[]) =>
    spawnSync(process.execPath, [MAIN, 'replay', trace, '--layers', '2', '--top-k', '1', '--experts', '16', ...args], {
      encoding: 'utf8',
    });
  const rowsOf = (stdout: string) => JSON.parse(stdout) as { rows: ReplayRow[]; machine: MachineModel };

  beforeAll(() => {
    writeFileSync(
      trace,
      Uint8Array.from({ length: 400 }, (_, at) => (3 * (at >> 1)) % 16),
    );
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('replays reads on a guess beside the plans of the engine, and not beside caches', () => {
    const { stdout, status } = replay(
      '--policy',
      'lru,default',
      '--residency',
      '25',
      '--prefetch',
      'off,statistics',
      '--json',
    );
    expect(status).toBe(0);
    const { rows } = rowsOf(stdout);
    expect(rows.map((row) => [row.policy, row.prefetch])).toEqual([
      ['lru', 'off'],
      ['default', 'off'],
      ['default', 'statistics'],
    ]);
    expect(rows[2]!.usefulBytes + rows[2]!.lateBytes).toBeGreaterThan(0);
    expect(rows[1]!.usefulBytes + rows[1]!.lateBytes + rows[1]!.wastedBytes).toBe(0);
    const table = replay('--policy', 'default', '--residency', '25', '--prefetch', 'statistics').stdout.split('\n');
    expect(table[0]).toMatch(/useful MB {2}late MB {2}wasted MB {2}off$/);
    expect(table[1]).toMatch(/^walk\.u8 {2}default \+ statistics /);
  });

  it('refuses guesses of a router that no recording holds, and says what it would need', () => {
    const { stderr, status } = replay('--prefetch', 'router');
    expect(status).toBe(2);
    expect(stderr).toContain('Cannot replay "walk.u8" with --prefetch router: it holds which experts were chosen');
    expect(stderr).toContain('needed a .moetrace that "--record-trace" wrote');
  });

  it('says below the table where "auto" made no guesses and why', () => {
    const auto = (...args: string[]) => replay('--policy', 'default', '--prefetch', 'auto', ...args).stdout;
    // Each expert is wanted 16 tokens after its last turn, and the disk has no time before.
    const busy = auto('--residency', '25', '--layer-ms', '0', '--expert-ms', '0');
    expect(busy.split('\n')[1]).toMatch(/^walk\.u8 {2}default \+ auto \(statistics\) .* \d+ %$/);
    const few = auto('--residency', '12.5');
    const why = 'there are slots for 4 experts, and needed are 5';
    expect(few.split('\n')[1]).toMatch(/ 100 %$/);
    expect(few).toContain(`\n\nwalk.u8, default + auto (statistics), 12.5 %: without guesses, as ${why}\n`);
  });

  it('measures what is not given by running a model', async () => {
    const { stdout, status } = replay('--policy', 'default', '--measure', BUNDLED_MODEL, '--layer-ms', '0.5', '--json');
    expect(status).toBe(0);
    const { machine } = rowsOf(stdout);
    const { geometry } = (await openMoe(BUNDLED_MODEL)).manifest;
    const levels = geometry.planes.map((_, plane) =>
      geometry.planes
        .slice(0, plane + 1)
        .reduce((sum, { bits }) => sum + bits * geometry.bitBytes, geometry.scaleBytes),
    );
    expect(levels).toContain(machine.expertBytes);
    expect(machine.layerMs).toBe(0.5);
    expect(machine.expertMs).toBeGreaterThan(0);
    expect(machine.diskBytesPerMs).toBeGreaterThan(0);
  });

  it('refuses a prefetch it does not know, and says what it knows', () => {
    const { stderr, status } = replay('--prefetch', 'sometimes');
    expect(status).toBe(2);
    expect(stderr).toContain('Cannot use --prefetch "sometimes": needed one of off, statistics, router, auto');
  });
});
