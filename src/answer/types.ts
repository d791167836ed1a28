/**
 * What callers of TextGenerator say and hear, as plain data: what an answer is asked to be, the events it comes in, and
 * the engine's word on itself under the names it has above.
 */
import type { FormatSource } from '../constrain/format.js';
import type { EngineLive, MemoryState } from '../engine/engine-metrics.js';
import type { EngineInfo, Precision, Priority, Sampling, Usage } from '../engine/types.js';
import type { ChatMessage, PromptEnd } from '../text/types.js';

export type Message = ChatMessage;
export type { PromptEnd };
export type ModelInfo = EngineInfo;
export type ModelMemory = MemoryState;
export type ModelLive = EngineLive;

/** What the text of an answer must be, whole: checked and compiled before anything runs. */
export type Format = FormatSource & {
  /** The request's own name for it, for errors: "response_format.json_schema.schema". */
  readonly param: string;
};

export interface Tool {
  readonly name: string;
  readonly description?: string;
  /** JSON Schema of the arguments, an object. */
  readonly parameters: unknown;
  /** The request's own name for `parameters`, for errors. */
  readonly param: string;
}

/** The tools of one request. A request whose tools are switched off ("none") has none here. */
export interface ToolUse {
  readonly tools: readonly Tool[];
  /** The model's choice, at least one call, or calls of this one. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Whether one answer may hold several calls. */
  readonly parallel: boolean;
  /** Calls of one answer at most, where several are allowed; up to 16, which it is when absent. */
  readonly callsMax?: number;
}

export interface AnswerOptions {
  /** null: until the model ends its answer or the context is full. */
  readonly maxTokens: number | null;
  /** Texts that end the answer and never stand in it. */
  readonly stop: readonly string[];
  /** Tokens that end the answer, beside the model's own. */
  readonly stopTokenIds?: readonly number[];
  /** Tokens before which nothing ends the answer: no such token, and no stop text that is whole until then. */
  readonly minTokens?: number;
  /** Milliseconds after its first token from which on the answer ends, once it holds a line break: a line is whole then. */
  readonly predictMs?: number;
  readonly sampling: Sampling;
  readonly precision?: Precision;
  /** Go on where the model would end its answer. */
  readonly ignoreEos?: boolean;
  readonly priority?: Priority;
  /** As GenerateRequest.usesPrefixes. */
  readonly usesPrefixes?: boolean;
  readonly format?: Format;
  /** Beside a format, an answer is either calls or in that format. */
  readonly toolUse?: ToolUse;
}

export interface Job {
  readonly promptIds: readonly number[];
  readonly options: AnswerOptions;
  /** Whether the answer goes on with the text of the prompt, so that a space before its first word belongs to it. */
  readonly continuesText?: boolean;
  /** The message of the assistant that the answer goes on with: thoughts that it leaves open go on too. */
  readonly continued?: string;
  /** Tell the model's thoughts apart from its answer, where it is one that thinks. */
  readonly splitsReasoning?: boolean;
  /** Report the prompt's own tokens too, with as many alternatives as those of the answer. */
  readonly reportsPrompt?: boolean;
}

export interface ReportedToken {
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** One token of the answer with its alternatives; made only when logprobs were asked for. */
export interface TokenReport extends ReportedToken {
  /** Characters (UTF-16 units) of the answer before the token's own; the pieces of one character all begin where it does. */
  readonly begin: number;
  readonly top: readonly ReportedToken[];
}

/** Text of an answer with the tokens that wrote it. */
export interface Piece<Kind> {
  readonly kind: Kind;
  readonly text: string;
  readonly tokens: readonly TokenReport[];
  readonly tokenCount: number;
}

/** A token of the prompt. Nothing foretells the first one. */
export interface PromptReport extends Omit<TokenReport, 'logprob'> {
  readonly logprob: number | null;
}

export interface AnswerUsage extends Usage {
  /** Of the answer's tokens, those that the model thought with; 0 where thoughts are not told apart. */
  readonly reasoningTokens: number;
}

export type AnswerEvent =
  /** As the engine's. */
  | { readonly kind: 'prefill'; readonly done: number; readonly total: number; readonly cached: number }
  | { readonly kind: 'prompt'; readonly tokens: readonly PromptReport[] }
  /** `tokenCount`: tokens of the answer until here. */
  | Piece<'delta'>
  /** What the model thinks before it answers. */
  | Piece<'reasoning'>
  /** A call begins; calls of an answer are counted from 0, and its arguments follow. */
  | { readonly kind: 'toolCall'; readonly call: number; readonly id: string; readonly name: string }
  /** A piece of the JSON of that call's arguments. */
  | { readonly kind: 'toolArguments'; readonly call: number; readonly text: string }
  /** `toolCalls`: the answer ended by itself and holds calls. */
  | {
      readonly kind: 'finish';
      readonly reason: 'stop' | 'length' | 'toolCalls';
      readonly usage: AnswerUsage;
      /** The stop text that ended it. */
      readonly stop: string | null;
    };
