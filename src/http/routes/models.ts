/** GET /v1/models and /v1/models/ID. */
import type { FastifyInstance } from 'fastify';
import { MoestroError } from '../../errors.js';
import { loadedModel, type ServedModel, type ServerDeps } from '../deps.js';

export function modelsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.get('/models', async () => ({ object: 'list', data: [modelBody(loadedModel(deps))] }));

  // Ids of models may have slashes in them.
  app.get<{ Params: { '*': string } }>('/models/*', async (request) => {
    const model = loadedModel(deps);
    const id = request.params['*'].replace(/\/$/, '');
    if (id !== model.id) {
      throw new MoestroError('MODEL_NOT_FOUND', `Cannot find the model "${id}": needed "${model.id}"`, {
        param: 'model',
      });
    }
    return modelBody(model);
  });
}

const modelBody = ({ id, createdSeconds, generator: { info } }: ServedModel) => ({
  id,
  object: 'model',
  created: createdSeconds,
  owned_by: 'moestro',
  context_length: info.contextLength,
  moestro: { family: info.family, level: info.level, mode: info.mode },
});
