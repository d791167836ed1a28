/** The real server on the bundled model, for the real clients: a port of its own, greedy unless a request says otherwise. */
import type { AddressInfo } from 'node:net';
import { BUNDLED_MODEL } from '../../src/cli/bundled.js';
import { engineConfig, type ServerConfig, serverConfig } from '../../src/config.js';
import { type EngineConfig, GREEDY } from '../../src/engine/types.js';
import type { ServedModel } from '../../src/http/model-shelf.js';
import { createServer } from '../../src/http/server.js';
import { ServerMetrics } from '../../src/metrics/server-metrics.js';
import { openModel } from '../../src/open-model.js';
import { manualTime } from '../http/scripted.js';
import { soleModel } from '../helpers/sole-model.js';

export const FRANCE = [{ role: 'user' as const, content: 'What is the capital of France?' }];
/** A prompt of well over a thousand tokens, which takes many chunks. */
export const LONG = `${'What is the capital of France? '.repeat(180)}`;
let longs = 0;
/** The same as nobody has sent it before: nothing of it is kept, so it takes its time. */
export const newLong = (): string => `${++longs}. ${LONG}`;
export const CHUNK_TOKENS = 16;
export const PREFILLED = 'moestro_tokens_total{phase="prefill"}';
/** For expect.poll: the default of a second is too short for a busy machine. */
export const POLLED = { interval: 2, timeout: 30_000 };

export interface Served {
  /** With /v1. */
  readonly baseURL: string;
  readonly root: string;
  /** Fires the pings of all streams. */
  readonly passTime: () => void;
  /** A line of /metrics as a number; 0 when it is not there yet. */
  readonly metric: (name: string) => Promise<number>;
  readonly get: (path: string, headers?: Record<string, string>) => Promise<Response>;
  readonly post: (path: string, body: unknown, init?: RequestInit) => Promise<Response>;
  readonly close: () => Promise<void>;
}

export async function servePocket(
  changes: Partial<EngineConfig> = {},
  settings: Partial<ServerConfig> & { readonly isLoading?: boolean } = {},
): Promise<Served> {
  const { isLoading = false, ...server } = settings;
  // Budgets have tests of their own: here the heap of Node.js, with clients and bodies of 32 MB in it, shall fit.
  const fixed = { budget: '1GiB', threads: 2, maxSequences: 8, maxQueued: 32, chunk: CHUNK_TOKENS };
  const config = engineConfig(BUNDLED_MODEL, fixed, {});
  const opened = await openModel({ ...config, ...changes }, GREEDY);
  const model: ServedModel = { id: 'pocket', createdSeconds: 1_700_000_000, generator: opened.generator };
  const time = manualTime();
  const app = await createServer({
    config: { ...serverConfig({ port: 0, logLevel: 'silent' }, {}), ...server },
    models: soleModel('pocket', () => (isLoading ? null : model)),
    metrics: new ServerMetrics(),
    every: time.every,
    readBudget: Number,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const root = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  const get = (path: string, headers: Record<string, string> = {}) => fetch(`${root}${path}`, { headers });
  return {
    root,
    baseURL: `${root}/v1`,
    passTime: time.fire,
    get,
    post: (path, body, init = {}) =>
      fetch(`${root}${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
        ...init,
        headers: { 'content-type': 'application/json', ...init.headers },
      }),
    metric: async (name) => {
      const line = (await (await get('/metrics')).text()).split('\n').find((text) => text.startsWith(`${name} `));
      return Number(line?.slice(name.length + 1) ?? 0);
    },
    close: async () => {
      await app.close();
      await opened.close();
    },
  };
}

/** A JSON body as the caller expects it; what the test asserts about it is the check. */
export async function bodyOf<Body>(response: Response | Promise<Response>): Promise<Body> {
  return (await (await response).json()) as Body;
}

/** Events of a stream with their names, comments as they are. */
export async function eventsOf(response: Response): Promise<{ name: string | null; data: unknown }[]> {
  const parts = (await response.text()).split('\n\n').filter((part) => part !== '');
  return parts.map((part) => {
    const name = /^event: (.*)$/m.exec(part)?.[1] ?? null;
    const data = /^data: (.*)$/m.exec(part)?.[1];
    return { name, data: data === undefined || data === '[DONE]' ? part : JSON.parse(data) };
  });
}
