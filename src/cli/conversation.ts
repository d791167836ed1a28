/** The conversation of `moestro chat`: lines in, streamed answers out, until /quit. */
import { createInterface, type Interface } from 'node:readline';
import type { AnswerUsage, Message } from '../answer/types.js';
import { formatBytes } from '../bytes.js';
import type { SamplingConfig } from '../config.js';
import { toMoestroError } from '../errors.js';
import type { TextGenerator } from '../generate.js';
import { statusLine } from './status-line.js';
import { streamAnswer } from './stream-answer.js';

const HELP = `  /retry          answer the last question anew
  /undo           forget the last question and its answer
  /reset          forget the conversation
  /system TEXT    instructions from now on; the conversation begins anew
  /status         how long the conversation is, and where the memory goes
  /quit           leave (Ctrl-D too)
  /help           show this
  Ctrl-C          stop the answer, else clear the line, else leave
  up, down        what was asked before
`;

/** @param system messages every conversation starts with. */
export async function converse(
  generator: TextGenerator,
  system: readonly Message[],
  drawing: SamplingConfig,
  stop: readonly string[],
): Promise<void> {
  const isTerminal = process.stdin.isTTY === true;
  // Prompts and remarks go to standard error: what standard output gets is answers.
  const lines = createInterface({ input: process.stdin, output: process.stderr, prompt: '> ', terminal: isTerminal });
  let answering: AbortController | null = null;
  const interrupt = () => {
    if (answering !== null) answering.abort();
    else if (isTerminal && lines.line !== '') clearLine(lines);
    else lines.close();
  };
  const prompt = () => {
    if (isTerminal) lines.prompt();
  };
  lines.on('SIGINT', interrupt);
  process.on('SIGINT', interrupt);
  if (isTerminal) process.stderr.write(`${generator.info.modelName}: ask away; /help lists commands\n`);

  let beginning = system;
  let history: Message[] = [...beginning];
  const answer = async (): Promise<void> => {
    answering = new AbortController();
    const status = statusLine();
    try {
      const given = await streamAnswer(generator, history, drawing, stop, answering.signal, (progress) => {
        if (!isTerminal) return;
        if (progress === null) status.clear();
        else status.show(`  reading: ${progress.done} of ${progress.total} tokens`);
      });
      // A question whose answer was stopped before its first word is as if never asked.
      if (given.text === '' && given.isInterrupted) history.pop();
      else history.push({ role: 'assistant', content: given.text });
      process.stdout.write('\n');
      if (isTerminal) process.stderr.write(given.usage === null ? '  stopped\n' : remark(given.usage, generator));
    } catch (error) {
      // Too long, or a read that failed: the conversation goes on without the line that could not be answered.
      history.pop();
      const { code, message } = toMoestroError(error);
      const hint = code === 'CONTEXT_LENGTH_EXCEEDED' ? '  hint: /reset forgets what was said before\n' : '';
      process.stderr.write(`moestro: ${message}\n${hint}`);
    }
    answering = null;
  };
  prompt();
  for await (const line of lines) {
    const input = line.trim();
    const [command, rest] = split(input);
    if (command === '/quit' || command === '/exit') break;
    if (command === '/help') process.stderr.write(HELP);
    else if (command === '/status') process.stderr.write(await statusOf(generator, history));
    else if (command === '/reset') {
      history = [...beginning];
      process.stderr.write('  forgotten\n');
    } else if (command === '/system') {
      beginning = rest === '' ? [] : [{ role: 'system', content: rest }];
      history = [...beginning];
      process.stderr.write(rest === '' ? '  no instructions\n' : '  from now on\n');
    } else if (command === '/undo' || command === '/retry') {
      const asked = history.findLastIndex(({ role }) => role === 'user');
      if (asked < 0) process.stderr.write('  nothing was asked\n');
      else if (command === '/undo') {
        history.splice(asked);
        process.stderr.write('  forgotten\n');
      } else {
        history.splice(asked + 1);
        await answer();
      }
    } else if (command !== null) process.stderr.write(`  no command ${command}; /help lists them\n`);
    else if (input !== '') {
      history.push({ role: 'user', content: input });
      await answer();
    }
    prompt();
  }
  lines.close();
  process.removeListener('SIGINT', interrupt);
  if (isTerminal) process.stderr.write('\n');
}

/** What was typed and not sent goes away, wherever the cursor stands in it. */
function clearLine(lines: Interface): void {
  lines.write(null, { ctrl: true, name: 'e' });
  lines.write(null, { ctrl: true, name: 'u' });
}

/** "/system be brief" to its command and the rest; null for what is no command. */
function split(input: string): readonly [command: string | null, rest: string] {
  const match = /^(\/\S+)\s*(.*)$/s.exec(input);
  return match === null ? [null, input] : [match[1]!, match[2]!];
}

/** The line below an answer: what it took, and how much of the context is used. */
function remark(
  { promptTokens, completionTokens, decodeMs, meanBits, bytesRead }: AnswerUsage,
  generator: TextGenerator,
): string {
  const rate = decodeMs > 0 ? `${(((completionTokens - 1) * 1000) / decodeMs).toFixed(1)} tokens/s, ` : '';
  const used = `${promptTokens + completionTokens} of ${generator.info.contextLength} tokens of context`;
  return `  ${completionTokens} tokens, ${rate}${meanBits.toFixed(2)} bits, ${formatBytes(bytesRead)} read, ${used}\n`;
}

async function statusOf(generator: TextGenerator, history: readonly Message[]): Promise<string> {
  const { modelName, mode, level, contextLength } = generator.info;
  const { hits, misses, rssBytes, budgetBytes } = await generator.metrics();
  const asked = history.filter(({ role }) => role === 'user').length;
  const hitRate = hits + misses === 0 ? 'nothing asked for yet' : `hit rate ${(hits / (hits + misses)).toFixed(3)}`;
  return (
    `  ${modelName}, ${mode}, level ${level}, ${contextLength} tokens of context\n` +
    `  ${asked} questions in this conversation, ${formatBytes(rssBytes)} of ${formatBytes(budgetBytes)} in use, ${hitRate}\n`
  );
}
