/**
 * Writes a model of a real shape with random weights, for benchmarks:
 *   npx tsx scripts/synth.ts olmoe-1b-7b OUT.moe [--bits 4|8] [--dense-bits 4|6|8] [--layers N] [--seed N]
 */
import { parseArgs } from 'node:util';
import { MoestroError } from '../src/errors.js';
import { SYNTHETIC_SHAPES } from '../src/model/synthetic/shapes.js';
import { writeSynthetic } from '../src/model/synthetic/write-synthetic.js';

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      bits: { type: 'string', default: '4' },
      'dense-bits': { type: 'string', default: '8' },
      layers: { type: 'string' },
      seed: { type: 'string', default: '1' },
    },
  });
  const names = Object.keys(SYNTHETIC_SHAPES).join(', ');
  const [shape, out] = positionals;
  if (shape === undefined || out === undefined || positionals.length !== 2) {
    throw new MoestroError('INVALID_CONFIG', `Cannot write a model: needed SHAPE OUT.moe, SHAPE one of ${names}`);
  }
  const full = SYNTHETIC_SHAPES[shape];
  if (full === undefined) {
    throw new MoestroError('INVALID_CONFIG', `Cannot write a model: found shape "${shape}", needed one of ${names}`);
  }
  if (values.bits !== '4' && values.bits !== '8') {
    throw new MoestroError('INVALID_CONFIG', `Cannot use --bits "${values.bits}": needed 4 or 8`);
  }
  const denseBits = Number(values['dense-bits']);
  if (denseBits !== 4 && denseBits !== 6 && denseBits !== 8) {
    throw new MoestroError('INVALID_CONFIG', `Cannot use --dense-bits "${values['dense-bits']}": needed 4, 6 or 8`);
  }
  const layerCount = values.layers === undefined ? full.layerCount : Number(values.layers);
  if (!Number.isInteger(layerCount) || layerCount < 1 || layerCount > full.layerCount) {
    throw new MoestroError('INVALID_CONFIG', `Cannot use --layers "${values.layers}": needed 1 to ${full.layerCount}`);
  }
  const seed = Number(values.seed);
  if (!/^\d+$/.test(values.seed) || !Number.isSafeInteger(seed)) {
    throw new MoestroError('INVALID_CONFIG', `Cannot use --seed "${values.seed}": needed a whole number`);
  }
  const started = performance.now();
  const manifest = writeSynthetic({
    name: layerCount === full.layerCount ? shape : `${shape}-${layerCount}l`,
    architecture: { ...full, layerCount, layerKinds: full.layerKinds.slice(0, layerCount) },
    bitsStored: values.bits === '8' ? 8 : 4,
    denseBits,
    seed,
    out,
    onBytes: (done, total) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${((100 * done) / total).toFixed(1)} %`);
    },
  });
  const seconds = (performance.now() - started) / 1000;
  const gigabytes = (manifest.experts.bytes + manifest.dense.bytes) / 1e9;
  process.stderr.write(
    `\r${out}: ${gigabytes.toFixed(2)} GB in ${seconds.toFixed(1)} s, ${(gigabytes / seconds).toFixed(2)} GB/s\n`,
  );
}

try {
  main();
} catch (error) {
  if (!(error instanceof MoestroError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 2;
}
