/** Whatever a model file says, opening it ends in a source or in a MoestroError. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { MoestroError } from '../../../src/errors.js';
import { openSource } from '../../../src/model/import/index.js';
import { ggufMetadata, ggufTensors, writeTinyGguf } from '../../helpers/tiny-gguf.js';
import { huggingFaceConfig, writeHuggingFace } from '../../helpers/tiny-hugging-face.js';
import { makeTinyModel, TINY_FAMILIES, type TinyFamily } from '../../helpers/tiny-models.js';
import { type GgufValue, ggufBytes } from '../../helpers/write-gguf.js';

const root = mkdtempSync(join(tmpdir(), 'moestro-hostile-'));
afterAll(() => rmSync(root, { recursive: true }));

/** True when the model opened; anything but a MoestroError fails the test. */
async function opens(path: string): Promise<boolean> {
  try {
    const source = await openSource(path);
    await source.close();
    return true;
  } catch (error) {
    expect(error, String((error as Error).stack)).toBeInstanceOf(MoestroError);
    expect((error as MoestroError).code).not.toBe('INTERNAL');
    return false;
  }
}

const tiny = (family: TinyFamily) =>
  makeTinyModel(family, 1, { layerCount: 1, layerKinds: ['moe'], expertCount: 4, expertSize: 32 });

// fc.jsonValue has every shape JSON can take; numbers near the edges are worth more.
const json = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom(0, -1, 1, 0.5, 2 ** 31, 2 ** 53, 1e308, '', [], {}, null, true, [null], { toString: 1 }),
);

test.each(TINY_FAMILIES)('openSource() survives any values in the config of a %s', async (family) => {
  const directory = mkdtempSync(join(root, 'config-'));
  const model = tiny(family);
  writeHuggingFace(model, directory);
  const config = huggingFaceConfig(model);
  const keys = [...Object.keys(config), 'rope_parameters', 'quantization_config', 'head_dim', 'clip_qkv'];
  expect(await opens(directory)).toBe(true);
  const change = fc.dictionary(fc.constantFrom(...keys), json, { minKeys: 1, maxKeys: 3 });
  await fc.assert(
    fc.asyncProperty(change, async (changes) => {
      writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config, ...changes }));
      await opens(directory);
    }),
    { numRuns: 150, seed: 30 },
  );
});

test('openSource() survives any values in the tokenizer files', async () => {
  const directory = mkdtempSync(join(root, 'tokenizer-'));
  writeHuggingFace(tiny('mixtral'), directory);
  const read = (name: string) => JSON.parse(readFileSync(join(directory, name), 'utf8')) as Record<string, unknown>;
  const tokenizer = read('tokenizer.json');
  const config = read('tokenizer_config.json');
  const change = (keys: string[]) => fc.dictionary(fc.constantFrom(...keys), json, { maxKeys: 2 });
  await fc.assert(
    fc.asyncProperty(
      change(['added_tokens', 'post_processor', 'model']),
      change(['bos_token', 'eos_token', 'add_bos_token', 'chat_template']),
      fc.option(json),
      async (tokenizerChanges, configChanges, generation) => {
        writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify({ ...tokenizer, ...tokenizerChanges }));
        writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify({ ...config, ...configChanges }));
        writeFileSync(join(directory, 'generation_config.json'), JSON.stringify({ eos_token_id: generation }));
        await opens(directory);
      },
    ),
    { numRuns: 200, seed: 31 },
  );
});

test.each(TINY_FAMILIES)('openSource() survives any values in the metadata of a GGUF %s', async (family) => {
  const path = join(root, `${family}.gguf`);
  const model = tiny(family);
  writeTinyGguf(model, path);
  expect(await opens(path)).toBe(true);
  const metadata = ggufMetadata(model, 'F16');
  const tensors = ggufTensors(model);
  const number = fc.constantFrom(0, 1, 2, 31, 64, 1000, 2 ** 31);
  const value: fc.Arbitrary<GgufValue> = fc.oneof(
    fc.record({ type: fc.constantFrom('u32' as const, 'i64' as const, 'f64' as const), value: number }),
    fc.record({ type: fc.constant('f32' as const), value: fc.constantFrom(Number.NaN, -1, Number.POSITIVE_INFINITY) }),
    fc.record({ type: fc.constant('string' as const), value: fc.string() }),
    fc.record({ type: fc.constant('bool' as const), value: fc.boolean() }),
    fc.record({
      type: fc.constant('array' as const),
      of: fc.constant('string' as const),
      value: fc.array(fc.string()),
    }),
    fc.record({ type: fc.constant('array' as const), of: fc.constant('i32' as const), value: fc.array(fc.integer()) }),
  );
  const keys = [...Object.keys(metadata), 'general.alignment', 'split.count', 'tokenizer.ggml.padding_token_id'];
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.constantFrom(...keys), value, { minKeys: 1, maxKeys: 2 }), async (changes) => {
      writeFileSync(path, ggufBytes({ metadata: { ...metadata, ...changes }, tensors }));
      await opens(path);
    }),
    { numRuns: 150, seed: 32 },
  );
});
