/** One answer printed as it comes. */
import { once } from 'node:events';
import type { SamplingConfig } from '../config.js';
import type { AnswerUsage, Message, TextGenerator } from '../generate.js';

export interface PrintedAnswer {
  readonly text: string;
  readonly isInterrupted: boolean;
  /** null when it was interrupted. */
  readonly usage: AnswerUsage | null;
}

/** Writes the text to standard output and nothing else. What the signal cuts short is an answer too. */
export async function streamAnswer(
  generator: TextGenerator,
  messages: readonly Message[],
  { sampling, maxTokens }: SamplingConfig,
  stop: readonly string[],
  signal: AbortSignal,
): Promise<PrintedAnswer> {
  const promptIds = generator.promptFromChat(messages);
  let text = '';
  let usage: AnswerUsage | null = null;
  try {
    for await (const { value } of generator.start([{ promptIds, options: { maxTokens, stop, sampling } }], signal)) {
      if (value.kind === 'delta') {
        text += value.text;
        if (!process.stdout.write(value.text)) await once(process.stdout, 'drain');
      } else if (value.kind === 'finish') {
        usage = value.usage;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return { text, usage, isInterrupted: usage === null };
}
