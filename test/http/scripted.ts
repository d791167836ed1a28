/** An engine that says what a test wants, and a text model whose tokens are bytes. */
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { parseBytes } from '../../src/bytes.js';
import { type ServerConfig, samplingConfig, serverConfig } from '../../src/config.js';
import type { EngineMetrics } from '../../src/engine/engine-metrics.js';
import type { EngineClient, EngineEvent, EngineInfo, GenerateRequest, Usage } from '../../src/engine/types.js';
import { MoestroError } from '../../src/errors.js';
import { TextGenerator } from '../../src/generate.js';
import type { ServerDeps } from '../../src/http/deps.js';
import { createServer } from '../../src/http/server.js';
import type { Every } from '../../src/http/timers.js';
import { ServerMetrics } from '../../src/metrics/server-metrics.js';
import type { ChatMessage, PromptEnd, TextModel } from '../../src/text/types.js';
import { soleModel } from '../helpers/sole-model.js';

export const EOS = 256;
const VOCAB_SIZE = 260;
export const CONTEXT_LENGTH = 512;

/** Tokens are the bytes of UTF-8; 256 ends an answer. The chat template is "role: content" lines. */
export const byteText: TextModel = {
  vocabSize: VOCAB_SIZE,
  encode: (text) => [...Buffer.from(text, 'utf8')],
  decode: (ids, { skipSpecial = true } = {}) =>
    Buffer.from(ids.flatMap((id) => (id < 256 ? [id] : skipSpecial ? [] : [...Buffer.from(`<${id}>`)]))).toString(
      'utf8',
    ),
  tokenBytes: (id) => (id < 256 ? Uint8Array.of(id) : new Uint8Array()),
  tokenText: (id) => (id < 256 ? Buffer.from([id]).toString('utf8') : ''),
  eosTokenIds: [EOS],
  bosTokenId: null,
  hasChatTemplate: true,
  thinking: { open: '<think>', close: '</think>' },
  fill: [257, 258, 259],
  renderChat,
  encodeChat: (messages, options) => [...Buffer.from(renderChat(messages, options), 'utf8')],
  // As vocabularies of SentencePiece's shape do: a text of its own does not begin with a space.
  detokenizer: ({ continues = false } = {}) => {
    const decoder = new TextDecoder();
    let isFirst = !continues;
    return {
      push: (id) => {
        const isDropped = isFirst && id === 0x20;
        isFirst = false;
        return isDropped ? '' : decoder.decode(Uint8Array.of(id), { stream: true });
      },
      flush: () => decoder.decode(),
    };
  },
};

function renderChat(
  messages: readonly ChatMessage[],
  options: { kwargs?: Readonly<Record<string, unknown>>; end?: PromptEnd } = {},
) {
  if (messages.some(({ content }) => content === 'break the template')) {
    throw new MoestroError('TEMPLATE_FAILED', 'Cannot render the chat template: it says no');
  }
  const thinking = options.kwargs?.enable_thinking === false ? '(no thinking)' : '';
  const text = messages.map(({ role, content }) => `${role}: ${content ?? ''}${thinking}\n`).join('');
  return options.end === 'inMessage' ? text.slice(0, -1) : text;
}

export const USAGE: Usage = {
  promptTokens: 0,
  completionTokens: 0,
  cachedTokens: 3,
  meanBits: 7.5,
  shareBelowFullLevel: 0.25,
  bytesRead: 4096,
  stallMs: 1.5,
  queueMs: 1,
  prefillMs: 100,
  decodeMs: 200,
};

export const INFO: EngineInfo = {
  modelName: 'scripted',
  family: 'qwen3_moe',
  level: 8,
  mode: 'exact',
  isa: 'scalar',
  threads: 1,
  ioBackend: 'fake',
  ioDirect: false,
  contextLength: CONTEXT_LENGTH,
  vocabSize: VOCAB_SIZE,
  hiddenSize: 4,
  memory: {
    total: 100 << 20,
    dense: 10 << 20,
    kv: 5 << 20,
    experts: 20 << 20,
    scratch: 1 << 20,
    runtime: 60 << 20,
    unused: 4 << 20,
    contextLength: CONTEXT_LENGTH,
    maxSequences: 4,
    kvBlocks: 32,
    chunkTokens: 16,
    residentExperts: 7,
    expertCount: 9,
  },
  prefix: { keptBytesMax: 2 << 20, directory: null, diskBytes: 8 << 30 },
};

