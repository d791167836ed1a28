import type { MoestroError } from '../errors.js';
import type { EngineEvent } from './types.js';

/** Where events of a step go; ids are the caller's. */
export interface EngineSink {
  event(id: number, event: EngineEvent): void;
  failed(id: number, error: MoestroError): void;
  /** What an evaluation or an embedding asked for. */
  evaluated(id: number, values: Float32Array): void;
}
