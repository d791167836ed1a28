/**
 * One streamed answer of an OpenAI-compatible server, over real HTTP: when its tokens came, and how it ended.
 */
import { type Agent, type ClientRequest, type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';

export interface AnswerRequest {
  /** Of chat completions or completions, whole. */
  readonly url: URL;
  readonly body: object | string;
  readonly apiKey: string | null;
  readonly agent?: Agent;
  /** Cuts the connection. */
  readonly signal?: AbortSignal;
  /** Called with each piece of text; the next is read when what it returns has resolved: a slow reader. */
  readonly onText?: (count: number) => Promise<void> | void;
}

export interface StreamedAnswer {
  /** 0 when the connection was cut or broke before any. */
  readonly status: number;
  readonly retryAfterSeconds: number | null;
  /** Of the piece of text each; a server sends one for each token, but for those whose text is held back. */
  readonly timesMs: readonly number[];
  /** As the server counted them; null where it did not say. */
  readonly completionTokens: number | null;
  readonly finishReason: string | null;
  /** What went wrong, in the words of the server or the system; null when nothing did. */
  readonly error: string | null;
  /** The code of an error that the server named. */
  readonly code: string | null;
}

/** No error of a server is longer; what is, is no message. */
const ERROR_CHARACTERS_MAX = 2000;

/** Asks and reads until the end. Never rejects: what went wrong is told. `now` in milliseconds. */
export async function streamAnswer(
  { url, body, apiKey, agent, signal, onText }: AnswerRequest,
  now: () => number,
): Promise<StreamedAnswer> {
  const reader = new EventReader(now);
  let status = 0;
  let retryAfterSeconds: number | null = null;
  let cut = (): void => {};
  const broke = (error: unknown): void => reader.broke(signal?.aborted ? new Error('the client has left') : error);
  try {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const request = send(url, text, apiKey, agent);
    // Not by the option of the request: that would cut a connection which may have gone on to the next request.
    cut = () => request.destroy();
    if (signal?.aborted) cut();
    signal?.addEventListener('abort', cut);
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      request.on('response', resolve);
      request.on('error', reject);
    });
    status = response.statusCode ?? 0;
    const wait = Number(response.headers['retry-after']);
    retryAfterSeconds = response.headers['retry-after'] !== undefined && wait >= 0 ? wait : null;
    // Also while nobody waits for the next chunk: a reader that takes its time, or cuts the connection itself.
    response.on('error', (error) => broke(error));
    response.setEncoding('utf8');
    let whole = '';
    for await (const chunk of response) {
      if (status !== 200) {
        if (whole.length < ERROR_CHARACTERS_MAX) whole += chunk as string;
        continue;
      }
      const before = reader.timesMs.length;
      reader.push(chunk as string);
      if (onText !== undefined && reader.timesMs.length > before) await onText(reader.timesMs.length);
    }
    if (status !== 200) reader.fail(whole.slice(0, ERROR_CHARACTERS_MAX));
    else reader.end();
  } catch (error) {
    // A cut connection is the caller's wish or the server's fault: either way this answer is over.
    broke(error);
  } finally {
    signal?.removeEventListener('abort', cut);
  }
  const { timesMs, completionTokens, finishReason, error, code } = reader;
  return { status, retryAfterSeconds, timesMs, completionTokens, finishReason, error, code };
}

function send(url: URL, body: string, apiKey: string | null, agent: Agent | undefined): ClientRequest {
  const open = url.protocol === 'https:' ? requestHttps : requestHttp;
  const request = open(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      ...(apiKey === null ? {} : { authorization: `Bearer ${apiKey}` }),
    },
    ...(agent !== undefined && url.protocol === 'http:' ? { agent } : {}),
  });
  request.end(body);
  return request;
}

interface Chunk {
  readonly choices?: readonly {
    readonly text?: string;
    readonly delta?: { readonly content?: string | null; readonly reasoning_content?: string | null };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: { readonly completion_tokens?: number } | null;
  readonly error?: { readonly message?: string; readonly code?: string | null } | string;
}

/** Events as they come, cut anywhere. */
class EventReader {
  readonly timesMs: number[] = [];
  completionTokens: number | null = null;
  finishReason: string | null = null;
  error: string | null = null;
  code: string | null = null;
  readonly #now: () => number;
  #rest = '';
  #isDone = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  push(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) if (line.startsWith('data:')) this.#event(line.slice(5).trim());
  }

  /** The server has closed the stream. */
  end(): void {
    if (this.#isDone || this.finishReason !== null || this.error !== null) return;
    this.error = 'the stream ended before the answer did';
  }

  fail(body: string): void {
    const parsed = parse(body);
    this.#take(parsed?.error ?? body);
  }

  broke(error: unknown): void {
    this.error ??= error instanceof Error ? error.message : String(error);
  }

  #event(data: string): void {
    if (data === '[DONE]') {
      this.#isDone = true;
      return;
    }
    const chunk = parse(data);
    if (chunk === null) {
      this.error ??= `an event that is no JSON: ${data.slice(0, 80)}`;
      return;
    }
    if (chunk.error !== undefined) this.#take(chunk.error);
    this.completionTokens = chunk.usage?.completion_tokens ?? this.completionTokens;
    for (const { text, delta, finish_reason } of chunk.choices ?? []) {
      if ((text ?? delta?.content ?? delta?.reasoning_content ?? '') !== '') this.timesMs.push(this.#now());
      this.finishReason = finish_reason ?? this.finishReason;
    }
  }

  #take(error: NonNullable<Chunk['error']>): void {
    this.error ??= typeof error === 'string' ? error : (error.message ?? 'an error without a message');
    if (typeof error !== 'string') this.code ??= error.code ?? null;
  }
}

function parse(text: string): Chunk | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Chunk) : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
