/** Reads of an untrusted model file at offsets, never past its end, with errors that name the file. */
import { type FileHandle, open } from 'node:fs/promises';
import { basename } from 'node:path';
import { MoestroError } from '../../errors.js';

export interface SourceFile {
  readonly path: string;
  readonly name: string;
  readonly size: number;
  /** For synchronous reads of a header. */
  readonly descriptor: number;
  /** Exactly `length` bytes in a buffer of the caller's own; `what` is named in errors. */
  readAt(offset: number, length: number, what: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Opens a regular file for reading. Throws SOURCE_INVALID when it is missing or not a file, IO_ERROR otherwise. */
export async function openSourceFile(path: string): Promise<SourceFile> {
  const name = basename(path);
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    const isMissing = error.code === 'ENOENT' || error.code === 'ENOTDIR';
    const found = isMissing ? 'there is no such file' : error.message;
    throw new MoestroError(isMissing ? 'SOURCE_INVALID' : 'IO_ERROR', `Cannot open "${path}": ${found}`, {}, error);
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new MoestroError('SOURCE_INVALID', `Cannot open "${path}": it is not a regular file`);
    return { path, name, size: stat.size, descriptor: handle.fd, readAt: readerOf(handle, path, stat.size), close };
  } catch (error) {
    await handle.close();
    throw error;
  }

  async function close(): Promise<void> {
    await handle.close();
  }
}

function readerOf(handle: FileHandle, path: string, size: number): SourceFile['readAt'] {
  return async (offset, length, what) => {
    if (offset < 0 || length < 0 || offset + length > size) {
      throw new MoestroError(
        'SOURCE_INVALID',
        `Cannot read ${what} from "${path}": needed bytes ${offset} to ${offset + length} of ${size}`,
      );
    }
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      // One read moves at most 2 GiB on Linux, so ask for less.
      const ask = Math.min(length - done, 1 << 30);
      const { bytesRead } = await handle.read(bytes, done, ask, offset + done).catch((error: Error) => {
        throw new MoestroError('IO_ERROR', `Cannot read ${what} from "${path}": ${error.message}`, {}, error);
      });
      if (bytesRead === 0) {
        throw new MoestroError(
          'SOURCE_INVALID',
          `Cannot read ${what} from "${path}": got ${done} of ${length} bytes at offset ${offset}`,
        );
      }
      done += bytesRead;
    }
    return bytes;
  };
}

/** The text of a small file. Throws SOURCE_INVALID when it is larger than `maxBytes` or not UTF-8. */
export async function readSourceText(path: string, maxBytes: number): Promise<string> {
  const file = await openSourceFile(path);
  try {
    if (file.size > maxBytes) {
      throw new MoestroError(
        'SOURCE_INVALID',
        `Cannot read "${path}": ${file.size} bytes, at most ${maxBytes} expected`,
      );
    }
    const bytes = await file.readAt(0, file.size, 'the text');
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch (error) {
      throw new MoestroError('SOURCE_INVALID', `Cannot read "${path}": it is not UTF-8 text`, {}, error);
    }
  } finally {
    await file.close();
  }
}

/** A JSON object from text. Throws SOURCE_INVALID naming `where`. */
export function parseJsonObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MoestroError('SOURCE_INVALID', `Cannot read ${where}: ${(error as Error).message}`, {}, error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new MoestroError('SOURCE_INVALID', `Cannot read ${where}: needed a JSON object`);
  }
  return value as Record<string, unknown>;
}
