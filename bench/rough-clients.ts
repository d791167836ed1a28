/**
 * Clients as a server meets them: most read to the end; some leave early, some read slowly, some send what is no request. Each
 * asks again and again until it is told to stop. What they do is drawn from a seed.
 */
import { Agent, request } from 'node:http';
import { streamAnswer } from '../src/load/streamed-answer.js';

export interface RoughLoad {
  readonly url: URL;
  readonly clients: number;
  readonly seed: number;
  /** Tokens of an answer at most. */
  readonly tokensMax: number;
  /** Clients begin no request any more once it is true. */
  readonly isOver: () => boolean;
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  /** Between two requests of a client, and after one that was turned away, at most. */
  readonly pauseMsMax: number;
}

export interface RoughTally {
  requests: number;
  /** By kind of client and status; 0 where the client cut the connection before one came. */
  readonly statuses: Record<string, number>;
  /** 5xx other than 503 and 507; 429 and 503 without Retry-After; answers 200 that broke by no wish of the client. */
  readonly wrong: string[];
  /** Of clients that read as fast as they can: milliseconds between two texts. */
  readonly gapsMs: number[];
}

type Kind = 'reader' | 'leaver' | 'slow' | 'whole' | 'malformed';
const KINDS: readonly (readonly [Kind, number])[] = [
  ['reader', 0.5],
  ['leaver', 0.2],
  ['slow', 0.1],
  ['whole', 0.1],
  ['malformed', 0.1],
];
const SLOW_MS = 60;

/** xorshift32, 0 to 1. */
function drawFrom(seed: number): () => number {
  let x = (seed * 2654435761 + 1) | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

/** Runs all clients until it is over and their last answers have ended. */
export async function runRoughClients(load: RoughLoad): Promise<RoughTally> {
  const tally: RoughTally = { requests: 0, statuses: {}, wrong: [], gapsMs: [] };
  const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  const one = async (client: number): Promise<void> => {
    const draw = drawFrom(load.seed * 1000 + client);
    while (!load.isOver()) {
      const kind = kindOf(draw());
      ++tally.requests;
      const retryMs = await ask(load, kind, draw, tally, agent);
      await load.sleep(Math.min(retryMs, load.pauseMsMax) + draw() * load.pauseMsMax);
    }
  };
  await Promise.all(Array.from({ length: load.clients }, (_, client) => one(client)));
  agent.destroy();
  return tally;
}

function kindOf(draw: number): Kind {
  let sum = 0;
  for (const [kind, share] of KINDS) {
    sum += share;
    if (draw < sum) return kind;
  }
  return 'reader';
}

/** One request; how long the client was told to wait, in milliseconds. */
async function ask(load: RoughLoad, kind: Kind, draw: () => number, tally: RoughTally, agent: Agent): Promise<number> {
  if (kind === 'malformed') {
    const { status, retryAfter } = await sendBytes(load.url, malformedBody(draw), draw() < 0.3);
    note(tally, kind, status, retryAfter, null);
    return 0;
  }
  const leaving = new AbortController();
  // Some leave before the first token, while they wait or their prompt is computed.
  const leaveAfter = Math.floor(draw() * 16);
  if (kind === 'leaver' && leaveAfter === 0) void load.sleep(draw() * 40).then(() => leaving.abort());
  const answer = await streamAnswer(
    {
      url: load.url,
      apiKey: null,
      agent,
      signal: leaving.signal,
      body: {
        model: 'any',
        messages: [
          {
            role: 'user',
            content: `Tell me of ${Math.floor(draw() * 1e6)} ${'rivers and stones '.repeat(Math.floor(draw() * 12))}`,
          },
        ],
        max_tokens: 1 + Math.floor(draw() * load.tokensMax),
        temperature: 1,
        ignore_eos: true,
        stream: kind !== 'whole',
      },
      onText: async (count) => {
        if (kind === 'leaver' && count >= leaveAfter) leaving.abort();
        if (kind === 'slow') await load.sleep(draw() * SLOW_MS);
      },
    },
    load.now,
  );
  // An answer that is no stream has no end that the reader of streams knows.
  const error = kind === 'whole' || leaving.signal.aborted ? null : answer.error;
  note(tally, kind, answer.status, answer.retryAfterSeconds, answer.status === 200 ? error : null);
  if (kind === 'reader') {
    for (let i = 1; i < answer.timesMs.length; ++i) tally.gapsMs.push(answer.timesMs[i]! - answer.timesMs[i - 1]!);
  }
  return 1000 * (answer.retryAfterSeconds ?? 0);
}

function note(
  { statuses, wrong }: RoughTally,
  kind: Kind,
  status: number,
  retryAfter: number | null,
  error: string | null,
): void {
  const name = `${kind} ${status}`;
  statuses[name] = (statuses[name] ?? 0) + 1;
  if (status >= 500 && status !== 503 && status !== 507) wrong.push(name);
  if ((status === 429 || status === 503) && retryAfter === null) wrong.push(`${name} without retry-after`);
  if (kind === 'malformed' && status !== 0 && (status < 400 || status >= 500)) wrong.push(name);
  if (error !== null) wrong.push(`${name}: ${error}`);
}

function malformedBody(draw: () => number): Buffer {
  const bodies: readonly (() => Buffer)[] = [
    () => Buffer.from('{"messages": [{"role": "user", '),
    () => Buffer.from('[]'),
    () => Buffer.from(JSON.stringify({ messages: 'no list', temperature: 'hot' })),
    () => Buffer.from(JSON.stringify({ messages: [{ role: 'user', content: 'hi' }], max_tokens: 'many' })),
    () => Buffer.from(Array.from({ length: 64 }, () => Math.floor(draw() * 256))),
    () => Buffer.from('['.repeat(10_000)),
  ];
  return bodies[Math.floor(draw() * bodies.length)]!();
}

/** The status; 0 when the client cuts the connection in the middle of its own body. */
function sendBytes(url: URL, body: Buffer, isCut: boolean): Promise<{ status: number; retryAfter: number | null }> {
  return new Promise((resolve) => {
    const sent = request(
      url,
      {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-length': body.length + (isCut ? 9 : 0) },
      },
      (response) => {
        const wait = response.headers['retry-after'];
        const told = { status: response.statusCode ?? 0, retryAfter: wait === undefined ? null : Number(wait) };
        response.resume();
        response.on('error', () => resolve(told));
        response.on('end', () => resolve(told));
      },
    );
    // Told by the status 0: the client has cut the connection, or the server closed it on bytes that are no request.
    sent.on('error', () => resolve({ status: 0, retryAfter: null }));
    if (isCut) sent.write(body, () => sent.destroy());
    else sent.end(body);
  });
}
