/**
 * Every error a caller can meet: one stable code each, with the HTTP status it becomes, the OpenAI error type, and
 * whether a retry can help. docs/errors.md has a row for each; test/errors.test.ts holds table and page together.
 */

interface ErrorKind {
  readonly status: number;
  readonly type: string;
  /** The `code` field of the HTTP body where it differs from the lower-case code. */
  readonly wireCode?: string;
  readonly retry: boolean;
  /** Exit status of the CLI: 2 for a caller's mistake, 1 for the world's failure. */
  readonly exit: 1 | 2;
}

const caller = (status: number, type = 'invalid_request_error', wireCode?: string): ErrorKind =>
  wireCode === undefined ? { status, type, retry: false, exit: 2 } : { status, type, wireCode, retry: false, exit: 2 };
const world = (status: number, type: string, retry: boolean): ErrorKind => ({ status, type, retry, exit: 1 });

export const ERRORS = {
  // requests
  INVALID_REQUEST: caller(400, 'invalid_request_error', 'invalid_value'),
  UNSUPPORTED_PARAMETER: caller(400),
  UNSUPPORTED_CONTENT: caller(400),
  UNSUPPORTED_FORMAT: caller(400),
  CONTEXT_LENGTH_EXCEEDED: caller(400),
  UNAUTHORIZED: caller(401, 'authentication_error', 'invalid_api_key'),
  HOST_NOT_ALLOWED: caller(403, 'permission_error'),
  NOT_FOUND: caller(404, 'not_found_error'),
  METHOD_NOT_ALLOWED: caller(405),
  MODEL_NOT_FOUND: caller(404, 'not_found_error'),
  BODY_TOO_LARGE: caller(413),
  UNSUPPORTED_MEDIA_TYPE: caller(415),
  MODEL_LOADING: world(503, 'unavailable_error', true),
  QUEUE_FULL: { status: 429, type: 'rate_limit_error', retry: true, exit: 1 },
  RATE_LIMITED: { status: 429, type: 'rate_limit_error', wireCode: 'rate_limit_exceeded', retry: true, exit: 1 },
  // configuration
  INVALID_CONFIG: caller(500, 'server_error'),
  BUDGET_BELOW_FLOOR: { status: 507, type: 'server_error', wireCode: 'budget_exceeded', retry: false, exit: 2 },
  BUDGET_EXCEEDED: { status: 507, type: 'server_error', retry: false, exit: 1 },
  PORT_IN_USE: { status: 500, type: 'server_error', retry: false, exit: 1 },
  // model files
  MODEL_INVALID: caller(500, 'server_error'),
  MODEL_VERSION: caller(500, 'server_error'),
  MODEL_CORRUPT: world(500, 'server_error', false),
  SOURCE_INVALID: caller(500, 'server_error'),
  UNSUPPORTED_ARCHITECTURE: caller(500, 'server_error'),
  UNSUPPORTED_TOKENIZER: caller(500, 'server_error'),
  UNSUPPORTED_DTYPE: caller(500, 'server_error'),
  TEMPLATE_FAILED: caller(400),
  OUTPUT_EXISTS: caller(500, 'server_error'),
  // the engine and the machine
  INVALID_ARGUMENT: caller(500, 'server_error'),
  EXPERTS_EXCEED_SLOTS: world(500, 'server_error', false),
  EXPERT_READ_FAILED: world(500, 'server_error', true),
  IO_ERROR: world(500, 'server_error', true),
  IO_UNAVAILABLE: world(500, 'server_error', false),
  DISK_FULL: world(500, 'server_error', false),
  OUT_OF_MEMORY: world(507, 'server_error', false),
  ENGINE_CLOSED: world(503, 'unavailable_error', true),
  ENGINE_FAILED: world(500, 'server_error', false),
  FORMAT_FAILED: world(500, 'server_error', false),
  CANCELLED: world(499, 'server_error', false),
  ADDON_MISSING: world(500, 'server_error', false),
  INTERNAL: world(500, 'server_error', false),
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof ERRORS;

/** A caller's mistake or the world's failure. A broken invariant is an assert instead. */
export class MoestroError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'MoestroError';
    this.code = code;
    this.details = details;
  }
}

/** Wraps anything thrown; native errors keep the code that C++ gave them. */
export function toMoestroError(error: unknown): MoestroError {
  if (error instanceof MoestroError) return error;
  if (error instanceof Error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code === 'string' && code in ERRORS)
      return new MoestroError(code as ErrorCode, error.message, {}, error);
    return new MoestroError('INTERNAL', error.message, {}, error);
  }
  return new MoestroError('INTERNAL', String(error));
}
