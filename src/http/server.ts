/** The HTTP server: hooks that hold for every route, and the list of routes. */
import { randomBytes } from 'node:crypto';
import cors from '@fastify/cors';
import Fastify, { type FastifyInstance, type FastifyReply, LogController } from 'fastify';
import { ERRORS, MoestroError } from '../errors.js';
import { keyCheck } from './auth.js';
import type { ServerDeps } from './deps.js';
import { errorAnswer, requestError } from './errors.js';
import { checkHost } from './host.js';
import { parseJsonBody } from './json-body.js';
import { KeyLimiter } from './key-limits.js';
import { answerNotHttp } from './not-http.js';
import { budgetRoute } from './routes/budget.js';
import { chatCompletionsRoute } from './routes/chat-completions.js';
import { completionsRoute } from './routes/completions.js';
import { embeddingsRoute } from './routes/embeddings.js';
import { healthRoute } from './routes/health.js';
import { liveRoute } from './routes/live.js';
import { messagesError, messagesRoutes } from './routes/messages.js';
import { metricsRoute } from './routes/metrics.js';
import { modelsRoute } from './routes/models.js';
import { pageRoute } from './routes/page.js';
import { responsesRoute } from './routes/responses.js';
import { tokenizeRoutes } from './routes/tokenize.js';

const ROUTES = [
  chatCompletionsRoute,
  completionsRoute,
  responsesRoute,
  messagesRoutes,
  embeddingsRoute,
  tokenizeRoutes,
  modelsRoute,
  healthRoute,
  metricsRoute,
  budgetRoute,
  liveRoute,
];

/** Pages served from this machine: a chat app under development on any port. */
const LOCAL_ORIGIN = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/** A server that does not listen yet: `inject` reaches its routes without a port. */
export async function createServer(deps: ServerDeps): Promise<FastifyInstance> {
  const { metrics } = deps;
  const { bodyLimitBytes } = deps.config;
  const app = Fastify({
    logger: { level: deps.config.logLevel, stream: deps.log ?? process.stderr },
    // fastify's own two lines per request; ours is written when the answer ends.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: bodyLimitBytes,
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given)
        ? given
        : `req_${randomBytes(12).toString('hex')}`;
    },
    routerOptions: { ignoreTrailingSlash: true },
    // No hook runs for an address that cannot be decoded.
    frameworkErrors: (thrown, request, reply) =>
      answer((reply as FastifyReply).header('x-request-id', request.id), requestError(thrown)),
    clientErrorHandler: answerNotHttp,
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, async (_request: unknown, body: Buffer) =>
    parseJsonBody(body),
  );

  await app.register(cors, {
    origin: (_origin, decide) => {
      const { corsOrigins } = deps.config;
      decide(null, corsOrigins.includes('*') ? '*' : [LOCAL_ORIGIN, ...corsOrigins]);
    },
    methods: ['GET', 'POST', 'OPTIONS'],
    // Allowed headers are those the browser asks for: clients send x-stainless-*, anthropic-* and more.
    exposedHeaders: [
      'x-request-id',
      'openai-processing-ms',
      'retry-after',
      'x-should-retry',
      'x-ratelimit-limit-requests',
      'x-ratelimit-remaining-requests',
      'x-ratelimit-reset-requests',
    ],
    strictPreflight: false,
    maxAge: 600,
  });

  closeConnectionsWhenDone(app);
  let checkKey = keyCheck(deps.config.apiKeys);
  let known = deps.config;
  const limiter = new KeyLimiter();
  app.addHook('onRequest', async () => {
    if (known === deps.config) return;
    known = deps.config;
    checkKey = keyCheck(known.apiKeys);
    app.log.level = known.logLevel;
  });
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    // Not onResponse: that hook is not told of answers that broke off. Those count as 499.
    let isCounted = false;
    const count = (status: number) => {
      if (isCounted) return;
      isCounted = true;
      const route = routeOf(request.routeOptions.url);
      const ms = reply.elapsedTime;
      metrics.countRequest(route, status, ms / 1000);
      request.log.info({ method: request.method, route, status, ms: Math.round(ms) }, 'answered');
    };
    reply.raw.once('finish', () => count(reply.raw.statusCode));
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) count(499);
    });
    checkHost(request.headers.host, deps.config);
    const { url, config } = request.routeOptions;
    const isOpen = request.method === 'OPTIONS' || isHealth(routeOf(url)) || isOpenRoute(config);
    if (isOpen) return;
    const key = checkKey(request.headers);
    // Looking around is free; what is asked for work counts.
    if (key === null || request.method !== 'POST') return;
    const { byKey, ...common } = deps.config.keyLimits;
    const { headers, release } = limiter.admit(key, { ...common, ...byKey.get(key) });
    reply.headers(headers);
    reply.raw.once('finish', release);
    reply.raw.once('close', release);
  });
  app.addHook('onSend', async (_request, reply) => {
    reply.header('openai-processing-ms', String(Math.round(reply.elapsedTime)));
  });
  const methodsOf = collectMethods(app);
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.replace(/\?.*/s, '');
    const allowed = methodsOf(path);
    if (allowed.length === 0) throw new MoestroError('NOT_FOUND', `Cannot find ${request.method} ${path}`);
    reply.header('allow', allowed.join(', '));
    throw new MoestroError(
      'METHOD_NOT_ALLOWED',
      `Cannot ${request.method} ${path}: found that method, needed ${allowed.join(' or ')}`,
    );
  });
  app.setErrorHandler((thrown, request, reply) => {
    const error = requestError(thrown, { found: request.headers['content-length'], most: bodyLimitBytes });
    const { status } = ERRORS[error.code];
    const isDeliberate = status < 500 || ERRORS[error.code].retry || status === 507;
    request.log[isDeliberate ? 'info' : 'error']({ err: thrown }, error.message);
    return answer(reply, error, routeOf(request.routeOptions.url).startsWith('/messages'));
  });

  pageRoute(app);
  for (const prefix of ['', '/v1']) {
    await app.register(
      async (scope) => {
        for (const route of ROUTES) route(scope, deps);
      },
      { prefix },
    );
  }
  return app;
}

