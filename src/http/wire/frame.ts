/** What every object of one answer says about itself: the same in all chunks of a stream. */
import { randomBytes } from 'node:crypto';
import type { ServedModel } from '../model-shelf.js';

export interface Frame {
  readonly id: string;
  readonly object: string;
  readonly created: number;
  readonly model: string;
  /** Changes when answers could: with the precision experts run at. */
  readonly system_fingerprint: string;
}

/** @param prefix "chatcmpl" or "cmpl". */
export function newFrame(prefix: string, object: string, { id, generator: { info } }: ServedModel): Frame {
  return {
    id: `${prefix}-${randomBytes(15).toString('base64url')}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model: id,
    system_fingerprint: `moestro-${info.mode}-${info.level}`,
  };
}
