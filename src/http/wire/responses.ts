/** The body of /v1/responses: its schema, and what it means. */
import type { XStatic } from 'typebox/schema';
import type { AnswerOptions, Format, Message, Tool, ToolUse } from '../../answer/types.js';
import { check, invalid, shown } from '../check.js';
import { readMessage, refuseDeep } from './chat.js';
import { readInput } from './response-input.js';
import { answerOptions, type ModelLimits, SAMPLING_FIELDS, unsupported } from './sampling.js';

export const RESPONSES_SCHEMA = {
  type: 'object',
  properties: {
    ...SAMPLING_FIELDS,
    model: { type: 'string' },
    // A string, or items of many types: told apart in response-input.ts.
    input: {},
    instructions: { type: 'string' },
    max_output_tokens: { type: 'integer', minimum: 1 },
    tools: { type: 'array', items: { type: 'object' } },
    tool_choice: { anyOf: [{ type: 'string' }, { type: 'object' }] },
    parallel_tool_calls: { type: 'boolean' },
    max_tool_calls: { type: 'integer', minimum: 1 },
    truncation: { type: 'string', enum: ['auto', 'disabled'] },
    text: { type: 'object', properties: { format: { type: 'object' } } },
    reasoning: { type: 'object', properties: { effort: { type: 'string' }, summary: { type: 'string' } } },
    chat_template_kwargs: { type: 'object' },
    top_logprobs: { type: 'integer', minimum: 0, maximum: 20 },
    include: { type: 'array', items: { type: 'string' } },
    metadata: { type: 'object' },
    // Named so that asking for them is refused: there is nothing stored to go on from, and nobody to ask later.
    previous_response_id: { type: 'string' },
    conversation: {},
    prompt: {},
    background: { type: 'boolean' },
  },
} as const;

export type ResponsesBody = XStatic<typeof RESPONSES_SCHEMA>;

export interface ResponsesRequest {
  readonly body: ResponsesBody;
  readonly messages: readonly Message[];
  readonly templateKwargs: Readonly<Record<string, unknown>>;
  readonly tools: readonly Tool[];
  readonly options: AnswerOptions;
  readonly stream: boolean;
  readonly reportsProgress: boolean;
  /** Whether the oldest turns may be left out of a conversation that is too long. */
  readonly truncates: boolean;
  /** Thoughts as the summary that was asked for, instead of as they are. */
  readonly summarises: boolean;
}

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_PARAMETER, UNSUPPORTED_CONTENT, each with details.param. */
export function readResponsesRequest(json: unknown, limits: ModelLimits): ResponsesRequest {
  const body = check(RESPONSES_SCHEMA, json);
  for (const path of ['previous_response_id', 'conversation', 'prompt'] as const) {
    if (body[path] !== undefined) throw unsupported(path, 'the whole conversation in "input": nothing is stored here');
  }
  if ((body.n ?? 1) > 1) throw unsupported('n', '1: a response is one answer');
  if (body.background === true) throw unsupported('background', 'it to be false');
  const toolUse = readTools(body);
  const format = readFormat(body.text?.format);
  const messages = readInput(body.input, body.instructions);
  const isForm = format !== undefined || toolUse !== undefined || messages.some(({ role }) => role === 'tool');
  const topLogprobs = body.include?.includes('message.output_text.logprobs') ? 0 : null;
  const options = answerOptions(body, body.top_logprobs ?? topLogprobs, limits, body.max_output_tokens, isForm);
  refuseDeep(body.chat_template_kwargs, 'chat_template_kwargs');
  const effort = body.reasoning?.effort;
  return {
    body,
    messages: messages.map(readMessage),
    templateKwargs: {
      ...(effort === undefined ? {} : { reasoning_effort: effort, enable_thinking: effort !== 'none' }),
      ...(body.chat_template_kwargs as Record<string, unknown> | undefined),
    },
    tools: toolUse?.tools ?? [],
    options: {
      ...options,
      ...(toolUse === undefined ? {} : { toolUse }),
      ...(format === undefined ? {} : { format }),
    },
    stream: body.stream === true,
    reportsProgress: body.return_progress === true,
    truncates: body.truncation === 'auto',
    summarises: body.reasoning?.summary !== undefined,
  };
}

const TOOL_SCHEMA = {
  type: 'object',
  required: ['name'],
  properties: {
    name: { type: 'string' },
    description: { type: 'string' },
    parameters: { type: 'object' },
  },
} as const;

const CHOICE_SCHEMA = { type: 'object', required: ['name'], properties: { name: { type: 'string' } } } as const;

/** Undefined when there are none, or they are switched off. */
function readTools({ tools: wire = [], tool_choice: wanted = 'auto', ...body }: ResponsesBody): ToolUse | undefined {
  const tools = wire.map((item, index): Tool => {
    const path = `tools[${index}]`;
    const { type } = item as { readonly type?: unknown };
    if (type !== 'function') throw unsupported(`${path}.type`, `"function": found ${shown(type)}`);
    const { name, description, parameters = { type: 'object', properties: {} } } = check(TOOL_SCHEMA, item, path);
    refuseDeep(parameters, `${path}.parameters`);
    return {
      name,
      ...(description === undefined ? {} : { description }),
      parameters,
      param: `${path}.parameters`,
    };
  });
  const choice = readChoice(wanted, tools);
  if (choice === 'none' || tools.length === 0) return undefined;
  const { max_tool_calls: callsMax, parallel_tool_calls: parallel = true } = body;
  return { tools, choice, parallel, ...(callsMax === undefined ? {} : { callsMax }) };
}

function readChoice(wanted: string | object, tools: readonly Tool[]): ToolUse['choice'] | 'none' {
  if (wanted === 'none' || wanted === 'auto') return wanted;
  if (wanted === 'required' && tools.length > 0) return wanted;
  if (wanted === 'required') throw invalid('tool_choice', '"required" without tools', 'one of "tools"');
  if (typeof wanted === 'string') throw invalid('tool_choice', shown(wanted), '"auto", "none", "required" or a tool');
  const { type } = wanted as { readonly type?: unknown };
  if (type !== 'function') throw unsupported('tool_choice.type', `"function": found ${shown(type)}`);
  const { name } = check(CHOICE_SCHEMA, wanted, 'tool_choice');
  if (!tools.some((tool) => tool.name === name)) throw invalid('tool_choice.name', shown(name), 'the name of a tool');
  return { name };
}

function readFormat(format: object | undefined): Format | undefined {
  const { type, schema } = (format ?? { type: 'text' }) as { readonly type?: unknown; readonly schema?: unknown };
  switch (type) {
    case 'text':
      return undefined;
    case 'json_object':
      return { kind: 'json_object', param: 'text.format' };
    case 'json_schema':
      if (typeof schema !== 'object' || schema === null)
        throw invalid('text.format.schema', shown(schema), 'an object');
      refuseDeep(schema, 'text.format.schema');
      return { kind: 'json_schema', schema, param: 'text.format.schema' };
    default:
      throw invalid('text.format.type', shown(type), 'one of "text", "json_object", "json_schema"');
  }
}
