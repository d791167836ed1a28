/**
 * Tools for models whose chat template knows none: they are told of in a system message, in the words of the Hermes format,
 * and calls and their results in the conversation become text of the same form.
 */
import type { CallMarks } from './tool-rules.js';

interface PromptMessage {
  readonly role: string;
  readonly content: string | null;
  readonly name?: string;
  readonly tool_calls?: readonly unknown[];
  readonly tool_call_id?: string;
}

/** @param tools as JSON of the API: {type: "function", function: {name, description, parameters}}. */
export function withToolPrompt(
  messages: readonly PromptMessage[],
  tools: readonly unknown[],
  marks: CallMarks,
): PromptMessage[] {
  const form = `${marks.begin}${marks.beforeName}NAME${marks.afterName}ARGUMENTS${marks.end}`;
  const told =
    tools.length === 0
      ? []
      : [
          'You may call these functions, each described by a JSON Schema of its arguments:',
          ...tools.map((tool) => JSON.stringify(tool)),
          `To call one, write its name and its arguments as JSON in this form:\n${form}`,
        ];
  const plain = messages.map((message) => asText(message, marks));
  if (told.length === 0) return plain;
  const instructions = told.join('\n');
  const first = plain[0];
  if (first?.role !== 'system') return [{ role: 'system', content: instructions }, ...plain];
  return [{ ...first, content: `${first.content ?? ''}\n\n${instructions}` }, ...plain.slice(1)];
}

function asText(message: PromptMessage, marks: CallMarks): PromptMessage {
  const content = message.content ?? '';
  if (message.role === 'tool') return { role: 'user', content: `<tool_response>\n${content}\n</tool_response>` };
  if (message.tool_calls === undefined || message.tool_calls.length === 0) return message;
  const calls = message.tool_calls.map((call) => {
    const { name, arguments: given } = (call as { function?: { name?: unknown; arguments?: unknown } }).function ?? {};
    const written = typeof given === 'string' ? given : JSON.stringify(given ?? {});
    return `${marks.begin}${marks.beforeName}${String(name)}${marks.afterName}${written}${marks.end}`;
  });
  const parts = content === '' ? calls : [content, ...calls];
  return { role: message.role, content: parts.join(marks.between) };
}
