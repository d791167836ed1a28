/** How much memory may this process take, and how much does it take? From /proc and the control groups around it. */
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { totalmem } from 'node:os';

/** Text of a file, or null when it cannot be read: the world, as an argument for tests. */
export type ReadText = (path: string) => string | null;

export interface Machine {
  /** Bytes this process may take in all: what is free now plus what it has. */
  readonly availableBytes: number;
  /** VmRSS and VmHWM of this process. */
  readonly rssBytes: number;
  readonly peakRssBytes: number;
}

const MIB = 1 << 20;
/** What the kernel holds for a process in its group beside its pages: page tables, sockets, rings. */
const KERNEL_BYTES = 32 * MIB;
/** Control groups of version 1 write "no limit" as a number near 2^63. */
const UNLIMITED = 2 ** 60;

const readFromDisk: ReadText = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // not there on this kernel: no limit from it
  }
};

/**
 * Reads files of /proc and of control groups again and again: each stays open, which takes half the time. Larger ones than
 * 64 KiB are cut.
 */
export function keptFiles(): ReadText {
  const open = new Map<string, number>();
  const text = Buffer.alloc(1 << 16);
  const forget = (path: string): void => {
    const file = open.get(path);
    open.delete(path);
    if (file !== undefined) closeSync(file);
  };
  return (path) => {
    // Asked first: an error thrown for each file that other kernels have would take longer than all that is read.
    if (!open.has(path) && !existsSync(path)) return null;
    try {
      const file = open.get(path) ?? openSync(path, 'r');
      open.set(path, file);
      return text.toString('latin1', 0, readSync(file, text, 0, text.length, 0));
    } catch {
      // Its group is gone: looked for anew next time.
      forget(path);
      return null;
    }
  };
}

export function readMachine(read: ReadText = readFromDisk): Machine {
  const { rssBytes, peakRssBytes } = readRss(read);
  const free = kilobytes(read('/proc/meminfo'), 'MemAvailable') ?? 0;
  let availableBytes = free + rssBytes;
  for (const group of memoryGroups(read)) {
    // Page cache is given back on demand, so it does not count as taken.
    const takenByOthers = Math.max(0, group.usage - group.cache - rssBytes);
    availableBytes = Math.min(availableBytes, Math.max(0, group.limit - takenByOthers));
  }
  return { availableBytes, rssBytes, peakRssBytes };
}

/** What the memory watch goes by (src/engine/memory-watch.ts). */
export function readPressure(read: ReadText = readFromDisk): {
  readonly limitBytes: number;
  readonly availableBytes: number;
  readonly totalBytes: number;
  readonly stalledShare: number;
  readonly majorFaults: number;
} {
  const { rssBytes } = readRss(read);
  const meminfo = read('/proc/meminfo');
  const totalBytes = kilobytes(meminfo, 'MemTotal') ?? totalmem();
  let limitBytes = Number.POSITIVE_INFINITY;
  for (const { limit, usage, cache } of memoryGroups(read)) {
    limitBytes = Math.min(limitBytes, limit - Math.max(0, usage - cache - rssBytes - KERNEL_BYTES));
  }
  const stalled = /^full avg10=([\d.]+)/m.exec(read('/proc/pressure/memory') ?? '')?.[1];
  // After the name, which may hold anything: state is field 3, major faults field 12.
  const fields = (read('/proc/self/stat') ?? '').replace(/^.*\) /s, '').split(' ');
  return {
    limitBytes,
    availableBytes: kilobytes(meminfo, 'MemAvailable') ?? totalBytes,
    totalBytes,
    stalledShare: Number(stalled ?? 0) / 100,
    majorFaults: Number(fields[9] ?? 0),
  };
}

/** Memory of the machine, or the tightest limit of a control group around this process: what "60%" is a share of. */
export function memoryLimitBytes(read: ReadText = readFromDisk): number {
  const total = kilobytes(read('/proc/meminfo'), 'MemTotal') ?? totalmem();
  return Math.min(total, ...memoryGroups(read).map((group) => group.limit));
}

export function readRss(read: ReadText = readFromDisk): { rssBytes: number; peakRssBytes: number } {
  const status = read('/proc/self/status');
  const rssBytes = kilobytes(status, 'VmRSS') ?? process.memoryUsage.rss();
  return { rssBytes, peakRssBytes: kilobytes(status, 'VmHWM') ?? rssBytes };
}

/**
 * The budget when none is given: what may be taken less a tenth, and less 256 MiB at least unless that is over a
 * quarter. An engine that takes the last tenth of a machine's memory slows down manifold; one that leaves it loses little.
 */
export function defaultBudget(availableBytes: number): number {
  const margin = Math.max(availableBytes / 10, Math.min(256 * MIB, availableBytes / 4));
  return Math.floor(availableBytes - margin);
}

interface MemoryGroup {
  readonly limit: number;
  readonly usage: number;
  readonly cache: number;
}

/** Control groups with a memory limit, from this process's own up to the root, of both versions. */
function memoryGroups(read: ReadText): MemoryGroup[] {
  const groups: MemoryGroup[] = [];
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = line.split(':');
    if (controllers === undefined || path === undefined) continue;
    const isV2 = controllers === '';
    if (!isV2 && !controllers.split(',').includes('memory')) continue;
    const root = isV2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory';
    const names = isV2
      ? { limit: 'memory.max', soft: 'memory.high', usage: 'memory.current', cache: 'file' }
      : {
          limit: 'memory.limit_in_bytes',
          soft: 'memory.soft_limit_in_bytes',
          usage: 'memory.usage_in_bytes',
          cache: 'total_cache',
        };
    const parts = path.split('/').filter((part) => part !== '' && part !== '..');
    for (let depth = parts.length; depth >= 0; --depth) {
      const directory = [root, ...parts.slice(0, depth)].join('/');
      const bytesOf = (file: string): number => {
        const bytes = Number((read(`${directory}/${file}`) ?? 'none').trim());
        return bytes > 0 && bytes < UNLIMITED ? bytes : UNLIMITED;
      };
      const limit = Math.min(bytesOf(names.limit), bytesOf(names.soft));
      if (limit >= UNLIMITED) continue;
      const usage = Number((read(`${directory}/${names.usage}`) ?? '0').trim());
      const cache = new RegExp(`^${names.cache} (\\d+)$`, 'm').exec(read(`${directory}/memory.stat`) ?? '')?.[1];
      groups.push({ limit, usage: Number.isFinite(usage) ? usage : 0, cache: Number(cache ?? 0) });
    }
  }
  return groups;
}

function kilobytes(text: string | null, field: string): number | null {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text ?? '')?.[1];
  return found === undefined ? null : Number(found) * 1024;
}
