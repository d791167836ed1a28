/** `moestro load URL`: how a server feels to many streams at once, whoever made it. */
import { setTimeout as sleepMs } from 'node:timers/promises';
import { Command } from 'commander';
import { MoestroError } from '../errors.js';
import { driveLoad } from '../load/drive.js';
import { isRejected, type LoadFigures, loadFigures, type Spread } from '../load/figures.js';
import { promptOfWords } from '../load/prompts.js';
import { decimalNumber, wholeNumber } from './numbers.js';
import { statusLine } from './status-line.js';

interface LoadOptions {
  readonly streams: string;
  readonly requests: string;
  readonly seconds?: string;
  readonly promptWords: string;
  readonly newTokens: string;
  readonly model: string;
  readonly apiKey?: string;
  readonly seed: string;
  readonly completions?: boolean;
  readonly stopAtEos?: boolean;
  readonly samePrompt?: boolean;
  readonly json?: boolean;
}

export function loadCommand(): Command {
  return new Command('load')
    .description(
      'Drives an OpenAI-compatible server with streams at once: time to first token, time between tokens, throughput.',
    )
    .argument('<url>', 'of the server, e.g. http://127.0.0.1:8080; "/v1" is added where it is not there')
    .option('--streams <count>', 'answers at once', '4')
    .option('--requests <count>', 'answers in all, or "auto" for four a stream', 'auto')
    .option('--seconds <time>', 'ask for this long instead')
    .option('--prompt-words <count>', 'words of each prompt', '64')
    .option('--new-tokens <count>', 'tokens of each answer', '64')
    .option('--model <name>', 'as the server calls it', 'default')
    .option('--api-key <key>', 'sent as a bearer token (MOESTRO_API_KEY keeps it out of process lists)')
    .option('--seed <number>', 'of prompts and answers', '1')
    .option('--completions', 'ask for completions of the text instead of chat')
    .option('--same-prompt', 'ask every stream the same')
    .option('--stop-at-eos', 'let the model end its answers: for servers that refuse "ignore_eos"')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExamples:\n  moestro load http://127.0.0.1:8080 --streams 8\n  moestro load https://host/v1 --seconds 60 --stop-at-eos --model name --json',
    )
    .action(load);
}

async function load(address: string, options: LoadOptions): Promise<void> {
  const count = (flag: string, text: string, least: number) => wholeNumber(flag, text, least, 1 << 24);
  const streams = wholeNumber('--streams', options.streams, 1, 4096);
  const seconds =
    options.seconds === undefined
      ? Number.POSITIVE_INFINITY
      : decimalNumber('--seconds', options.seconds, 0.1, 1_000_000);
  const isTimed = Number.isFinite(seconds);
  const given = options.requests === 'auto' ? null : count('--requests', options.requests, 1);
  const requests = given ?? (isTimed ? Number.POSITIVE_INFINITY : 4 * streams);
  const words = count('--prompt-words', options.promptWords, 1);
  const newTokens = count('--new-tokens', options.newTokens, 1);
  const seed = count('--seed', options.seed, 0);
  const isChat = options.completions !== true;
  const url = endpointOf(address, isChat ? 'chat/completions' : 'completions');
  const body = (index: number): object => {
    const prompt = promptOfWords(words, seed * 1_000_003 + (options.samePrompt === true ? 0 : index));
    return {
      model: options.model,
      ...(isChat ? { messages: [{ role: 'user', content: prompt }] } : { prompt }),
      max_tokens: newTokens,
      temperature: 1,
      seed: seed + index,
      stream: true,
      stream_options: { include_usage: true },
      ...(options.stopAtEos === true ? {} : { ignore_eos: true }),
    };
  };

  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1000;
  const line = statusLine();
  let [answered, rejected, tokens] = [0, 0, 0];
  const show = (): void => {
    const rate = (tokens / elapsed()).toFixed(1);
    const of = Number.isFinite(requests) ? ` of ${requests}` : '';
    line.show(`${elapsed().toFixed(0)} s  ${answered}${of} answers  ${rejected} turned away  ${rate} tok/s`);
  };
  const ticking = setInterval(show, 500);
  const apiKey = options.apiKey ?? process.env.MOESTRO_API_KEY ?? null;
  const clock = { now: () => performance.now(), sleep: (ms: number) => sleepMs(ms) };
  const answers = await driveLoad({ url, apiKey, streams, requests, seconds, body }, clock, ({ answer }) => {
    if (isRejected(answer)) ++rejected;
    else ++answered;
    tokens += answer.completionTokens ?? answer.timesMs.length;
  });
  clearInterval(ticking);
  line.clear();
  const figures = loadFigures(answers, elapsed());
  const facts = { url: url.href, streams, promptWords: words, newTokens, ...figures };
  process.stdout.write(options.json === true ? `${JSON.stringify(facts)}\n` : table(facts));
  if (figures.answered > 0) return;
  const why = figures.firstError ?? 'all were turned away';
  throw new MoestroError('IO_ERROR', `Cannot measure "${url.href}": found no whole answer (${why})`);
}

/** @throws {MoestroError} INVALID_CONFIG for what is no address of a server. */
export function endpointOf(address: string, path: string): URL {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new MoestroError(
      'INVALID_CONFIG',
      `Cannot use "${address}": needed an address such as http://127.0.0.1:8080`,
    );
  }
  const base = url.pathname.replace(/\/+$/, '');
  url.pathname = `${base.endsWith('/v1') ? base : `${base}/v1`}/${path}`;
  return url;
}

function table(facts: LoadFigures & { readonly url: string; readonly streams: number }): string {
  const times = (spread: Spread | null): string =>
    spread === null ? 'none' : `p50 ${spread.p50}  p90 ${spread.p90}  p99 ${spread.p99}  max ${spread.max} ms`;
  const rows: readonly (readonly [string, string])[] = [
    ['server', `${facts.url}, ${facts.streams} streams, ${facts.seconds} s`],
    ['answers', `${facts.answered} whole, ${facts.rejected} turned away, ${facts.failed} failed`],
    ['throughput', `${facts.tokensPerSecond} tok/s, ${facts.requestsPerSecond} answers/s`],
    ['first token', times(facts.ttftMs)],
    ['next token', times(facts.interTokenMs)],
    ...(facts.firstError === null ? [] : [['first error', facts.firstError] as const]),
  ];
  return rows.map(([name, value]) => `${name.padEnd(12)} ${value}\n`).join('');
}
