import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { defaultBudget, keptFiles, memoryLimitBytes, readMachine, readPressure, readRss } from '../src/machine.js';

const MIB = 1 << 20;
const STATUS = 'Name:\tnode\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n';
const MEMINFO = 'MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n';

const machine = (files: Readonly<Record<string, string>>) =>
  readMachine((path) => ({ '/proc/self/status': STATUS, '/proc/meminfo': MEMINFO, ...files })[path] ?? null);

describe('memoryLimitBytes()', () => {
  const limit = (files: Readonly<Record<string, string>>) =>
    memoryLimitBytes((path) => ({ '/proc/meminfo': MEMINFO, ...files })[path] ?? null);

  it('is the memory of the machine when no group limits the process', () => {
    expect(limit({})).toBe(8192 * MIB);
  });

  it('is the tightest limit of all ancestors', () => {
    const files = {
      '/proc/self/cgroup': '0::/outer/inner\n',
      '/sys/fs/cgroup/outer/inner/memory.max': `${3000 * MIB}\n`,
      '/sys/fs/cgroup/outer/memory.max': `${1000 * MIB}\n`,
    };
    expect(limit(files)).toBe(1000 * MIB);
  });
});

describe('readMachine()', () => {
  it('adds what the process has to what is free when no group limits it', () => {
    expect(machine({})).toEqual({
      availableBytes: (4096 + 100) * MIB,
      rssBytes: 100 * MIB,
      peakRssBytes: 200 * MIB,
    });
  });

  it('takes the tightest limit of all ancestors of a version 2 group, page cache not counted', () => {
    const files = {
      '/proc/self/cgroup': '0::/outer/inner\n',
      '/sys/fs/cgroup/outer/inner/memory.max': 'max\n',
      '/sys/fs/cgroup/outer/memory.max': `${1000 * MIB}\n`,
      '/sys/fs/cgroup/outer/memory.current': `${700 * MIB}\n`,
      '/sys/fs/cgroup/outer/memory.stat': `anon 1\nfile ${400 * MIB}\n`,
    };
    // 700 used, of which 400 are cache and 100 this process's own.
    expect(machine(files).availableBytes).toBe(800 * MIB);
  });

  it('reads version 1 groups and their way of saying unlimited', () => {
    const group = '/sys/fs/cgroup/memory/box';
    const files = {
      '/proc/self/cgroup': '9:name=systemd:/\n4:cpu,memory:/box\n0::/\n',
      [`${group}/memory.limit_in_bytes`]: `${2048 * MIB}\n`,
      [`${group}/memory.usage_in_bytes`]: `${150 * MIB}\n`,
      [`${group}/memory.stat`]: `cache 1\ntotal_cache ${10 * MIB}\n`,
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    };
    expect(machine(files).availableBytes).toBe((2048 - 40) * MIB);
  });
});

describe('defaultBudget()', () => {
  it.each([
    { available: 24_000 * MIB, budget: 21_600 * MIB },
    { available: 2048 * MIB, budget: 1792 * MIB },
    { available: 400 * MIB, budget: 300 * MIB },
  ])('leaves a margin of $available bytes', ({ available, budget }) => {
    expect(defaultBudget(available)).toBe(budget);
  });
});

describe('keptFiles()', () => {
  it('gives what a file holds now, each time, and null where there is none', () => {
    const directory = mkdtempSync(join(tmpdir(), 'moestro-kept-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const path = join(directory, 'memory.max');
    const read = keptFiles();
    expect(read(path)).toBeNull();
    writeFileSync(path, '1000\n');
    expect(read(path)).toBe('1000\n');
    writeFileSync(path, '7\n');
    expect(read(path)).toBe('7\n');
  });

  it.runIf(process.platform === 'linux')('reads what the plain reader reads of this process and machine', () => {
    const read = keptFiles();
    for (let i = 0; i < 3; ++i) {
      const before = readRss();
      const kept = readRss(read);
      expect(kept.peakRssBytes).toBeGreaterThanOrEqual(before.peakRssBytes);
      expect(kept.rssBytes).toBeGreaterThan(0);
    }
    const plain = readPressure();
    expect(readPressure(read).totalBytes).toBe(plain.totalBytes);
    expect(readPressure(read).majorFaults).toBeGreaterThanOrEqual(plain.majorFaults);
  });
});
