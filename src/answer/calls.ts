/** Tool calls in the text of an answer: found, counted, and each given its id. */
import { randomBytes } from 'node:crypto';
import { type ToolEvent, ToolReader } from '../constrain/tool-reader.js';
import { HERMES } from '../constrain/tool-rules.js';
import type { AnswerEvent, Piece } from './types.js';

/** Text of an answer that may hold calls, to events of text and calls. */
export class CallWriter {
  readonly #reader = new ToolReader(HERMES);
  #call = -1;
  #tokenCount = 0;

  *push({ text, tokens, tokenCount }: Piece<'delta'>): Generator<AnswerEvent, void, void> {
    this.#tokenCount = tokenCount;
    let reports = tokens;
    for (const event of this.#reader.push(text)) {
      if (event.kind !== 'text') {
        yield* this.#told(event);
        continue;
      }
      yield { kind: 'delta', text: event.text, tokens: reports, tokenCount };
      reports = [];
    }
    // Tokens of calls are no content; those of text whose end is held back are.
    if (reports.length > 0 && this.#call < 0) yield { kind: 'delta', text: '', tokens: reports, tokenCount };
  }

  *flush(): Generator<AnswerEvent, void, void> {
    for (const event of this.#reader.flush()) yield* this.#told(event);
  }

  /** Calls that are whole end an answer in a way of their own. */
  reason(reason: 'stop' | 'length'): 'stop' | 'length' | 'toolCalls' {
    return reason === 'stop' && this.#reader.calls > 0 && this.#reader.isWhole ? 'toolCalls' : reason;
  }

  *#told(event: ToolEvent): Generator<AnswerEvent, void, void> {
    switch (event.kind) {
      case 'text':
        yield { kind: 'delta', text: event.text, tokens: [], tokenCount: this.#tokenCount };
        break;
      case 'call':
        yield {
          kind: 'toolCall',
          call: ++this.#call,
          id: `call_${randomBytes(15).toString('base64url')}`,
          name: event.name,
        };
        break;
      case 'arguments':
        yield { kind: 'toolArguments', call: this.#call, text: event.text };
        break;
      default:
        event satisfies never;
    }
  }
}
