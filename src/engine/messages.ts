/** What the engine thread and its client say to each other: plain data, and errors that keep their code. */
import { MoestroError, toMoestroError } from '../errors.js';
import type { EmbedOptions, EngineEvent, EngineInfo, EvaluateOptions, GenerateRequest } from './types.js';

/** Ids are the client's and count up: one per request, whatever its kind. */
export type ToEngine =
  | { readonly kind: 'generate'; readonly id: number; readonly request: GenerateRequest }
  | {
      readonly kind: 'evaluate';
      readonly id: number;
      readonly tokenIds: readonly number[];
      readonly options: EvaluateOptions;
    }
  | {
      readonly kind: 'embed';
      readonly id: number;
      readonly tokenIds: readonly number[];
      readonly options: EmbedOptions;
    }
  /** Given up: no answer comes. */
  | { readonly kind: 'abort'; readonly id: number }
  /** Read as far as it was wanted: the reply is the usage so far, or null when the answer had ended. */
  | { readonly kind: 'stop'; readonly id: number }
  | { readonly kind: 'acknowledge'; readonly id: number; readonly count: number }
  | { readonly kind: 'metrics'; readonly id: number }
  /** The reply is the state of the memory. */
  | { readonly kind: 'memory'; readonly id: number; readonly budgetBytes: number | null }
  | { readonly kind: 'live'; readonly id: number }
  | { readonly kind: 'collectImportance'; readonly id: number; readonly on: boolean; readonly width: number }
  | { readonly kind: 'importance'; readonly id: number; readonly layer: number; readonly expert: number }
  | { readonly kind: 'routingWeights'; readonly id: number }
  | { readonly kind: 'close' };

export type FromEngine =
  | { readonly kind: 'ready'; readonly info: EngineInfo }
  /** The engine could not start, or broke: everything ends with this error. */
  | { readonly kind: 'broken'; readonly error: WireError }
  /** All events of one step. */
  | { readonly kind: 'events'; readonly events: readonly (readonly [id: number, event: EngineEvent])[] }
  | { readonly kind: 'failed'; readonly id: number; readonly error: WireError }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'closed' };

export interface WireError {
  readonly code: MoestroError['code'];
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly stack: string | undefined;
}

export function errorToWire(error: unknown): WireError {
  const { code, message, details, stack } = toMoestroError(error);
  return { code, message, details, stack };
}

export function errorFromWire(wire: WireError): MoestroError {
  const error = new MoestroError(wire.code, wire.message, wire.details);
  if (wire.stack !== undefined) error.stack = wire.stack;
  return error;
}

/** One end of the line between the two: a MessagePort, a Worker or parentPort, as far as they are used. */
export interface Line<Out, In> {
  postMessage(message: Out, transfer?: readonly ArrayBuffer[]): void;
  on(event: 'message', listener: (message: In) => void): unknown;
  off(event: 'message', listener: (message: In) => void): unknown;
}
