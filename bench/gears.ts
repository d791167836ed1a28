/**
 * What do streams gain from sharing steps, and what from taking turns?
 *   npx tsx bench/gears.ts MODEL.moe --budget 2GiB --streams 4 --trace FILE [--unlike] [--tokens 128] [--prompt 32]
 *                          [--gap 2000] [--rounds 3] [--arms alone,auto,joint,burst] [--warm 0]
 *
 * Arms run in alternation, each with an engine of its own: `alone` answers the streams' prompts one after another, the others
 * at once, in the gear of their name. With --trace experts are asked for as recorded, each stream from its own place on; with
 * --unlike each stream's ids are turned by a number of its own for each layer, so that streams share no experts but by chance.
 * In the timed window: from the first token of the last stream (alone: of each) to the last token. Prints a JSON object a
 * round, and one with the medians: tokens/s, against `alone`, MB read and stall ms a token, longest gap, changes of gear.
 * --warm answers a stream of so many tokens before, untimed, so that caches are full and gears chosen.
 */
import { parseArgs } from 'node:util';
import { engineConfig } from '../src/config.js';
import { startEngine } from '../src/engine/client.js';
import { type EngineClient, type GearMode, GREEDY, type Sampling } from '../src/engine/types.js';
import { medianOf } from '../src/eval/bench.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string', default: 'auto' },
    streams: { type: 'string', default: '4' },
    trace: { type: 'string' },
    unlike: { type: 'boolean', default: false },
    tokens: { type: 'string', default: '128' },
    prompt: { type: 'string', default: '32' },
    gap: { type: 'string', default: '2000' },
    rounds: { type: 'string', default: '3' },
    arms: { type: 'string', default: 'alone,auto,joint,burst' },
    warm: { type: 'string', default: '0' },
  },
});
const [modelPath] = positionals;
if (modelPath === undefined) throw new Error('needed MODEL.moe');
const streams = Number(values.streams);
const tokens = Number(values.tokens);
const DRAWN: Sampling = { ...GREEDY, temperature: 1, topK: 40, seed: 1 };

interface Figures {
  readonly arm: string;
  readonly tps: number;
  readonly megabytes: number;
  readonly stallMs: number;
  readonly gapMs: number;
  readonly switches: number;
}

const promptOf = (stream: number): readonly number[] =>
  Array.from({ length: Number(values.prompt) }, (_, i) => 100 + ((stream * 911 + i * 37) % 30_000));

/** Times at which the tokens of one answer came. */
async function answer(client: EngineClient, stream: number, maxTokens: number): Promise<readonly number[]> {
  const times: number[] = [];
  const ask = { promptIds: promptOf(stream), maxTokens, stopTokenIds: [], sampling: DRAWN };
  for await (const event of client.generate(ask)) if (event.kind === 'token') times.push(performance.now());
  return times;
}

async function measure(arm: string): Promise<Figures> {
  const gear: GearMode = arm === 'alone' ? 'joint' : (arm as GearMode);
  const set = { budget: values.budget, maxSequences: values.streams, context: '1024', gear, tokenGap: values.gap };
  const config = engineConfig(modelPath!, set, {});
  const client = await startEngine({ ...config, routingTrace: values.trace ?? null, turnsTrace: values.unlike });
  try {
    const every = Array.from({ length: streams }, (_, stream) => stream);
    const together = async (count: number) => Promise.all(every.map((stream) => answer(client, stream, count)));
    if (Number(values.warm) === 0) await answer(client, streams, 16);
    else if (arm === 'alone') await answer(client, streams, Number(values.warm));
    else await together(Number(values.warm));
    const before = await client.metrics();
    let ms = 0;
    let decoded = 0;
    let gapMs = 0;
    const add = (answers: readonly (readonly number[])[]): void => {
      const first = Math.max(...answers.map((times) => times[0]!));
      ms += Math.max(...answers.map((times) => times.at(-1)!)) - first;
      for (const times of answers) {
        decoded += times.filter((time) => time > first).length;
        for (let i = 1; i < times.length; ++i) gapMs = Math.max(gapMs, times[i]! - times[i - 1]!);
      }
    };
    if (arm === 'alone') for (const stream of every) add([await answer(client, stream, tokens)]);
    else add(await together(tokens));
    const after = await client.metrics();
    const each = (total: number): number => total / (after.tokensDecoded - before.tokensDecoded);
    return {
      arm,
      tps: round((1000 * decoded) / ms),
      megabytes: round(each(after.decode.bytesRead - before.decode.bytesRead) / 1e6),
      stallMs: round(each(after.decode.stallMs - before.decode.stallMs)),
      gapMs: Math.round(gapMs),
      switches: after.gears.switches,
    };
  } finally {
    await client.close();
  }
}

const round = (value: number): number => Number(value.toPrecision(4));

const arms = values.arms.split(',');
const runs: Figures[] = [];
for (let i = 0; i < Number(values.rounds); ++i) {
  for (const arm of arms) {
    const run = await measure(arm);
    runs.push(run);
    process.stdout.write(`${JSON.stringify(run)}\n`);
  }
}
const median = (arm: string, key: 'tps' | 'megabytes' | 'stallMs' | 'gapMs'): number =>
  medianOf(runs.filter((run) => run.arm === arm).map((run) => run[key]));
const alone = median('alone', 'tps');
process.stdout.write(
  `${JSON.stringify({
    streams,
    unlike: values.unlike,
    ...Object.fromEntries(
      arms.map((arm) => [
        arm,
        {
          tps: round(median(arm, 'tps')),
          ofAlone: round(median(arm, 'tps') / alone),
          megabytes: round(median(arm, 'megabytes')),
          stallMs: round(median(arm, 'stallMs')),
          gapMs: median(arm, 'gapMs'),
        },
      ]),
    ),
  })}\n`,
);
