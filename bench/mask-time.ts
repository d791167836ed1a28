/**
 * How long does a mask take on a vocabulary of 151,936 tokens? A decode step of a model with such a vocabulary takes 25 to
 * 40 ms on two cores, so 5 % of it is 1.25 to 2 ms. Timed, as CPU time: finding the mask and reading the drawn token, on
 * texts drawn by random logits. Taking the others out adds a pass over the logits. Each format is compiled anew and begins with no
 * mask known, so first visits are in; the trie is built before, and its time shown by itself.
 *
 *     npx tsx bench/mask-time.ts
 */
import { compileFormat, type FormatSource } from '../src/constrain/format.js';
import { Formats } from '../src/constrain/matcher.js';
import { HERMES, type ToolGrammar } from '../src/constrain/tool-rules.js';
import { Random } from '../src/engine/random.js';
import { Sampler, SamplerScratch } from '../src/engine/sampler.js';
import { GREEDY } from '../src/engine/types.js';
import { randomVocabulary } from '../test/helpers/random-vocabulary.js';

const VOCAB_SIZE = 151_936;
const TEXTS = 4;
const TOKENS_MAX = 150;
const RECORD = {
  type: 'object',
  properties: {
    name: { type: 'string' },
    city: { type: 'string', maxLength: 40 },
    age: { type: 'integer', minimum: 0, maximum: 130 },
    tags: { type: 'array', items: { enum: ['red', 'green', 'blue'] }, maxItems: 8 },
    note: { type: 'string', minLength: 20, maxLength: 200 },
    born: { type: 'string', format: 'date' },
    next: { anyOf: [{ $ref: '#' }, { type: 'null' }] },
  },
  required: ['name', 'city', 'age', 'tags', 'note', 'born', 'next'],
  additionalProperties: false,
};
const TOOLS: ToolGrammar = {
  marks: HERMES,
  tools: [{ name: 'look_up', parameters: RECORD }],
  isOptional: true,
  callsMax: 16,
};
const CASES: readonly (readonly [string, FormatSource | null, ToolGrammar | null])[] = [
  ['json_object', { kind: 'json_object' }, null],
  ['json_schema', { kind: 'json_schema', schema: RECORD }, null],
  ['regex', { kind: 'regex', pattern: '(?:[A-Z][a-z]+ ){3,9}\\d{1,5}' }, null],
  [
    'grammar',
    { kind: 'grammar', source: 'root ::= sum\nsum ::= term ([+*] term)*\nterm ::= [0-9]+ | "(" sum ")"' },
    null,
  ],
  ['tools, auto', null, TOOLS],
];

const vocabulary = randomVocabulary(VOCAB_SIZE, 1);
const STOPS = new Set([VOCAB_SIZE - 1]);
const logits = new Float32Array(VOCAB_SIZE);
const scratch = new SamplerScratch(VOCAB_SIZE);
/** Logits of a few steps, in which tokens that close something stand out: else few texts would end. */
const noise = Array.from({ length: 8 }, (_, seed) => {
  const random = new Random(seed);
  return Float32Array.from({ length: VOCAB_SIZE }, (_, id) => {
    const closes = [0x22, 0x5d, 0x7d].includes(vocabulary.bytes[vocabulary.offsets[id]!]!) || STOPS.has(id);
    return random.next() * 4 + (closes ? 7 : 0);
  });
});
const beforeTrie = cpuMs();
const nodes = new Formats(vocabulary).masks.trie.byte.length;
console.log(`trie of ${VOCAB_SIZE} tokens: ${nodes} nodes in ${(cpuMs() - beforeTrie).toFixed(0)} ms`);
console.log('format          compile ms   tokens   made   mean ms   p50 ms   p99 ms   max ms   kept MB');
const formats = new Formats(vocabulary);
const { masks } = formats;
for (const [name, source, tools] of CASES) {
  const began = cpuMs();
  const program = compileFormat(source, tools);
  const compileMs = cpuMs() - began;
  const madeBefore = masks.made;
  const times: number[] = [];
  for (let text = 0; text < TEXTS; ++text) drawTimed(program, text, times);
  times.sort((a, b) => a - b);
  const at = (share: number): string => times[Math.min(times.length - 1, Math.floor(share * times.length))]!.toFixed(3);
  const mean = times.reduce((sum, ms) => sum + ms, 0) / times.length;
  const row = [compileMs.toFixed(1), times.length, masks.made - madeBefore, mean.toFixed(3), at(0.5), at(0.99), at(1)];
  console.log(
    name.padEnd(14),
    ...row.map((cell) => String(cell).padStart(9)),
    (masks.bytes / 1e6).toFixed(1).padStart(9),
  );
}

/** Milliseconds of CPU so far, which other programs on the machine do not lengthen. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function drawTimed(program: ReturnType<typeof compileFormat>, seed: number, times: number[]): void {
  const random = new Random(seed);
  const sampler = new Sampler({ ...GREEDY, temperature: 1 }, seed, scratch);
  const matcher = formats.open(program);
  for (let count = 0; count < TOKENS_MAX && !matcher.mustEnd; ++count) {
    const source = noise[Math.floor(random.next() * noise.length)]!;
    logits.set(source);
    const start = cpuMs();
    const allowed = { mask: matcher.mask(), mayEnd: matcher.mayEnd };
    const maskMs = cpuMs() - start;
    const { tokenId } = sampler.sample(logits, [], allowed, STOPS);
    if (STOPS.has(tokenId)) return;
    const reading = cpuMs();
    matcher.accept(tokenId);
    times.push(maskMs + cpuMs() - reading);
  }
}
