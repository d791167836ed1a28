/** One answer printed as it comes. */
import { once } from 'node:events';
import type { AnswerUsage, Message } from '../answer/types.js';
import type { SamplingConfig } from '../config.js';
import type { TextGenerator } from '../generate.js';

export interface PrintedAnswer {
  readonly text: string;
  readonly isInterrupted: boolean;
  /** null when it was interrupted. */
  readonly usage: AnswerUsage | null;
}

/**
 * Writes the text to standard output and nothing else. What the signal cuts short is an answer too.
 *
 * @param onPrompt told how far a prompt of several steps is, and null when its answer begins.
 */
export async function streamAnswer(
  generator: TextGenerator,
  messages: readonly Message[],
  { sampling, maxTokens }: SamplingConfig,
  stop: readonly string[],
  signal: AbortSignal,
  onPrompt: (progress: { readonly done: number; readonly total: number } | null) => void = () => {},
): Promise<PrintedAnswer> {
  const promptIds = generator.prompts.fromChat(messages);
  let text = '';
  let usage: AnswerUsage | null = null;
  try {
    for await (const { value } of generator.start([{ promptIds, options: { maxTokens, stop, sampling } }], signal)) {
      if (value.kind === 'prefill') {
        if (value.done < value.total) onPrompt(value);
      } else if (value.kind === 'delta') {
        if (text === '') onPrompt(null);
        text += value.text;
        if (!process.stdout.write(value.text)) await once(process.stdout, 'drain');
      } else if (value.kind === 'finish') {
        usage = value.usage;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    if (text === '') onPrompt(null);
  }
  return { text, usage, isInterrupted: usage === null };
}
