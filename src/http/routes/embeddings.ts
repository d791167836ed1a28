/** POST /v1/embeddings: texts in, a unit vector for each out. */
import type { FastifyInstance } from 'fastify';
import { clientGone } from '../client-gone.js';
import { modelFor, type ServerDeps } from '../deps.js';
import { encodeVector, readEmbeddingRequest, unitVector } from '../wire/embedding.js';
import { promptIds } from '../wire/prompts.js';

export function embeddingsRoute(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/embeddings', async (request, reply) => {
    const { id, generator } = await modelFor(deps, request, reply);
    const { inputs, options, dimensions, format } = readEmbeddingRequest(request.body, generator);
    const texts = inputs.map((input) => promptIds(input, generator, 'input'));
    const signal = clientGone(reply, () => deps.metrics.countCancelled('/embeddings'));
    const vectors = await generator.embed(texts, options, signal);
    const tokens = texts.reduce((sum, text) => sum + text.length, 0);
    return {
      object: 'list',
      data: vectors.map((vector, index) => ({
        object: 'embedding',
        index,
        embedding: encodeVector(unitVector(vector, dimensions), format),
      })),
      model: id,
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    };
  });
}
