/** GET /: the page, which is a few files of its own and asks nobody but this server. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply } from 'fastify';

const HTML = 'text/html; charset=utf-8';
const CSS = 'text/css; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';

/** By address: the file, from the root of the package. Scripts are compiled by `npm run build`. */
const FILES: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '/': ['ui/index.html', HTML],
  '/ui/style.css': ['ui/style.css', CSS],
  ...Object.fromEntries(
    ['main', 'api', 'chat', 'live', 'heat-map', 'page'].map((name) => [
      `/ui/${name}.js`,
      [`dist/ui/${name}.js`, SCRIPT],
    ]),
  ),
};

/** Nothing from elsewhere, nothing written inside of the page, no frame around it. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Open without a key: the page holds no secret, and it is where a person enters the key. */
export function pageRoute(app: FastifyInstance): void {
  for (const [url, [file, type]] of Object.entries(FILES)) {
    app.get(url, { config: { isOpen: true } }, async (_request, reply: FastifyReply) =>
      reply
        .headers({
          'content-type': type,
          'content-security-policy': POLICY,
          'x-content-type-options': 'nosniff',
          'referrer-policy': 'no-referrer',
          // Another version of the server has another page.
          'cache-control': 'no-cache',
        })
        .send(await readFile(fileURLToPath(new URL(`../../../${file}`, import.meta.url)))),
    );
  }
  app.get('/ui', { config: { isOpen: true } }, async (_request, reply) => reply.redirect('/'));
}
