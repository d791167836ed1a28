/** What the disk gives at this moment, and what the page cache holds of a file. */
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';

const BLOCK = 4 << 20;
/** Four readers of 64 MiB: some 0.2 s at 1 GB/s, past what a drive buffers. */
const PROBE_READERS = 4;
const PROBE_BLOCKS = 16;
/**
 * Memory on huge pages, as the arena is: into 4 KiB pages a virtual disk copies at a third of the rate (fio, records of
 * 3.3 MB: 1.4 against 5 GB/s). glibc from 2.35 on understands it, others go without.
 */
const HUGE_PAGES = { ...process.env, GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' };

/**
 * GB/s of direct reads of 4 MiB, several at once, from random places of a file.
 *
 * @param random numbers in [0, 1).
 */
export async function probeDisk(path: string, random: () => number = Math.random): Promise<number> {
  const blocks = Math.floor(statSync(path).size / BLOCK);
  const each = Math.min(PROBE_BLOCKS, Math.floor(blocks / PROBE_READERS));
  if (each < 1) throw new Error(`"${path}" is too small to probe the disk with: needed ${PROBE_READERS * 4} MiB`);
  const start = performance.now();
  await Promise.all(
    Array.from({ length: PROBE_READERS }, () => {
      const skip = Math.floor(random() * (blocks - each + 1));
      return finished('dd', [`if=${path}`, 'of=/dev/null', 'bs=4M', `count=${each}`, `skip=${skip}`, 'iflag=direct']);
    }),
  );
  return (PROBE_READERS * each * BLOCK) / 1e6 / (performance.now() - start);
}

async function finished(command: string, args: readonly string[]): Promise<void> {
  const child = spawn(command, args, { stdio: 'ignore', env: HUGE_PAGES });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with status ${code}`);
}

/** Bytes of a file that the page cache holds, asked of `fincore` (util-linux). */
export function cachedBytes(path: string): number {
  return Number(execFileSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', path], { encoding: 'utf8' }));
}

/** Bytes read so far from the block device that holds a file; undefined where it is on none. */
export function deviceReadBytes(path: string): number | undefined {
  const { dev } = statSync(path);
  // The packing of dev_t that glibc uses.
  const major = (dev >> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
  try {
    const fields = readFileSync(`/sys/dev/block/${major}:${minor}/stat`, 'utf8').trim().split(/\s+/);
    return Number(fields[2]) * 512;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
