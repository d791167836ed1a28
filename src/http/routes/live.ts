/** GET /v1/moestro/live: what the engine does at this moment, for the page. */
import type { FastifyInstance } from 'fastify';
import type { ModelInfo, ModelLive } from '../../answer/types.js';
import { loadedModel, type ServerDeps } from '../deps.js';
import type { ServedModel } from '../model-shelf.js';

/** However many pages look, the engine is asked at most so often. */
const REUSE_MS = 200;

export function liveRoute(app: FastifyInstance, deps: ServerDeps): void {
  let last: {
    readonly generator: ServedModel['generator'];
    readonly at: number;
    readonly live: Promise<ModelLive>;
  } | null = null;
  app.get('/moestro/live', async (_request, reply) => {
    const model = loadedModel(deps);
    const now = performance.now();
    if (last === null || last.generator !== model.generator || now - last.at > REUSE_MS) {
      last = { generator: model.generator, at: now, live: model.generator.live() };
    }
    reply.header('cache-control', 'no-store');
    return liveBody(model, await last.live);
  });
}

function liveBody({ id, generator: { info } }: ServedModel, { residentBits, metrics, ...shape }: ModelLive) {
  return {
    object: 'moestro.live',
    model: id,
    mode: info.mode,
    level: info.level,
    ...shape,
    /** One byte an expert, by layer, then expert: bits per weight in memory. */
    resident_bits: Buffer.from(residentBits.buffer, residentBits.byteOffset, residentBits.length).toString('base64'),
    tokens: metrics.tokensPrefilled + metrics.tokensDecoded,
    hits: metrics.hits,
    misses: metrics.misses,
    bytes_read: metrics.bytesRead,
    reads_in_flight: metrics.readsInFlight,
    stall_ms: metrics.stallMs,
    sequences_open: metrics.sequencesOpen,
    sequences_queued: metrics.sequencesQueued,
    budget_bytes: metrics.budgetBytes,
    rss_bytes: metrics.rssBytes,
    enough_bytes: enoughBytes(info),
  };
}

/** The budget in which every expert would fit at the full level. */
function enoughBytes({ memory }: ModelInfo): number {
  const { total, unused, experts, residentExperts, expertCount } = memory;
  const oneExpert = experts / Math.max(1, Math.min(residentExperts, expertCount));
  return Math.round(total - unused - experts + oneExpert * expertCount);
}
