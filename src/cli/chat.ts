/** `moestro chat MODEL [PROMPT]`: one answer on standard output, or a conversation. */
import { Command } from 'commander';
import type { Message } from '../answer/types.js';
import { engineConfig, type SamplingConfig, samplingConfig } from '../config.js';
import type { TextGenerator } from '../generate.js';
import { openModel } from '../open-model.js';
import { ENGINE_SETTINGS } from '../settings/engine-settings.js';
import { SAMPLING_SETTINGS } from '../settings/sampling-settings.js';
import { converse } from './conversation.js';
import { addSettings, configFileOf, givenSettings } from './options.js';
import { streamAnswer } from './stream-answer.js';

/** One conversation has no queue and no neighbours. */
const SETTINGS = ENGINE_SETTINGS.filter(({ key }) => !['maxSequences', 'maxQueued', 'gear', 'tokenGap'].includes(key));

export function chatCommand(): Command {
  const command = new Command('chat')
    .description('Talks to a model. With PROMPT: prints the answer alone on standard output.')
    .argument('<model>', 'a .moe directory')
    .argument('[prompt]', 'what to answer; a conversation starts without it')
    .option('--system <text>', 'instructions that stand before the conversation')
    // Not <text...>: that would take PROMPT for another text.
    .option(
      '--stop <text>',
      'a text that ends the answer; may be given several times',
      (text, before: string[] = []) => [...before, text],
    );
  addSettings(command, [...SETTINGS, ...SAMPLING_SETTINGS]);
  command.addHelpText(
    'after',
    '\nExamples:\n  moestro chat models/pocket.moe "What is the capital of France?"\n  moestro chat my-model.moe --budget 4GiB --temperature 0',
  );
  return command.action((model: string, prompt: string | undefined, options: ChatOptions) =>
    chat(model, prompt, options),
  );
}

type ChatOptions = Record<string, string> & { readonly system?: string; readonly stop?: readonly string[] };

async function chat(modelPath: string, prompt: string | undefined, options: ChatOptions): Promise<void> {
  const file = await configFileOf(options);
  const config = engineConfig(modelPath, givenSettings(options, SETTINGS), process.env, file);
  const drawing = samplingConfig(givenSettings(options, SAMPLING_SETTINGS), process.env, file);
  const { generator, close } = await openModel(config, drawing.sampling);
  const system: Message[] = options.system === undefined ? [] : [{ role: 'system', content: options.system }];
  const stop = options.stop ?? [];
  try {
    if (prompt === undefined) await converse(generator, system, drawing, stop);
    else await answerOnce(generator, [...system, { role: 'user', content: prompt }], drawing, stop);
  } finally {
    await close();
  }
}

/** Ctrl-C ends the answer, and the command with the status shells expect. */
async function answerOnce(
  generator: TextGenerator,
  messages: readonly Message[],
  drawing: SamplingConfig,
  stop: readonly string[],
): Promise<void> {
  const controller = new AbortController();
  const interrupt = () => controller.abort();
  process.once('SIGINT', interrupt);
  const answer = await streamAnswer(generator, messages, drawing, stop, controller.signal);
  process.removeListener('SIGINT', interrupt);
  process.stdout.write('\n');
  if (answer.isInterrupted) process.exitCode = 130;
}
