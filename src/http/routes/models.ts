/** GET /v1/models and /v1/models/ID. */
import type { FastifyInstance } from 'fastify';
import { MoestroError } from '../../errors.js';
import type { ServerDeps } from '../deps.js';
import { type ModelEntry, type Models, stillLoading } from '../model-shelf.js';

export function modelsRoute(app: FastifyInstance, { models }: ServerDeps): void {
  app.get('/models', async () => ({ object: 'list', data: listed(models).map((entry) => modelBody(entry, models)) }));

  // Ids of models may have slashes in them.
  app.get<{ Params: { '*': string } }>('/models/*', async (request) => {
    const entries = listed(models);
    const id = request.params['*'].replace(/\/$/, '');
    const entry = entries.find((one) => one.id === id);
    if (entry === undefined) {
      const ids = entries.map((one) => `"${one.id}"`).join(', ');
      const needed = entries.length === 1 ? ids : `one of ${ids}`;
      throw new MoestroError('MODEL_NOT_FOUND', `Cannot find the model "${id}": needed ${needed}`, { param: 'model' });
    }
    return modelBody(entry, models);
  });
}

/** Before anything was loaded nothing is promised; later a change of models may be under way. */
function listed(models: Models): readonly ModelEntry[] {
  if (models.entries.length === 1 && models.current() === null) throw stillLoading();
  return models.entries;
}

/** How far its context reaches and at which level it runs is known of the model in memory only. */
function modelBody({ id, createdSeconds }: ModelEntry, models: Models) {
  const loaded = models.current();
  const info = loaded?.id === id ? loaded.generator.info : null;
  return {
    id,
    object: 'model',
    created: createdSeconds,
    owned_by: 'moestro',
    ...(info === null ? {} : { context_length: info.contextLength }),
    moestro: {
      ...(info === null ? {} : { family: info.family, level: info.level, mode: info.mode }),
      ...(models.entries.length === 1 ? {} : { loaded: info !== null }),
    },
  };
}
