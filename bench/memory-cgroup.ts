/** A memory cgroup of an exact size, version 1 or 2, for a command and its page cache. Needs root, or a delegated group. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface MemoryCgroup {
  readonly version: 1 | 2;
  /** Write a process id here to move it in. */
  readonly procsPath: string;
  usage(): CgroupUsage;
  /** The group must be empty of processes. */
  remove(): void;
}

export interface CgroupUsage {
  /** Most bytes charged at once, page cache included. */
  readonly peakBytes: number;
  /** Times the limit was run into: mostly page cache that had to be given back, so not bad in itself. */
  readonly limitHits: number;
  readonly oomKills: number;
}

const V1_ROOT = '/sys/fs/cgroup/memory';
const V2_ROOT = '/sys/fs/cgroup';

/** Makes a group that holds `limitBytes` at most and never swaps. Throws errors of the file system. */
export function createMemoryCgroup(name: string, limitBytes: number): MemoryCgroup {
  return existsSync(join(V1_ROOT, 'memory.limit_in_bytes')) ? createV1(name, limitBytes) : createV2(name, limitBytes);
}

function createV1(name: string, limitBytes: number): MemoryCgroup {
  const path = join(V1_ROOT, name);
  mkdirSync(path);
  const set = (file: string, value: number) => writeFileSync(join(path, file), String(value));
  set('memory.limit_in_bytes', limitBytes);
  // Not there where the kernel does not account for swap.
  if (existsSync(join(path, 'memory.memsw.limit_in_bytes'))) set('memory.memsw.limit_in_bytes', limitBytes);
  const read = (file: string) => readFileSync(join(path, file), 'utf8');
  return {
    version: 1,
    procsPath: join(path, 'cgroup.procs'),
    usage: () => ({
      peakBytes: Number(read('memory.max_usage_in_bytes')),
      limitHits: Number(read('memory.failcnt')),
      oomKills: keyed(read('memory.oom_control'), 'oom_kill'),
    }),
    remove: () => rmdirSync(path),
  };
}

function createV2(name: string, limitBytes: number): MemoryCgroup {
  writeFileSync(join(V2_ROOT, 'cgroup.subtree_control'), '+memory');
  const path = join(V2_ROOT, name);
  mkdirSync(path);
  writeFileSync(join(path, 'memory.max'), String(limitBytes));
  if (existsSync(join(path, 'memory.swap.max'))) writeFileSync(join(path, 'memory.swap.max'), '0');
  const read = (file: string) => readFileSync(join(path, file), 'utf8');
  return {
    version: 2,
    procsPath: join(path, 'cgroup.procs'),
    usage: () => ({
      // Kernels before 5.19 have no peak.
      peakBytes: existsSync(join(path, 'memory.peak')) ? Number(read('memory.peak')) : Number.NaN,
      limitHits: keyed(read('memory.events'), 'max'),
      oomKills: keyed(read('memory.events'), 'oom_kill'),
    }),
    remove: () => rmdirSync(path),
  };
}

/** The number after `key` in lines of "key number"; 0 when it is not there. */
export function keyed(text: string, key: string): number {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${key} `));
  return line === undefined ? 0 : Number(line.slice(key.length + 1));
}
