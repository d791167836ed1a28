/** Requests to the server that the page came from, with the key of this tab. */

const KEY_NAME = 'moestro-key';

export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const keepKey = (key: string): void => sessionStorage.setItem(KEY_NAME, key);

/** @throws {ApiError} with the server's own words. */
export async function ask(path: string, body?: object, signal?: AbortSignal): Promise<Response> {
  const key = sessionStorage.getItem(KEY_NAME);
  const headers: Record<string, string> = key === null ? {} : { authorization: `Bearer ${key}` };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const response = await fetch(path, {
    headers,
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (response.ok) return response;
  const answer = (await response.json().catch(() => null)) as { readonly error?: { readonly message?: string } } | null;
  throw new ApiError(response.status, answer?.error?.message ?? `the server answered ${response.status}`);
}

/** The JSON of each `data:` line of a stream, up to [DONE]. */
export async function* events(response: Response): AsyncGenerator<unknown, void, void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ')) continue;
      if (line === 'data: [DONE]') return;
      yield JSON.parse(line.slice('data: '.length));
    }
  }
}