export const METRICS: EngineMetrics = {
  tokensPrefilled: 11,
  tokensDecoded: 12,
  steps: 13,
  hits: 14,
  misses: 15,
  missedBytes: 16,
  bytesRead: 17,
  readsInFlight: 1,
  readErrors: 0,
  prefetch: { reads: 26, bytes: 27, usefulBytes: 28, lateBytes: 29, wastedBytes: 30, offReason: null },
  stallMs: 1800,
  prefillMs: 19000,
  decodeMs: 20000,
  slotsUsed: 21,
  slotsTotal: 22,
  residentByBits: { '2': 1, '8': 6 },
  sequencesOpen: 1,
  sequencesQueued: 0,
  kvBlocksUsed: 2,
  prefix: {
    lookups: 9,
    hits: 4,
    tokensReused: 300,
    tokensRestored: 64,
    evictions: 1,
    keptBytes: 1 << 20,
    storedBytes: 3 << 20,
    storeWrittenBytes: 4 << 20,
    storeReadBytes: 1 << 20,
    storeEvictions: 1,
    storeRejected: 0,
  },
  kvBlocksTotal: 32,
  pairs: 0,
  pairBits: 0,
  requestsCancelled: 3,
  budgetBytes: 100 << 20,
  rssBytes: 90 << 20,
  peakRssBytes: 95 << 20,
  elasticPrice: 0.25,
  gears: { gear: 'joint', switches: 2, turns: 5, gapMaxMs: 1500 },
  recording: null,
  memory: {
    budgetBytes: 100 << 20,
    allowedBytes: 100 << 20,
    reason: null,
    floorBytes: 60 << 20,
    rssBytes: 90 << 20,
    isSettled: true,
    parts: {
      dense: 20 << 20,
      kv: 5 << 20,
      experts: 40 << 20,
      scratch: 10 << 20,
      runtime: 20 << 20,
      unused: 5 << 20,
    },
    kvBlocks: 32,
    resizes: 2,
    shedPlanes: 7,
    shedExperts: 3,
    givenBackBytes: 1 << 20,
    movedBytes: 1 << 19,
  },
  decode: { hits: 1, misses: 2, missedBytes: 3, bytesRead: 4, stallMs: 5 },
  decodeScriptMs: 6,
};

/** What the engine does for one request; `until` waits without keeping a cancelled request alive. */
export type Script = (
  request: GenerateRequest,
  until: (event: Promise<unknown>) => Promise<void>,
) => AsyncGenerator<EngineEvent, void, void>;

export interface ScriptedEngine extends EngineClient {
  readonly requests: GenerateRequest[];
  /** Requests ended before their script was over. */
  cancelled: number;
}

export function scriptedEngine(script: Script): ScriptedEngine {
  async function* run(request: GenerateRequest, signal: AbortSignal | undefined): AsyncGenerator<EngineEvent> {
    let isOver = false;
    const aborted = new Promise<never>((_resolve, reject) => {
      const stop = () => reject(new MoestroError('CANCELLED', 'Cannot go on: cancelled'));
      if (signal?.aborted) stop();
      signal?.addEventListener('abort', stop, { once: true });
    });
    aborted.catch(() => undefined);
    const until = async (event: Promise<unknown>) => void (await Promise.race([event, aborted]));
    try {
      for await (const event of script(request, until)) {
        if (signal?.aborted) throw new MoestroError('CANCELLED', 'Cannot go on: cancelled');
        isOver = event.kind === 'finish';
        yield event;
      }
      isOver = true;
    } finally {
      if (!isOver) engine.cancelled++;
    }
  }
  const engine: ScriptedEngine = {
    info: INFO,
    requests: [],
    cancelled: 0,
    generate(request, signal) {
      engine.requests.push(request);
      const events = run(request, signal);
      let completionTokens = 0;
      const iterator: AsyncIterator<EngineEvent> = {
        next: async () => {
          const result = await events.next();
          if (!result.done && result.value.kind === 'token') completionTokens++;
          return result;
        },
        // As the engine does: who leaves early hears what it took.
        return: async () => {
          await events.return(undefined);
          return { done: true, value: { ...USAGE, promptTokens: request.promptIds.length, completionTokens } };
        },
      };
      return { [Symbol.asyncIterator]: () => iterator };
    },
    // The sum of the ids, then how many there are, then which pooling: what a test can check.
    embed: async (tokenIds, { pooling }, signal) => {
      if (signal?.aborted) throw new MoestroError('CANCELLED', 'Cannot go on: cancelled');
      const sum = tokenIds.reduce((total, id) => total + id, 0);
      return Float32Array.of(sum, tokenIds.length, pooling === 'mean' ? 1 : 0, 0);
    },
    evaluate: () => Promise.reject(new Error('not scripted')),
    collectImportance: () => Promise.reject(new Error('not scripted')),
    importance: () => Promise.reject(new Error('not scripted')),
    routingWeights: () => Promise.reject(new Error('not scripted')),
    metrics: async () => METRICS,
    memory: async (budgetBytes) => ({
      ...METRICS.memory!,
      ...(budgetBytes === undefined ? {} : { budgetBytes, allowedBytes: budgetBytes }),
    }),
    live: async () => ({
      layers: 3,
      experts: 3,
      residentBits: Uint8Array.of(8, 8, 8, 2, 0, 0, 8, 8, 8),
      metrics: METRICS,
    }),
    close: async () => undefined,
  };
  return engine;
}

