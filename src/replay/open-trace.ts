/** From a file to a trace that can be replayed. */
import { MoestroError } from '../errors.js';
import { largestId, loadRecording, type RecordedGeometry } from '../experts/trace.js';
import type { TraceToReplay } from './types.js';

/**
 * Where nobody says how many experts a layer has, it is 128 for raw bytes of the usual geometry and else the power of two that
 * holds every id of the file.
 *
 * @throws {MoestroError} INVALID_CONFIG when the file cannot be read, is malformed or not of that geometry.
 */
export function openTrace(path: string, geometry: RecordedGeometry): TraceToReplay {
  const recording = loadRecording(path, geometry);
  const usual = path.endsWith('.u8') ? 128 : 2 ** Math.ceil(Math.log2(largestId(recording) + 1));
  const experts = geometry.experts ?? recording.live?.header.experts ?? usual;
  if (recording.topK > experts) {
    const found = `top-k ${recording.topK} is above ${experts} experts`;
    throw new MoestroError('INVALID_CONFIG', `Cannot use routing trace "${path}": ${found}`, { path });
  }
  return { name: path.split('/').at(-1)!, recording, experts };
}
