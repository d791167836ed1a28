/** Errors as clients of the OpenAI API read them: status, headers, and `{"error":{message,type,param,code}}`. */
import { ERRORS, type ErrorCode, MoestroError, toMoestroError } from '../errors.js';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
}

/** When to come back: an answer takes seconds, so does loading a model. */
const RETRY_AFTER_SECONDS = '2';

/** What fastify itself throws before a handler runs, by its code. */
const FASTIFY_ERRORS: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'UNSUPPORTED_MEDIA_TYPE',
    'Cannot read the request body: needed the header "content-type: application/json"',
  ],
};

/** The declared length of a body, where there is one, and the limit: for the error about it. */
export interface BodySize {
  readonly found: string | undefined;
  readonly most: number;
}

/** Anything thrown while a request was handled, as one of our own errors. */
export function requestError(thrown: unknown, size?: BodySize): MoestroError {
  const code = (thrown as { readonly code?: unknown } | null)?.code;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    const found = size?.found === undefined ? 'a larger one' : `${size.found} bytes`;
    const needed = size === undefined ? '' : ` of ${size.most} bytes`;
    return new MoestroError(
      'BODY_TOO_LARGE',
      `Cannot read the request body: found ${found}, needed at most the limit${needed}`,
      {},
      thrown,
    );
  }
  const known = typeof code === 'string' ? FASTIFY_ERRORS[code] : undefined;
  if (known !== undefined) return new MoestroError(known[0], known[1], {}, thrown);
  const status = (thrown as { readonly statusCode?: unknown } | null)?.statusCode;
  if (!(thrown instanceof MoestroError) && typeof status === 'number' && status >= 400 && status < 500) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    return new MoestroError('INVALID_REQUEST', `Cannot read the request: ${why}`, {}, thrown);
  }
  return toMoestroError(thrown);
}

export function errorAnswer(error: MoestroError): ErrorAnswer {
  const kind = ERRORS[error.code];
  const headers: Record<string, string> = {};
  const { retryAfterSeconds } = error.details;
  if (kind.status === 429 || kind.status === 503) {
    headers['retry-after'] = typeof retryAfterSeconds === 'number' ? String(retryAfterSeconds) : RETRY_AFTER_SECONDS;
  }
  // Clients retry every 5xx; what does not fit the budget now will not fit it in a second either.
  if (kind.status >= 500 && !kind.retry) headers['x-should-retry'] = 'false';
  return { status: kind.status, headers, body: errorBody(error) };
}

export function errorBody(error: MoestroError): ErrorBody {
  const kind: { readonly type: string; readonly wireCode?: string } = ERRORS[error.code];
  const { param } = error.details;
  return {
    error: {
      // What an unexpected error says is for the log: it may tell of files and addresses.
      message:
        error.code === 'INTERNAL' ? 'The server failed; its log says more under this x-request-id' : error.message,
      type: kind.type,
      param: typeof param === 'string' ? param : null,
      code: kind.wireCode ?? error.code.toLowerCase(),
    },
  };
}
