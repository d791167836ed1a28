/** The answer of /v1/messages as the events of its stream, and the whole message that they add up to. */
import { randomBytes } from 'node:crypto';
import type { AnswerEvent, AnswerUsage } from '../../answer/types.js';
import { progressBody } from './progress.js';
import { usageBody } from './usage.js';

type ContentBlock =
  | { type: 'text'; text: string }
  | { type: 'thinking'; thinking: string; signature: string }
  | { type: 'tool_use'; id: string; name: string; input: unknown };

const STOP_REASONS = { stop: 'end_turn', length: 'max_tokens', toolCalls: 'tool_use' } as const;

/** Owns one message under way. */
export class MessageEvents {
  readonly #message;
  readonly #reportsProgress;
  readonly #content: ContentBlock[] = [];
  /** Of a call under way: what its input is made of in the end. */
  #arguments = '';
  #isOpen = false;

  /**
   * @param promptTokens are known before anything runs, and told at once.
   * @param reportsProgress whether pings tell how far the prompt is.
   */
  constructor(model: string, promptTokens: number, reportsProgress = false) {
    this.#reportsProgress = reportsProgress;
    this.#message = {
      id: `msg_${randomBytes(16).toString('hex')}`,
      type: 'message',
      role: 'assistant',
      model,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: {
        input_tokens: promptTokens,
        output_tokens: 0,
        cache_read_input_tokens: 0,
        cache_creation_input_tokens: 0,
      },
    };
  }

  /** From message_start to message_stop. */
  async *from(answers: AsyncIterable<{ readonly value: AnswerEvent }>): AsyncGenerator<object, void, void> {
    yield { type: 'message_start', message: this.#message };
    for await (const { value } of answers) {
      switch (value.kind) {
        case 'prefill':
          // An event that clients know, with more in it.
          if (this.#reportsProgress) yield { type: 'ping', prompt_progress: progressBody(value) };
          break;
        case 'prompt':
          break;
        case 'reasoning':
          yield* this.#begin({ type: 'thinking', thinking: '', signature: '' });
          yield this.#delta({ type: 'thinking_delta', thinking: value.text });
          break;
        case 'delta':
          if (value.text === '') break;
          yield* this.#begin({ type: 'text', text: '' });
          yield this.#delta({ type: 'text_delta', text: value.text });
          break;
        case 'toolCall':
          yield* this.#begin({ type: 'tool_use', id: value.id, name: value.name, input: {} });
          break;
        case 'toolArguments':
          yield this.#delta({ type: 'input_json_delta', partial_json: value.text });
          break;
        case 'finish': {
          yield* this.#end();
          const stop_reason = value.stop === null ? STOP_REASONS[value.reason] : 'stop_sequence';
          const delta = { stop_reason, stop_sequence: value.stop };
          Object.assign(this.#message, delta, { usage: messageUsage(value.usage) });
          yield { type: 'message_delta', delta, usage: this.#message.usage };
          yield { type: 'message_stop' };
          break;
        }
        default:
          value satisfies never;
      }
    }
  }

  /** All of it, once `from` has ended. */
  whole(): object {
    return { ...this.#message, content: this.#content };
  }

  /** Goes on with the block under way when it is of that type; calls always begin anew. */
  *#begin(block: ContentBlock): Generator<object, void, void> {
    if (this.#isOpen && block.type !== 'tool_use' && this.#content.at(-1)!.type === block.type) return;
    yield* this.#end();
    this.#content.push(block);
    this.#isOpen = true;
    this.#arguments = '';
    yield { type: 'content_block_start', index: this.#content.length - 1, content_block: { ...block } };
  }

  #delta(delta: { type: string; text?: string; thinking?: string; partial_json?: string }): object {
    const block = this.#content.at(-1)!;
    if (block.type === 'text') block.text += delta.text;
    else if (block.type === 'thinking') block.thinking += delta.thinking;
    else this.#arguments += delta.partial_json;
    return { type: 'content_block_delta', index: this.#content.length - 1, delta };
  }

  *#end(): Generator<object, void, void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const block = this.#content.at(-1)!;
    if (block.type === 'tool_use') block.input = parsedInput(this.#arguments);
    yield { type: 'content_block_stop', index: this.#content.length - 1 };
  }
}

/** Arguments that were cut off by the end of the answer are no JSON: they are shown as they are. */
function parsedInput(text: string): unknown {
  try {
    return JSON.parse(text === '' ? '{}' : text);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    return { partial: text };
  }
}

function messageUsage(usage: AnswerUsage) {
  const { prompt_tokens, completion_tokens, prompt_tokens_details, moestro } = usageBody([usage]);
  const cached = prompt_tokens_details.cached_tokens;
  return {
    // Anthropic counts what came from the cache apart.
    input_tokens: prompt_tokens - cached,
    output_tokens: completion_tokens,
    cache_read_input_tokens: cached,
    cache_creation_input_tokens: 0,
    moestro,
  };
}
