/** POST /tokenize and /detokenize: texts to token ids and back, as llama.cpp's server does under these names. */
import type { FastifyInstance } from 'fastify';
import { check } from '../check.js';
import { modelFor, type ServerDeps } from '../deps.js';
import { pieceBody, readTokenizeRequest } from '../wire/tokenize.js';

const DETOKENIZE_SCHEMA = {
  type: 'object',
  required: ['tokens'],
  properties: { model: { type: 'string' }, tokens: { type: 'array', items: { type: 'integer' } } },
} as const;

export function tokenizeRoutes(app: FastifyInstance, deps: ServerDeps): void {
  app.post('/tokenize', async (request, reply) => {
    const { generator } = await modelFor(deps, request, reply);
    const { withPieces, ids } = readTokenizeRequest(request.body, generator);
    const tokens = withPieces ? ids.map((id) => ({ id, piece: pieceBody(generator.prompts.tokenBytes(id)) })) : ids;
    return { tokens, count: ids.length, max_model_len: generator.info.contextLength };
  });

  app.post('/detokenize', async (request, reply) => {
    const { generator } = await modelFor(deps, request, reply);
    const { tokens } = check(DETOKENIZE_SCHEMA, request.body);
    return { content: generator.prompts.textOf(generator.prompts.checkIds(tokens, 'tokens'), true) };
  });
}
