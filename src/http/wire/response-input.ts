/** The input items of /v1/responses as messages of a conversation. */
import { MoestroError } from '../../errors.js';
import { invalid, shown } from '../check.js';
import type { WireMessage } from './chat.js';
import { unsupported } from './sampling.js';

interface Item {
  readonly type?: unknown;
  readonly [field: string]: unknown;
}

const ROLES = ['system', 'developer', 'user', 'assistant'];
const TEXT_PARTS = ['input_text', 'output_text', 'text', 'refusal', 'reasoning_text', 'summary_text'];

/**
 * Items to messages: what the model said and the calls it made in one turn become one message again.
 *
 * @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_CONTENT, UNSUPPORTED_PARAMETER naming the place.
 */
export function readInput(input: unknown, instructions: string | undefined): WireMessage[] {
  const messages: WireMessage[] = instructions === undefined ? [] : [{ role: 'system', content: instructions }];
  if (typeof input === 'string') return [...messages, { role: 'user', content: input }];
  if (!Array.isArray(input) || input.length === 0) throw invalid('input', shown(input), 'a string or a list of items');
  let thoughts = '';
  for (const [index, item] of (input as readonly unknown[]).entries()) {
    const path = `input[${index}]`;
    if (typeof item !== 'object' || item === null) throw invalid(path, shown(item), 'an object');
    if ((item as Item).type === 'reasoning') {
      thoughts = thoughtsOf(item as Item, path);
      continue;
    }
    const message = messageOf(item as Item, path);
    const last = messages.at(-1);
    if (message.role !== 'assistant') messages.push(message);
    else if (last?.role === 'assistant') messages[messages.length - 1] = joined(last, message);
    else messages.push(thoughts === '' ? message : { ...message, reasoning_content: thoughts });
    thoughts = '';
  }
  return messages;
}

function messageOf(item: Item, path: string): WireMessage {
  switch (item.type) {
    case undefined:
    case 'message':
      if (!ROLES.includes(item.role as string)) {
        throw invalid(`${path}.role`, shown(item.role), `one of ${ROLES.map((role) => `"${role}"`).join(', ')}`);
      }
      return { role: item.role as string, content: partsText(item.content, `${path}.content`) };
    case 'function_call': {
      const call = { name: text(item.name, `${path}.name`), arguments: text(item.arguments, `${path}.arguments`) };
      const id = text(item.call_id, `${path}.call_id`);
      return { role: 'assistant', content: '', tool_calls: [{ id, type: 'function', function: call }] };
    }
    case 'function_call_output':
      return {
        role: 'tool',
        tool_call_id: text(item.call_id, `${path}.call_id`),
        content: partsText(item.output, `${path}.output`),
      };
    case 'item_reference':
      throw unsupported(`${path}.type`, 'the item itself: nothing is stored here');
    default:
      throw unsupported(`${path}.type`, '"message", "function_call", "function_call_output" or "reasoning"');
  }
}

const joined = (first: WireMessage, second: WireMessage): WireMessage => ({
  ...first,
  content: [first.content, second.content].filter((content) => content !== '').join('\n'),
  ...(first.tool_calls === undefined && second.tool_calls === undefined
    ? {}
    : { tool_calls: [...(first.tool_calls ?? []), ...(second.tool_calls ?? [])] }),
});

/** The thoughts themselves, or what was told of them. */
function thoughtsOf(item: Item, path: string): string {
  const content = item.content === undefined || item.content === null ? [] : item.content;
  const whole = partsText(content, `${path}.content`);
  return whole !== '' ? whole : partsText(item.summary ?? [], `${path}.summary`);
}

function partsText(content: unknown, path: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw invalid(path, shown(content), 'a string or a list of text parts');
  return (content as readonly unknown[])
    .map((part, index) => {
      const { type, text: value, refusal } = (part ?? {}) as { type?: unknown; text?: unknown; refusal?: unknown };
      if (!TEXT_PARTS.includes(type as string)) {
        throw new MoestroError(
          'UNSUPPORTED_CONTENT',
          `Cannot use "${path}[${index}]": found a part of type ${shown(type)}, needed "input_text" or "output_text"`,
          { param: `${path}[${index}].type` },
        );
      }
      return text(type === 'refusal' ? refusal : value, `${path}[${index}].text`);
    })
    .join('\n');
}

function text(value: unknown, path: string): string {
  if (typeof value !== 'string') throw invalid(path, shown(value), 'a string');
  return value;
}
