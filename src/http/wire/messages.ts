/** The body of Anthropic's /v1/messages and /v1/messages/count_tokens: its schema, and what it means. */
import type { XStatic } from 'typebox/schema';
import type { AnswerOptions, Message, PromptEnd, Tool, ToolUse } from '../../answer/types.js';
import { check, invalid, shown } from '../check.js';
import { readMessage, refuseDeep } from './chat.js';
import { readSystem, readTurns } from './message-blocks.js';
import { answerOptions, type ModelLimits, SAMPLING_FIELDS, unsupported } from './sampling.js';

const CONTENT_FIELD = { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'object' } }] } as const;

export const MESSAGES_SCHEMA = {
  type: 'object',
  required: ['messages'],
  properties: {
    ...SAMPLING_FIELDS,
    model: { type: 'string' },
    messages: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['role', 'content'],
        properties: { role: { type: 'string', enum: ['user', 'assistant', 'system'] }, content: CONTENT_FIELD },
      },
    },
    system: CONTENT_FIELD,
    max_tokens: { type: 'integer', minimum: 1 },
    stop_sequences: { type: 'array', items: { type: 'string' }, maxItems: 64 },
    tools: { type: 'array', items: { type: 'object' } },
    tool_choice: {
      type: 'object',
      required: ['type'],
      properties: {
        type: { type: 'string', enum: ['auto', 'any', 'tool', 'none'] },
        name: { type: 'string' },
        disable_parallel_tool_use: { type: 'boolean' },
      },
    },
    thinking: { type: 'object', required: ['type'], properties: { type: { type: 'string' } } },
    chat_template_kwargs: { type: 'object' },
  },
} as const;

type MessagesBody = XStatic<typeof MESSAGES_SCHEMA>;

export interface MessagesRequest {
  readonly messages: readonly Message[];
  readonly prompt: {
    readonly kwargs: Readonly<Record<string, unknown>>;
    readonly tools: readonly Tool[];
    readonly end: PromptEnd;
  };
  /** What the assistant has begun to say, where the last message is its own: the answer goes on with it, as Anthropic's do. */
  readonly continues: { readonly continued?: string };
  readonly options: AnswerOptions;
  readonly stream: boolean;
  readonly reportsProgress: boolean;
}

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_PARAMETER, UNSUPPORTED_CONTENT, each with details.param. */
export function readMessagesRequest(json: unknown, limits: ModelLimits): MessagesRequest {
  const body = check(MESSAGES_SCHEMA, json);
  if ((body.n ?? 1) > 1) throw unsupported('n', '1: a message is one answer');
  const toolUse = readTools(body);
  const messages = [...readSystem(body.system), ...body.messages.flatMap(readTurns)];
  const isForm = toolUse !== undefined || messages.some(({ role }) => role === 'tool');
  const drawn = answerOptions({ ...body, stop: body.stop_sequences ?? [] }, null, limits, body.max_tokens, isForm);
  refuseDeep(body.chat_template_kwargs, 'chat_template_kwargs');
  const read = messages.map(readMessage);
  const last = read.at(-1)!;
  const isBegun = last.role === 'assistant' && last.tool_calls === undefined;
  return {
    messages: read,
    prompt: {
      kwargs: {
        // Absent, it is the model's own habit that counts.
        ...(body.thinking === undefined ? {} : { enable_thinking: body.thinking.type !== 'disabled' }),
        ...(body.chat_template_kwargs as Record<string, unknown> | undefined),
      },
      tools: toolUse?.tools ?? [],
      end: isBegun ? 'inMessage' : 'newTurn',
    },
    continues: isBegun ? { continued: last.content ?? '' } : {},
    options: { ...drawn, ...(toolUse === undefined ? {} : { toolUse }) },
    stream: body.stream === true,
    reportsProgress: body.return_progress === true,
  };
}

const TOOL_SCHEMA = {
  type: 'object',
  required: ['name', 'input_schema'],
  properties: {
    type: { type: 'string' },
    name: { type: 'string' },
    description: { type: 'string' },
    input_schema: { type: 'object' },
  },
} as const;

/** Undefined when there are none, or they are switched off. */
function readTools({ tools: wire = [], tool_choice: wanted }: MessagesBody): ToolUse | undefined {
  const tools = wire.map((item, index): Tool => {
    const path = `tools[${index}]`;
    const { type = 'custom' } = item as { readonly type?: unknown };
    // Others run on Anthropic's servers.
    if (type !== 'custom' && type !== null) throw unsupported(`${path}.type`, `"custom": found ${shown(type)}`);
    const { name, description, input_schema } = check(TOOL_SCHEMA, item, path);
    refuseDeep(input_schema, `${path}.input_schema`);
    const param = `${path}.input_schema`;
    return { name, ...(description === undefined ? {} : { description }), parameters: input_schema, param };
  });
  const type = wanted?.type ?? 'auto';
  if (type === 'any' && tools.length === 0) throw invalid('tool_choice.type', '"any" without tools', 'one of "tools"');
  if (type === 'tool' && !tools.some(({ name }) => name === wanted?.name)) {
    throw invalid('tool_choice.name', shown(wanted?.name), 'the name of a tool');
  }
  if (type === 'none' || tools.length === 0) return undefined;
  const choice = type === 'any' ? 'required' : type === 'tool' ? { name: wanted!.name! } : type;
  return { tools, choice, parallel: wanted?.disable_parallel_tool_use !== true };
}
