/** The conversation of `moestro chat`: lines in, streamed answers out, until /quit. */
import { createInterface, type Interface } from 'node:readline';
import { formatBytes } from '../bytes.js';
import type { SamplingConfig } from '../config.js';
import { toMoestroError } from '../errors.js';
import type { AnswerUsage, Message, TextGenerator } from '../generate.js';
import { streamAnswer } from './stream-answer.js';

const HELP = `  /reset   forget the conversation
  /quit    leave (Ctrl-D too)
  /help    show this
  Ctrl-C   stop the answer, else clear the line, else leave
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

  let history: Message[] = [...system];
  prompt();
  for await (const line of lines) {
    const input = line.trim();
    if (input === '/quit' || input === '/exit') break;
    if (input === '/help') process.stderr.write(HELP);
    else if (input === '/reset') {
      history = [...system];
      process.stderr.write('  forgotten\n');
    } else if (input.startsWith('/')) process.stderr.write(`  no command ${input}; /help lists them\n`);
    else if (input !== '') {
      answering = new AbortController();
      history.push({ role: 'user', content: input });
      try {
        const answer = await streamAnswer(generator, history, drawing, stop, answering.signal);
        // A question whose answer was stopped before its first word is as if never asked.
        if (answer.text === '' && answer.isInterrupted) history.pop();
        else history.push({ role: 'assistant', content: answer.text });
        process.stdout.write('\n');
        if (isTerminal) process.stderr.write(answer.usage === null ? '  stopped\n' : remark(answer.usage));
      } catch (error) {
        // Too long, or a read that failed: the conversation goes on without the line that could not be answered.
        history.pop();
        const { code, message } = toMoestroError(error);
        const hint = code === 'CONTEXT_LENGTH_EXCEEDED' ? '  hint: /reset forgets what was said before\n' : '';
        process.stderr.write(`moestro: ${message}\n${hint}`);
      }
      answering = null;
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

function remark({ completionTokens, decodeMs, meanBits, bytesRead }: AnswerUsage): string {
  const rate = decodeMs > 0 ? `${(((completionTokens - 1) * 1000) / decodeMs).toFixed(1)} tokens/s, ` : '';
  return `  ${completionTokens} tokens, ${rate}${meanBits.toFixed(2)} bits, ${formatBytes(bytesRead)} read\n`;
}
