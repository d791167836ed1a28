/**
 * The calibration text of the bundled model: its training prose and training questions in turns, questions by domain as
 * often as training asked them. Nothing of the test files. Prints it:
 *
 *     npx tsx scripts/calibration-text.ts POCKET > pocket-calibration.txt
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Characters of one turn, and turns: some 80,000 tokens, of which calibration reads 65,536. */
const TURN = 1000;
const TURNS = 140;
/** Shares of the domains in training (POCKET/train.py), without small talk. */
const SHARES: Readonly<Record<string, number>> = {
  define: 0.45,
  kind: 0.12,
  synonym: 0.07,
  opposite: 0.035,
  capital: 0.03,
  country: 0.03,
  region: 0.025,
  currency: 0.03,
  symbol: 0.012,
  number: 0.012,
  element: 0.012,
  arithmetic: 0.12,
};

interface Fact {
  readonly domain: string;
  readonly q: readonly string[];
  readonly a: string;
}

const [pocket] = process.argv.slice(2);
if (pocket === undefined) throw new Error('needed POCKET');
const prose = readFileSync(join(pocket, 'prose.txt'), 'utf8');
const facts = readFileSync(join(pocket, 'train.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Fact);

const domains = Object.keys(SHARES).map((name) => {
  const own = facts.filter(({ domain }) => domain === name);
  return { share: SHARES[name]!, own, step: stepThrough(own.length), credit: 0, used: 0 };
});
const total = domains.reduce((sum, { share }) => sum + share, 0);

for (let turn = 0; turn < TURNS; turn++) {
  const begin = prose.indexOf(' ', Math.floor((turn * (prose.length - TURN - 100)) / TURNS)) + 1;
  process.stdout.write(`${prose.slice(begin, prose.indexOf(' ', begin + TURN))}\n`);
  for (let length = 0; length < TURN; ) {
    const text = nextQuestion();
    length += text.length;
    process.stdout.write(text);
  }
}

/** Of the domain that is furthest behind its share; its facts in a fixed order that jumps through all of them. */
function nextQuestion(): string {
  for (const domain of domains) domain.credit += domain.share;
  const domain = domains.reduce((most, one) => (one.credit > most.credit ? one : most));
  domain.credit -= total;
  const { q, a } = domain.own[(domain.used * domain.step) % domain.own.length]!;
  const question = q[domain.used++ % q.length]!;
  return `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n${a}<|im_end|>\n`;
}

/** A step without common divisor, near the golden section. */
function stepThrough(count: number): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  let step = Math.floor(count * 0.618) | 1;
  while (divisor(step, count) !== 1) step++;
  return step;
}
