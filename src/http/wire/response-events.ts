/** The answer of /v1/responses as the events of its stream; what is not streamed is the last event's response. */
import { randomBytes } from 'node:crypto';
import type { AnswerEvent, AnswerUsage, TokenReport } from '../../answer/types.js';
import type { MoestroError } from '../../errors.js';
import { errorBody } from '../errors.js';
import { chatLogprobs } from './logprobs.js';
import { progressBody } from './progress.js';
import type { ResponsesRequest } from './responses.js';
import { usageBody } from './usage.js';

interface OpenItem {
  readonly kind: 'message' | 'reasoning' | 'call';
  readonly id: string;
  readonly index: number;
  text: string;
  readonly logprobs: unknown[];
  /** Fields of the finished item that its kind adds. */
  readonly fields: Readonly<Record<string, unknown>>;
}

const newId = (prefix: string): string => `${prefix}_${randomBytes(16).toString('hex')}`;

/** Owns one response under way: its items, and the number of the next event. */
export class ResponseEvents {
  readonly #request: ResponsesRequest;
  readonly #response: Readonly<Record<string, unknown>>;
  readonly #output: object[] = [];
  #item: OpenItem | null = null;
  #sequence = 0;

  constructor(request: ResponsesRequest, model: string) {
    this.#request = request;
    this.#response = responseBody(request, model);
  }

  /** From response.created to response.completed or response.incomplete. */
  async *from(answers: AsyncIterable<{ readonly value: AnswerEvent }>): AsyncGenerator<object, void, void> {
    yield this.#event('response.created', { response: this.#state('in_progress') });
    yield this.#event('response.in_progress', { response: this.#state('in_progress') });
    for await (const { value } of answers) {
      switch (value.kind) {
        case 'prefill':
          // An event that clients know, with more in it.
          if (this.#request.reportsProgress) {
            const fields = { response: this.#state('in_progress'), prompt_progress: progressBody(value) };
            yield this.#event('response.in_progress', fields);
          }
          break;
        case 'prompt':
          break;
        case 'reasoning':
          yield* this.#open('reasoning');
          yield this.#delta(value.text, []);
          break;
        case 'delta':
          yield* this.#open('message');
          yield this.#delta(value.text, value.tokens);
          break;
        case 'toolCall':
          yield* this.#close('completed');
          yield* this.#open('call', { call_id: value.id, name: value.name });
          break;
        case 'toolArguments':
          yield this.#delta(value.text, []);
          break;
        case 'finish':
          yield* this.#finish(value.reason, value.usage);
          break;
        default:
          value satisfies never;
      }
    }
  }

  /** What ends a stream that failed. */
  failed(error: MoestroError): object {
    const { code, message } = errorBody(error).error;
    return this.#event('response.failed', { response: { ...this.#state('failed'), error: { code, message } } });
  }

  *#finish(reason: string, usage: AnswerUsage): Generator<object, void, void> {
    // An answer without a word is a message without one.
    if (this.#item === null && this.#output.length === 0) yield* this.#open('message');
    const isCut = reason === 'length';
    yield* this.#close(isCut ? 'incomplete' : 'completed');
    const { prompt_tokens, completion_tokens, total_tokens, ...details } = usageBody([usage]);
    const response = {
      ...this.#state(isCut ? 'incomplete' : 'completed'),
      incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
      usage: {
        input_tokens: prompt_tokens,
        input_tokens_details: details.prompt_tokens_details,
        output_tokens: completion_tokens,
        output_tokens_details: details.completion_tokens_details,
        total_tokens,
        moestro: details.moestro,
      },
    };
    yield this.#event(isCut ? 'response.incomplete' : 'response.completed', { response });
  }

  /** Goes on with the item under way when it is of that kind; calls always begin anew. */
  *#open(kind: OpenItem['kind'], fields: OpenItem['fields'] = {}): Generator<object, void, void> {
    if (this.#item?.kind === kind && kind !== 'call') return;
    yield* this.#close('completed');
    const prefix = { message: 'msg', reasoning: 'rs', call: 'fc' }[kind];
    const item: OpenItem = { kind, id: newId(prefix), index: this.#output.length, text: '', logprobs: [], fields };
    this.#item = item;
    const begun = { ...this.#finished(item, 'in_progress'), ...(kind === 'call' ? {} : { content: [] }) };
    yield this.#event('response.output_item.added', { output_index: item.index, item: begun });
    if (kind === 'call') return;
    if (kind === 'reasoning' && this.#request.summarises) {
      yield this.#event('response.reasoning_summary_part.added', { ...this.#place(item), part: this.#part(item) });
    } else {
      yield this.#event('response.content_part.added', { ...this.#place(item), part: this.#part(item) });
    }
  }

  #delta(text: string, tokens: readonly TokenReport[]): object {
    const item = this.#item!;
    item.text += text;
    const names = this.#names(item);
    if (item.kind !== 'message') return this.#event(`${names}.delta`, { ...this.#place(item), delta: text });
    const logprobs = chatLogprobs(tokens).content;
    item.logprobs.push(...logprobs);
    return this.#event(`${names}.delta`, { ...this.#place(item), delta: text, logprobs });
  }

  *#close(status: 'completed' | 'incomplete'): Generator<object, void, void> {
    const item = this.#item;
    if (item === null) return;
    this.#item = null;
    const place = this.#place(item);
    const names = this.#names(item);
    if (item.kind === 'call') {
      yield this.#event(`${names}.done`, { ...place, name: item.fields.name, arguments: item.text });
    } else {
      const logprobs = item.kind === 'message' ? { logprobs: item.logprobs } : {};
      yield this.#event(`${names}.done`, { ...place, text: item.text, ...logprobs });
      const isSummary = item.kind === 'reasoning' && this.#request.summarises;
      const done = isSummary ? 'response.reasoning_summary_part.done' : 'response.content_part.done';
      yield this.#event(done, { ...place, part: this.#part(item) });
    }
    const finished = this.#finished(item, status);
    this.#output.push(finished);
    yield this.#event('response.output_item.done', { output_index: item.index, item: finished });
  }

  #names({ kind }: OpenItem): string {
    if (kind === 'message') return 'response.output_text';
    if (kind === 'call') return 'response.function_call_arguments';
    return this.#request.summarises ? 'response.reasoning_summary_text' : 'response.reasoning_text';
  }

