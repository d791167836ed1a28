/** What the routes are given: made by src/cli/serve.ts, or by a test over a scripted engine. */
import type { ServerConfig } from '../config.js';
import { MoestroError } from '../errors.js';
import type { TextGenerator } from '../generate.js';
import type { ServerMetrics } from '../metrics/server-metrics.js';
import type { Every } from './timers.js';

export interface ServedModel {
  /** What /v1/models lists and every answer echoes. */
  readonly id: string;
  readonly createdSeconds: number;
  readonly generator: TextGenerator;
}

export interface ServerDeps {
  /** Another object after a reload; what a route keeps of it stays as it was. */
  readonly config: ServerConfig;
  /** null while it loads: the server listens before that, and says so. */
  readonly model: () => ServedModel | null;
  readonly metrics: ServerMetrics;
  /** "2GiB", "60%" or "auto", for what the server was told at start, to bytes. Throws INVALID_REQUEST. */
  readonly readBudget: (text: string) => number;
  /** Of the pings in streams; the clock when absent. */
  readonly every?: Every;
  /** Where log lines go; standard error when absent. */
  readonly log?: { write(line: string): void };
}

/** What every stream of a server has in common. */
export const streaming = ({ config, every }: ServerDeps) => ({ pingSeconds: config.pingSeconds, every });

/** The model, or MODEL_LOADING for the client to come back. */
export function loadedModel(deps: ServerDeps): ServedModel {
  const model = deps.model();
  if (model === null) throw new MoestroError('MODEL_LOADING', 'Cannot answer yet: the model is still loading');
  return model;
}
