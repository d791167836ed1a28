/** GET /health and /health/ready: whether requests are answered. GET /health/live: whether the process is there. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ServerDeps } from '../deps.js';

export function healthRoute(app: FastifyInstance, deps: ServerDeps): void {
  const ready = async (_request: unknown, reply: FastifyReply) => {
    if (deps.models.current() !== null) return { status: 'ok' };
    return reply.status(503).header('retry-after', '2').send({ status: 'loading' });
  };
  app.get('/health', ready);
  app.get('/health/ready', ready);
  // A process that loads a model for minutes is alive: who restarts it on this word must not begin it anew.
  app.get('/health/live', async () => ({ status: 'ok' }));
}
