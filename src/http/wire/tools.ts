/** Tools and response_format of a chat request, as the generator takes them. */
import type { XStatic } from 'typebox/schema';
import type { Format, Tool, ToolUse } from '../../answer/types.js';
import { invalid, shown } from '../check.js';
import { unsupported } from './sampling.js';

export const TOOL_FIELDS = {
  response_format: {
    type: 'object',
    properties: {
      type: { type: 'string', enum: ['text', 'json_object', 'json_schema'] },
      json_schema: {
        type: 'object',
        properties: { name: { type: 'string' }, schema: {}, strict: { type: 'boolean' } },
      },
      // llama.cpp takes the schema beside the type.
      schema: {},
    },
  },
  tools: { type: 'array', items: {} },
  tool_choice: { anyOf: [{ type: 'string' }, { type: 'object' }] },
  parallel_tool_calls: { type: 'boolean' },
} as const;

const TOOL_SCHEMA = { type: 'object', properties: TOOL_FIELDS } as const;
export type ToolBody = XStatic<typeof TOOL_SCHEMA>;

/** Tools of one request at most: each is compiled, and told to the model. */
const TOOLS_MAX = 128;
/** Names as OpenAI allows them. */
const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/;

/** undefined for plain text. @throws {MoestroError} INVALID_REQUEST for a schema that is missing. */
export function responseFormat(body: ToolBody): Format | undefined {
  const format = body.response_format;
  if (format?.type === undefined) return undefined;
  switch (format.type) {
    case 'text':
      return undefined;
    case 'json_object':
      if (format.schema === undefined) return { kind: 'json_object', param: 'response_format' };
      return { kind: 'json_schema', schema: format.schema, param: 'response_format.schema' };
    case 'json_schema': {
      const schema = format.json_schema?.schema ?? format.schema;
      const param = 'response_format.json_schema.schema';
      if (schema === undefined) throw invalid(param, 'nothing', 'a JSON Schema');
      return { kind: 'json_schema', schema, param };
    }
    default:
      return format.type satisfies never;
  }
}

/** undefined where there are no tools, or they are switched off. @throws {MoestroError} INVALID_REQUEST. */
export function toolUse(body: ToolBody): ToolUse | undefined {
  const choice = body.tool_choice;
  if (choice === 'none') return undefined;
  const tools = (body.tools ?? []).map(readTool);
  if (tools.length === 0) {
    if (choice === undefined || choice === 'auto') return undefined;
    throw invalid('tool_choice', shown(choice), '"tools" beside it');
  }
  if (tools.length > TOOLS_MAX) throw invalid('tools', `${tools.length} tools`, `at most ${TOOLS_MAX}`);
  const twice = tools.findIndex(({ name }, index) => tools.findIndex((tool) => tool.name === name) !== index);
  if (twice >= 0)
    throw invalid(`tools[${twice}].function.name`, `"${tools[twice]!.name}" a second time`, 'another name');
  return { tools, choice: readChoice(choice, tools), parallel: body.parallel_tool_calls !== false };
}

function readTool(value: unknown, index: number): Tool {
  const path = `tools[${index}]`;
  const tool = asObject(value, path);
  if (tool.type !== undefined && tool.type !== 'function') throw unsupported(`${path}.type`, '"function"');
  const called = asObject(tool.function, `${path}.function`);
  const { name, description, parameters } = called;
  if (typeof name !== 'string' || !TOOL_NAME.test(name)) {
    throw invalid(`${path}.function.name`, shown(name), 'up to 64 letters, digits, "_" and "-"');
  }
  return {
    name,
    ...(typeof description === 'string' ? { description } : {}),
    parameters: parameters ?? { type: 'object', properties: {} },
    param: `${path}.function.parameters`,
  };
}

function readChoice(choice: ToolBody['tool_choice'], tools: readonly Tool[]): ToolUse['choice'] {
  if (choice === undefined || choice === 'auto') return 'auto';
  if (choice === 'required' || choice === 'any') return 'required';
  const named = typeof choice === 'object' ? (choice as { function?: { name?: unknown } }).function?.name : undefined;
  const tool = tools.find(({ name }) => name === named);
  if (tool !== undefined) return { name: tool.name };
  const names = tools.map(({ name }) => `"${name}"`).join(', ');
  throw invalid('tool_choice', shown(choice), `"auto", "none", "required", or one of the functions ${names}`);
}

function asObject(value: unknown, path: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw invalid(path, shown(value), 'an object');
}
