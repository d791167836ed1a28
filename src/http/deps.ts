/** What the routes are given: made by src/cli/serve.ts, or by a test over a scripted engine. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ServerConfig } from '../config.js';
import type { ServerMetrics } from '../metrics/server-metrics.js';
import { clientGone } from './client-gone.js';
import { type Models, type ServedModel, stillLoading } from './model-shelf.js';
import type { Every } from './timers.js';

export interface ServerDeps {
  /** Another object after a reload; what a route keeps of it stays as it was. */
  readonly config: ServerConfig;
  /** The server listens before the first one is loaded, and says so. */
  readonly models: Models;
  readonly metrics: ServerMetrics;
  /** "2GiB", "60%" or "auto", for what the server was told at start, to bytes. Throws INVALID_REQUEST. */
  readonly readBudget: (text: string) => number;
  /** Of the pings in streams; the clock when absent. */
  readonly every?: Every;
  /** Where log lines go; standard error when absent. */
  readonly log?: { write(line: string): void };
}

/** The model at hand, or MODEL_LOADING for the client to come back. */
export function loadedModel({ models }: ServerDeps): ServedModel {
  const model = models.current();
  if (model === null) throw stillLoading();
  return model;
}

/**
 * The model that the request's body names, until its answer has ended. Errors as {@link Models.lease}.
 *
 * @param onWait is called when the model has to be loaded first.
 */
export async function modelFor(
  { models }: ServerDeps,
  request: FastifyRequest,
  reply: FastifyReply,
  onWait?: () => void,
): Promise<ServedModel> {
  const { body } = request;
  const named = typeof body === 'object' && body !== null && 'model' in body ? body.model : null;
  const { model, release } = await models.lease(
    typeof named === 'string' ? named : null,
    clientGone(reply, () => undefined),
    onWait,
  );
  reply.raw.once('finish', release);
  reply.raw.once('close', release);
  if (reply.raw.destroyed) release();
  return model;
}