/** Says `text` byte by byte, with logprobs when asked, and stops; or runs into maxTokens. */
export function saying(text: string | ((request: GenerateRequest) => string)): Script {
  return async function* (request) {
    const all = [...Buffer.from(typeof text === 'string' ? text : text(request), 'utf8')];
    const bytes = all.slice(0, request.maxTokens ?? all.length);
    const promptTokens = request.promptIds.length;
    yield { kind: 'prefill', done: promptTokens, total: promptTokens, cached: USAGE.cachedTokens };
    for (const tokenId of bytes) yield tokenEvent(request, tokenId);
    const usage = { ...USAGE, promptTokens, completionTokens: bytes.length };
    yield { kind: 'finish', reason: bytes.length < all.length ? 'length' : 'stop', usage };
  };
}

export function tokenEvent({ sampling }: GenerateRequest, tokenId: number): EngineEvent {
  if (sampling.topLogprobs === null) return { kind: 'token', tokenId, logprob: null, topLogprobs: [] };
  const topLogprobs = [
    { tokenId, logprob: -0.5 },
    { tokenId: 0x2a, logprob: Number.NEGATIVE_INFINITY },
  ].slice(0, sampling.topLogprobs);
  return { kind: 'token', tokenId, logprob: -0.5, topLogprobs };
}

export interface TestServer {
  readonly app: FastifyInstance;
  readonly engine: ScriptedEngine;
  readonly metrics: ServerMetrics;
}

export async function testServer(
  script: Script,
  options: {
    readonly config?: Partial<ServerConfig>;
    readonly capacity?: number;
    readonly isLoading?: boolean;
    readonly every?: Every;
    readonly log?: ServerDeps['log'];
  } = {},
): Promise<TestServer> {
  const engine = scriptedEngine(script);
  const defaults = samplingConfig({}, {}).sampling;
  const generator = new TextGenerator(engine, byteText, { capacity: options.capacity ?? 20, defaults });
  const metrics = new ServerMetrics();
  const app = await createServer({
    // As src/cli/serve.ts does it, for a server that was told 100 MiB.
    readBudget: (text) => (text === 'auto' ? 100 << 20 : parseBytes(text, 'budget', 0)),
    config: { ...serverConfig({ logLevel: 'silent' }, {}), ...options.config },
    models: soleModel('scripted', () =>
      options.isLoading ? null : { id: 'scripted', createdSeconds: 1_700_000_000, generator },
    ),
    metrics,
    ...(options.every === undefined ? {} : { every: options.every }),
    ...(options.log === undefined ? {} : { log: options.log }),
  });
  return { app, engine, metrics };
}

/** Time that passes when the test says so: every `fire` is an interval of all that wait. */
export function manualTime(): { readonly every: Every; readonly intervalsMs: number[]; readonly fire: () => void } {
  const waiting = new Set<() => void>();
  const intervalsMs: number[] = [];
  return {
    every: (ms, fire) => {
      intervalsMs.push(ms);
      waiting.add(fire);
      return { restart: () => undefined, stop: () => waiting.delete(fire) };
    },
    intervalsMs,
    fire: () => {
      for (const fire of waiting) fire();
    },
  };
}

/** Listens on a free port and gives the base URL. */
export async function listening(app: FastifyInstance): Promise<string> {
  await app.listen({ host: '127.0.0.1', port: 0 });
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
}

/** The events of an SSE body: parsed JSON, or the text of [DONE] and comments. */
export function sseEvents(body: string): unknown[] {
  return body
    .split('\n\n')
    .filter((part) => part !== '')
    .map((part) => {
      const data = /^data: (.*)$/.exec(part)?.[1];
      return data === undefined || data === '[DONE]' ? part : JSON.parse(data);
    });
}

/** A promise and its resolve, and whether anybody has resolved it. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** A raw POST whose connection a test can cut. */
export function rawPost(url: string, body: object) {
  const sent = httpRequest(url, { method: 'POST', headers: { 'content-type': 'application/json' } });
  sent.on('error', () => undefined);
  sent.end(JSON.stringify(body));
  return sent;
}
