/** The failed read of an expert, in words. */
import { constants } from 'node:os';
import { MoestroError } from '../errors.js';
import type { ExpertFile } from './pack.js';

/** @param layer of the model. */
export function readError(
  file: ExpertFile & { readonly name: string },
  layer: number,
  expert: number,
  errno: number,
): MoestroError {
  const offset = file.expertOffset(layer, expert);
  const errorName = nameOfErrno(errno);
  const found =
    errorName === 'EBADMSG' ? 'its checksum differs' : errorName === 'ENODATA' ? 'the file ends in it' : errorName;
  return new MoestroError(
    'EXPERT_READ_FAILED',
    `Cannot read expert ${layer}/${expert} from "${file.name}": ${found}, record of ${file.geometry.recordBytes} ` +
      `bytes at offset ${offset}`,
    { layer, expert, offset, errno, errorName },
  );
}

function nameOfErrno(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
}
