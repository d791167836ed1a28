/**
 * How do messages become the prompt a model was trained on? By the model's own Jinja template, with the globals that
 * Hugging Face's `apply_chat_template` gives it.
 */
import { Environment, Interpreter, Template } from '@huggingface/jinja';
import { LRUCache } from 'lru-cache';
import { MoestroError } from '../errors.js';
import { templateGlobals } from './template-globals.js';
import { asArray, asObject, asString, invalid } from './tokenizer-json.js';
import type { ChatMessage } from './types.js';

/** Templates of one model: "default", and others by name such as "tool_use". */
export type ChatTemplates = ReadonlyMap<string, string>;

export interface TemplateInput {
  readonly messages: readonly ChatMessage[];
  readonly addGenerationPrompt: boolean;
  readonly tools: readonly unknown[] | null;
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** bos_token, eos_token, unk_token, pad_token: texts, where the model has them. */
  readonly tokens: Readonly<Record<string, string>>;
}

/** A handful of models may be open in one process, each with two or three templates. */
const compiled = new LRUCache<string, Template>({ max: 32 });

/**
 * @param value `chat_template` of tokenizer_config.json: a text, or a list of {name, template}.
 * @param jinjaFile text of chat_template.jinja, which goes before the default of the list.
 */
export function readChatTemplates(value: unknown, jinjaFile: string | null): ChatTemplates {
  const templates = new Map<string, string>();
  const place = 'tokenizer_config.json chat_template';
  if (typeof value === 'string') templates.set('default', value);
  else if (value !== undefined && value !== null) {
    asArray(value, place).forEach((item, i) => {
      const entry = asObject(item, `${place}[${i}]`);
      templates.set(asString(entry.name, `${place}[${i}].name`), asString(entry.template, `${place}[${i}].template`));
    });
    if (!templates.has('default') && templates.size > 0) {
      if (templates.size > 1) throw invalid(place, value, 'one entry named "default"');
      templates.set('default', [...templates.values()][0]!);
    }
  }
  if (jinjaFile !== null) templates.set('default', jinjaFile);
  return templates;
}

/** The template for a request: "tool_use" where there is one and tools are given. */
export function chooseTemplate(templates: ChatTemplates, hasTools: boolean): string {
  const source = (hasTools ? templates.get('tool_use') : undefined) ?? templates.get('default');
  if (source === undefined)
    throw new MoestroError(
      'TEMPLATE_FAILED',
      'Cannot render messages: the model has no chat template, needed "chat_template" in tokenizer_config.json or a chat_template.jinja',
    );
  return source;
}

function compile(source: string): Template {
  const known = compiled.get(source);
  if (known !== undefined) return known;
  const template = new Template(source);
  compiled.set(source, template);
  return template;
}

/**
 * @throws {MoestroError} TEMPLATE_FAILED with the template's own message where it raised one (raise_exception), or
 * with what is wrong with it.
 */
export function renderTemplate(source: string, input: TemplateInput): string {
  const variables: Readonly<Record<string, unknown>> = {
    ...templateGlobals(),
    ...input.tokens,
    documents: null,
    messages: input.messages,
    tools: input.tools,
    add_generation_prompt: input.addGenerationPrompt,
  };
  try {
    const environment = new Environment();
    for (const [name, value] of Object.entries(variables)) environment.set(name, value);
    // A request may add names, but not take the template's own away.
    for (const [name, value] of Object.entries(input.kwargs))
      if (!environment.variables.has(name)) environment.set(name, value);
    return String(new Interpreter(environment).run(compile(source).parsed).value);
  } catch (error) {
    // Whatever a model's template throws is the template's failure; the process and the engine are not concerned.
    const reason = error instanceof Error ? error.message : String(error);
    throw new MoestroError('TEMPLATE_FAILED', `Cannot render the chat template: ${reason}`, { reason }, error);
  }
}

/**
 * The prompt up to the end of its last message. `mark` and a vertical tab follow the message, as Hugging Face's
 * `continue_final_message` has its tag and a blank: where the template took that tab away it trims messages, so the blanks
 * at the end of this one go too, as those of other messages did.
 *
 * @param mark a character that stands nowhere else.
 * @throws {MoestroError} TEMPLATE_FAILED when the template left the message out.
 */
export function cutAtMark(rendered: string, mark: string, content: string): string {
  const at = rendered.lastIndexOf(mark);
  if (at < 0) {
    const found = 'Cannot continue the last message: the chat template does not write it';
    throw new MoestroError('TEMPLATE_FAILED', found, { param: 'continue_final_message' });
  }
  const blanks = rendered[at + 1] === '\v' ? 0 : content.length - content.trimEnd().length;
  // A template may write a message twice.
  return rendered
    .slice(0, at - blanks)
    .replaceAll(`${mark}\v`, '')
    .replaceAll(mark, '');
}
