/** GET and POST /v1/moestro/budget: the one number, where the memory is now, and changing it while answers go on. */
import type { FastifyInstance } from 'fastify';
import type { ModelMemory } from '../../answer/types.js';
import { check } from '../check.js';
import { loadedModel, type ServerDeps } from '../deps.js';

const BUDGET_SCHEMA = {
  type: 'object',
  required: ['budget'],
  properties: { budget: { anyOf: [{ type: 'string' }, { type: 'integer', minimum: 1 }] } },
} as const;

export function budgetRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.get('/moestro/budget', async () => memoryBody(await loadedModel(deps).generator.memory()));

  app.post('/moestro/budget', async (request) => {
    const { generator } = loadedModel(deps);
    const { budget } = check(BUDGET_SCHEMA, request.body);
    return memoryBody(await generator.memory(deps.readBudget(String(budget))));
  });
}

const memoryBody = (memory: ModelMemory) => ({
  object: 'moestro.budget',
  budget_bytes: memory.budgetBytes,
  allowed_bytes: memory.allowedBytes,
  reason: memory.reason,
  floor_bytes: memory.floorBytes,
  rss_bytes: memory.rssBytes,
  settled: memory.isSettled,
  parts: memory.parts,
  resizes: memory.resizes,
  shed_planes: memory.shedPlanes,
  shed_experts: memory.shedExperts,
  given_back_bytes: memory.givenBackBytes,
  moved_bytes: memory.movedBytes,
});