  #place({ kind, id, index }: OpenItem): object {
    const place = { item_id: id, output_index: index };
    if (kind === 'call') return place;
    return kind === 'reasoning' && this.#request.summarises
      ? { ...place, summary_index: 0 }
      : { ...place, content_index: 0 };
  }

  #part({ kind, text, logprobs }: OpenItem): object {
    if (kind === 'message') return { type: 'output_text', text, annotations: [], logprobs: [...logprobs] };
    return { type: this.#request.summarises ? 'summary_text' : 'reasoning_text', text };
  }

  #finished(item: OpenItem, status: string): object {
    const { id, kind, text, fields } = item;
    if (kind === 'call') return { id, type: 'function_call', status, ...fields, arguments: text };
    if (kind === 'message') return { id, type: 'message', status, role: 'assistant', content: [this.#part(item)] };
    const parts = text === '' ? [] : [this.#part(item)];
    return this.#request.summarises
      ? { id, type: 'reasoning', status, summary: parts }
      : { id, type: 'reasoning', status, summary: [], content: parts };
  }

  #state(status: string): Record<string, unknown> {
    return { ...this.#response, status, output: [...this.#output] };
  }

  #event(type: string, fields: object): object {
    return { type, sequence_number: this.#sequence++, ...fields };
  }
}

/** What a response repeats of its request, and null for what it has not. */
function responseBody({ body, options }: ResponsesRequest, model: string): Readonly<Record<string, unknown>> {
  return {
    id: newId('resp'),
    object: 'response',
    created_at: Math.floor(Date.now() / 1000),
    model,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    metadata: body.metadata ?? {},
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: body.reasoning?.summary ?? null },
    background: false,
    store: false,
    temperature: options.sampling.temperature,
    top_p: options.sampling.topP,
    text: { format: body.text?.format ?? { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    truncation: body.truncation ?? 'disabled',
    usage: null,
  };
}
