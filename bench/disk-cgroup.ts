/** A slower disk: a control group in which reads of one device come at a given rate at most. Needs root. */
import { existsSync, mkdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const V1_ROOT = '/sys/fs/cgroup/blkio';
const V2_ROOT = '/sys/fs/cgroup';

export interface DiskCgroup {
  /** The process is back in the root group, and this one is gone. */
  remove(): void;
}

/**
 * Moves this process into a group that reads the device of `path` at `bytesPerSecond` at most, page cache not counted.
 * Throws errors of the file system.
 */
export function throttleReads(path: string, bytesPerSecond: number): DiskCgroup {
  const { dev } = statSync(path);
  // The packing of dev_t that glibc uses.
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  const isV1 = existsSync(V1_ROOT);
  const root = isV1 ? V1_ROOT : V2_ROOT;
  const group = join(root, `moestro-disk-${process.pid}`);
  if (!isV1) writeFileSync(join(root, 'cgroup.subtree_control'), '+io');
  mkdirSync(group);
  if (isV1) writeFileSync(join(group, 'blkio.throttle.read_bps_device'), `${device} ${bytesPerSecond}`);
  else writeFileSync(join(group, 'io.max'), `${device} rbps=${bytesPerSecond}`);
  writeFileSync(join(group, 'cgroup.procs'), String(process.pid));
  return {
    remove: () => {
      writeFileSync(join(root, 'cgroup.procs'), String(process.pid));
      rmdirSync(group);
    },
  };
}
