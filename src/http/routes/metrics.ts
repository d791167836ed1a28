/** GET /metrics: counters in Prometheus' text format. */
import type { FastifyInstance } from 'fastify';
import type { ServerDeps } from '../deps.js';

export function metricsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.get('/metrics', async (_request, reply) => {
    const model = deps.models.current();
    const generator = model?.generator;
    const counters = generator === undefined ? null : await generator.metrics();
    const text = await deps.metrics.text(generator?.info ?? null, counters);
    return reply.type(deps.metrics.contentType).send(text);
  });
}
