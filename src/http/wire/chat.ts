/** The body of /v1/chat/completions: its schema, and what it means. */
import type { XStatic } from 'typebox/schema';
import type { AnswerOptions, Format, Message, PromptEnd, Tool, ToolUse } from '../../answer/types.js';
import { MoestroError } from '../../errors.js';
import { check, invalid, shown } from '../check.js';
import { answerOptions, choiceCount, type ModelLimits, SAMPLING_FIELDS, unsupported } from './sampling.js';
import { responseFormat, TOOL_FIELDS, toolUse } from './tools.js';

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool', 'function'] as const;

export const MESSAGES_FIELD = {
  type: 'array',
  minItems: 1,
  items: {
    type: 'object',
    required: ['role'],
    properties: {
      role: { type: 'string', enum: ROLES },
      content: { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'object' } }] },
      name: { type: 'string' },
      tool_calls: { type: 'array', items: {} },
      tool_call_id: { type: 'string' },
      // Two names for the thoughts of an earlier answer.
      reasoning_content: { type: 'string' },
      reasoning: { type: 'string' },
    },
  },
} as const;

/** vLLM's: where the prompt ends. */
export const PROMPT_END_FIELDS = {
  add_generation_prompt: { type: 'boolean' },
  continue_final_message: { type: 'boolean' },
} as const;

export const CHAT_SCHEMA = {
  type: 'object',
  required: ['messages'],
  properties: {
    ...SAMPLING_FIELDS,
    model: { type: 'string' },
    messages: MESSAGES_FIELD,
    ...PROMPT_END_FIELDS,
    max_completion_tokens: { type: 'integer', minimum: -1 },
    logprobs: { type: 'boolean' },
    top_logprobs: { type: 'integer', minimum: 0, maximum: 20 },
    reasoning_format: { type: 'string' },
    reasoning_effort: { type: 'string' },
    chat_template_kwargs: { type: 'object' },
    modalities: { type: 'array', items: {} },
    ...TOOL_FIELDS,
    functions: { type: 'array', items: {} },
    function_call: { anyOf: [{ type: 'string' }, { type: 'object' }] },
  },
} as const;

type ChatBody = XStatic<typeof CHAT_SCHEMA>;

/** A checked chat request, free of the wire's spellings. */
export interface ChatRequest {
  readonly messages: readonly Message[];
  readonly templateKwargs: Readonly<Record<string, unknown>>;
  readonly end: PromptEnd;
  readonly options: AnswerOptions;
  /** What the model is told of. */
  readonly tools: readonly Tool[];
  readonly choices: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly reportProgress: boolean;
  /** Thoughts in a field of their own; off, they stay in the text. */
  readonly splitsReasoning: boolean;
}

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_PARAMETER, UNSUPPORTED_CONTENT, each with details.param. */
export function readChatRequest(json: unknown, limits: ModelLimits): ChatRequest {
  const body = check(CHAT_SCHEMA, json);
  refuseUnsupported(body);
  const format = responseFormat(body);
  refuseDeep(body.tools, 'tools');
  const tools = toolUse(body);
  const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? body.n_predict;
  if (maxTokens === 0) {
    const path = body.max_completion_tokens === 0 ? 'max_completion_tokens' : 'max_tokens';
    throw invalid(path, '0', 'a whole number of 1 or more');
  }
  return {
    messages: body.messages.map(readMessage),
    templateKwargs: templateKwargs(body),
    end: promptEnd(body),
    options: shaped(answerOptions(body, topLogprobs(body), limits, maxTokens, needsForm(body)), format, tools),
    tools: tools?.tools ?? [],
    choices: choiceCount(body.n, limits),
    stream: body.stream === true,
    includeUsage: body.stream_options?.include_usage === true,
    reportProgress: body.return_progress === true,
    splitsReasoning: body.reasoning_format !== 'none',
  };
}

/** @throws {MoestroError} INVALID_REQUEST when there is no message to go on with, or a turn is to be opened too. */
export function promptEnd({
  messages = [],
  add_generation_prompt: opens,
  continue_final_message: continues,
}: Partial<Pick<ChatBody, 'messages' | 'add_generation_prompt' | 'continue_final_message'>>): PromptEnd {
  if (continues !== true) return opens === false ? 'closed' : 'newTurn';
  const path = 'continue_final_message';
  if (opens === true) throw invalid(path, 'true beside "add_generation_prompt": true', 'one of them');
  const { role = 'none', tool_calls: calls = [] } = messages.at(-1) ?? {};
  if (role !== 'assistant') throw invalid(path, `a last message of role "${role}"`, 'one of role "assistant"');
  if (calls.length > 0) throw invalid(path, 'a last message that holds calls', 'one of text');
  return 'inMessage';
}

/**
 * Structured output and tool calls: one wrong token breaks what reads the answer, so few bits are no default there. A
 * conversation in which tools have spoken goes on in their form.
 */
