/** GET /health: whether requests are answered. */
import type { FastifyInstance } from 'fastify';
import type { ServerDeps } from '../deps.js';

export function healthRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.get('/health', async (_request, reply) => {
    if (deps.model() !== null) return { status: 'ok' };
    return reply.status(503).header('retry-after', '2').send({ status: 'loading' });
  });
}
