/** Content blocks of Anthropic's messages as messages of a conversation. */
import { MoestroError } from '../../errors.js';
import { invalid, shown } from '../check.js';
import type { WireMessage } from './chat.js';

type Content = string | readonly object[];

interface Block {
  readonly type?: unknown;
  readonly [field: string]: unknown;
}

/**
 * A block of Claude Code's that says which version it is and differs from request to request: before everything else,
 * it would keep any two prompts from having a beginning in common.
 */
const ATTRIBUTION = 'x-anthropic-billing-header:';

export function readSystem(system: Content | undefined): WireMessage[] {
  if (system === undefined) return [];
  const texts = typeof system === 'string' ? [system] : system.map((block, i) => blockText(block, `system[${i}]`));
  const content = texts.filter((text) => !text.startsWith(ATTRIBUTION)).join('\n');
  return content === '' ? [] : [{ role: 'system', content }];
}

/**
 * One message: results of tools become messages of their own, before the text that stands beside them.
 *
 * @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_CONTENT naming the place.
 */
export function readTurns(message: { readonly role: string; readonly content: Content }, index: number): WireMessage[] {
  const { role, content } = message;
  if (typeof content === 'string') return [{ role, content }];
  const results: WireMessage[] = [];
  const texts: string[] = [];
  const calls: object[] = [];
  const thoughts: string[] = [];
  for (const [i, item] of content.entries()) {
    const path = `messages[${index}].content[${i}]`;
    const block = item as Block;
    if (block.type === 'tool_result') results.push(toolResult(block, path));
    else if (block.type === 'tool_use') calls.push(toolCall(block, path));
    else if (block.type === 'thinking') thoughts.push(field(block, 'thinking', path));
    // What nobody but Anthropic can read.
    else if (block.type !== 'redacted_thinking') texts.push(blockText(block, path));
  }
  if (results.length > 0 && texts.length === 0) return results;
  const said: WireMessage = {
    role,
    content: texts.join('\n'),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
    ...(thoughts.length === 0 ? {} : { reasoning_content: thoughts.join('\n') }),
  };
  return [...results, said];
}

function toolResult(block: Block, path: string): WireMessage {
  const { content = '' } = block;
  const text = Array.isArray(content)
    ? content.map((item, i) => blockText(item as Block, `${path}.content[${i}]`)).join('\n')
    : content;
  if (typeof text !== 'string') throw invalid(`${path}.content`, shown(text), 'a string or a list of text blocks');
  const tool_call_id = field(block, 'tool_use_id', path);
  // Templates know no failed calls; the model reads of it.
  return { role: 'tool', tool_call_id, content: block.is_error === true ? `Error: ${text}` : text };
}

function toolCall(block: Block, path: string): object {
  const { input } = block;
  if (typeof input !== 'object' || input === null) throw invalid(`${path}.input`, shown(input), 'an object');
  const call = { name: field(block, 'name', path), arguments: JSON.stringify(input) };
  return { id: field(block, 'id', path), type: 'function', function: call };
}

function blockText(item: object, path: string): string {
  const block = item as Block;
  if (block.type === 'text') return field(block, 'text', path);
  throw new MoestroError(
    'UNSUPPORTED_CONTENT',
    `Cannot use "${path}": found a block of type ${shown(block.type)}, needed "text"`,
    { param: `${path}.type` },
  );
}

function field(block: Block, name: string, path: string): string {
  const value = block[name];
  if (typeof value !== 'string') throw invalid(`${path}.${name}`, shown(value), 'a string');
  return value;
}
