/** Writing files that survive a crash, and telling people what stood in the way. */
import { type FileHandle, open, rename, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { formatBytes } from '../bytes.js';
import { MoestroError, toMoestroError } from '../errors.js';

/** The few calls whose failure is the world's: tests hand in a disk that is full or fails. */
export interface Disk {
  /** Bytes that may still be written below the directory. */
  freeBytes(directory: string): Promise<number>;
  /** Writes all of `bytes` at `position`. */
  write(file: FileHandle, bytes: Uint8Array, position: number): Promise<void>;
}

export const realDisk: Disk = {
  async freeBytes(directory) {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  },
  async write(file, bytes, position) {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  },
};

/** The error for a failed write below `directory`: DISK_FULL with what is free and needed, else IO_ERROR. */
export async function writeError(
  disk: Disk,
  action: string,
  directory: string,
  neededBytes: number,
  cause: unknown,
): Promise<MoestroError> {
  if (cause instanceof MoestroError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  // No system call failed: a mistake of ours, which must not pass for the world's.
  if (typeof code !== 'string') return toMoestroError(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const found = await disk.freeBytes(directory).catch(() => 0);
    return diskFull(action, directory, found, neededBytes, cause);
  }
  const details = { directory, errno: code };
  if (code === 'EROFS')
    return new MoestroError('IO_ERROR', `${action}: "${directory}" is on a read-only file system`, details, cause);
  if (code === 'EACCES' || code === 'EPERM')
    return new MoestroError('IO_ERROR', `${action}: no permission to write in "${directory}"`, details, cause);
  return new MoestroError('IO_ERROR', `${action}: ${message}`, details, cause);
}

export function diskFull(action: string, directory: string, found: number, needed: number, cause?: unknown) {
  return new MoestroError(
    'DISK_FULL',
    `${action}: "${directory}" has ${formatBytes(found)} free, needed ${formatBytes(needed)} more`,
    { directory, found, needed },
    cause,
  );
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces a small file as a whole: after a crash it is the old one or the new one. */
export async function replaceFile(disk: Disk, path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w');
  try {
    await disk.write(file, Buffer.from(text), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncDirectory(dirname(path));
}