/** @param forAnthropic whether it is read by a client of that API. */
function answer(reply: FastifyReply, error: MoestroError, forAnthropic = false): FastifyReply {
  const { status, headers, body } = errorAnswer(error);
  return reply
    .status(status)
    .headers(headers)
    .send(forAnthropic ? messagesError(error) : body);
}

/**
 * A closing server lets answers under way finish, then cuts every connection. Node.js alone would wait for those on
 * which nothing was ever sent, which browsers and HTTP clients open ahead of need, until they time out after a minute.
 */
function closeConnectionsWhenDone(app: FastifyInstance): void {
  let underWay = 0;
  let isClosing = false;
  app.addHook('onRequest', async (_request, reply) => {
    underWay++;
    reply.raw.once('close', () => {
      underWay--;
      if (isClosing && underWay === 0) app.server.closeAllConnections();
    });
  });
  app.addHook('preClose', async () => {
    isClosing = true;
    if (underWay === 0) app.server.closeAllConnections();
  });
}

/** The methods that a path has, told by the routes themselves as they are added; OPTIONS is everywhere. */
function collectMethods(app: FastifyInstance): (path: string) => readonly string[] {
  const routes: { readonly url: string; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    if (url !== '*' && url !== '/*') routes.push({ url, methods: [method].flat() });
  });
  return (path) => {
    const plain = path.replace(/\/$/, '');
    const fitting = routes.filter(({ url }) =>
      url.endsWith('/*') ? plain.startsWith(url.slice(0, -1)) : url.replace(/\/$/, '') === plain,
    );
    return [...new Set(fitting.flatMap(({ methods }) => methods))].sort();
  };
}

const isHealth = (route: string): boolean => /^\/health(\/|$)/.test(route);
const isOpenRoute = (config: object): boolean => 'isOpen' in config && config.isOpen === true;

/** The route as metrics name it: one name with and without /v1. */
function routeOf(url: string | undefined): string {
  return url === undefined ? 'unknown' : url.replace(/^\/v1(?=\/)/, '').replace(/\/\*$/, '/:id');
}