export function needsForm(body: Pick<ChatBody, 'response_format' | 'tools' | 'functions' | 'messages'>): boolean {
  const format = body.response_format?.type;
  return (
    (format !== undefined && format !== 'text') ||
    (body.tools?.length ?? 0) + (body.functions?.length ?? 0) > 0 ||
    body.messages.some(({ role, tool_calls }) => role === 'tool' || role === 'function' || tool_calls !== undefined)
  );
}

/** The form of the answer joins the rest. @throws {MoestroError} INVALID_REQUEST for two formats at once. */
function shaped(options: AnswerOptions, format: Format | undefined, tools: ToolUse | undefined): AnswerOptions {
  if (format !== undefined && options.format !== undefined) {
    throw invalid('response_format', `it beside "${options.format.param}"`, 'one of them');
  }
  return {
    ...options,
    ...(format === undefined ? {} : { format }),
    ...(tools === undefined ? {} : { toolUse: tools }),
  };
}

function topLogprobs(body: ChatBody): number | null {
  if (body.logprobs === true) return body.top_logprobs ?? 0;
  if (body.top_logprobs !== undefined && body.top_logprobs > 0) {
    throw invalid('top_logprobs', `${body.top_logprobs} without "logprobs": true`, '"logprobs" to be true');
  }
  return null;
}

function templateKwargs(body: ChatBody): Record<string, unknown> {
  const effort = body.reasoning_effort;
  refuseDeep(body.chat_template_kwargs, 'chat_template_kwargs');
  return {
    ...(effort === undefined ? {} : { reasoning_effort: effort, enable_thinking: effort !== 'none' }),
    ...(body.chat_template_kwargs as Record<string, unknown> | undefined),
  };
}

/** What goes to the template as it is, is walked there by functions that call themselves: deeper than any honest value. */
const NESTING_MAX = 100;

/** @throws {MoestroError} INVALID_REQUEST naming the value. */
export function refuseDeep(value: unknown, path: string, left = NESTING_MAX): void {
  if (typeof value !== 'object' || value === null) return;
  if (left === 0) throw invalid(path, 'values nested deeper', `at most ${NESTING_MAX} levels`);
  for (const item of Object.values(value)) refuseDeep(item, path, left - 1);
}

function refuseUnsupported(body: ChatBody): void {
  if (body.functions !== undefined && body.functions.length > 0 && body.function_call !== 'none') {
    throw unsupported('functions', '"tools", their newer form');
  }
  const modality = body.modalities?.findIndex((item) => item !== 'text') ?? -1;
  if (modality >= 0) throw unsupported(`modalities[${modality}]`, '"text"');
}

/** A message as clients write it: other APIs turn theirs into these. */
export interface WireMessage {
  readonly role: string;
  readonly content?: string | readonly object[];
  readonly name?: string;
  readonly tool_calls?: readonly unknown[];
  readonly tool_call_id?: string;
  readonly reasoning_content?: string;
  readonly reasoning?: string;
}

/** @throws {MoestroError} INVALID_REQUEST, UNSUPPORTED_CONTENT naming the place. */
export function readMessage(message: WireMessage, index: number): Message {
  const path = `messages[${index}]`;
  const content = message.content === undefined ? null : readContent(message.content, `${path}.content`);
  if (content === null && message.role !== 'assistant') {
    throw invalid(`${path}.content`, 'nothing', 'a string or a list of text parts');
  }
  refuseDeep(message.tool_calls, `${path}.tool_calls`);
  const thoughts = message.reasoning_content ?? message.reasoning;
  // Newer names of older roles: templates know system and tool.
  const role = message.role === 'developer' ? 'system' : message.role === 'function' ? 'tool' : message.role;
  return {
    role,
    // Templates that know no tools join the content to other text, and those that do know ask whether it is empty.
    content: content ?? '',
    ...(message.name === undefined ? {} : { name: message.name }),
    ...(message.tool_calls === undefined ? {} : { tool_calls: message.tool_calls }),
    ...(message.tool_call_id === undefined ? {} : { tool_call_id: message.tool_call_id }),
    ...(thoughts === undefined ? {} : { reasoning_content: thoughts }),
  };
}

function readContent(content: string | readonly object[], path: string): string {
  if (typeof content === 'string') return content;
  return content
    .map((part, index) => {
      const { type, text } = part as { readonly type?: unknown; readonly text?: unknown };
      if (type !== 'text') {
        throw new MoestroError(
          'UNSUPPORTED_CONTENT',
          `Cannot use "${path}[${index}]": found a part of type ${shown(type)}, needed "text"`,
          { param: `${path}[${index}].type` },
        );
      }
      if (typeof text !== 'string') throw invalid(`${path}[${index}].text`, shown(text), 'a string');
      return text;
    })
    .join('\n');
}
