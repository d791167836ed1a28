/** A path to something that can be evaluated: a `.moe` directory by the engine, model sources by the reference path. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEngine } from '../engine/client.js';
import type { EngineConfig } from '../engine/types.js';
import { openSource } from '../model/import/index.js';
import type { ModelSource } from '../model/import/source.js';
import { openMoe } from '../model/read-moe.js';
import { loadTextModel } from '../text/text-model.js';
import type { TextModel } from '../text/types.js';
import { engineEvaluator, referenceEvaluator } from './evaluator.js';
import { ReferencePool } from './reference-pool.js';
import { loadReferenceWeights } from './reference-weights.js';
import type { EvaluatedModel } from './run-eval.js';

/**
 * Opens the model at `config.modelPath`; its evaluator's `close` frees everything.
 *
 * @param config for the engine; of it the reference path takes the number of threads only.
 * @throws {MoestroError} what is wrong with the model's files, or that the budget is below the model's floor.
 */
export async function openEvaluated(
  config: EngineConfig,
  onProgress: (line: string) => void = () => {},
): Promise<EvaluatedModel> {
  return existsSync(join(config.modelPath, 'manifest.json')) ? openMoeModel(config) : openReference(config, onProgress);
}

async function openMoeModel(config: EngineConfig): Promise<EvaluatedModel> {
  const { manifest } = await openMoe(config.modelPath);
  const { generation } = manifest;
  const text = await loadTextModel(config.modelPath, generation);
  const engine = await startEngine({ ...config, prefix: null });
  const evaluator = engineEvaluator(engine, engine.info.memory.maxSequences);
  return { evaluator, text, bos: generation.addBos ? generation.bosTokenId : null };
}

async function openReference(config: EngineConfig, onProgress: (line: string) => void): Promise<EvaluatedModel> {
  const source = await openSource(config.modelPath);
  try {
    let done = 0;
    const weights = await loadReferenceWeights(source, (bytes) => {
      done += bytes;
      onProgress(`reading ${Math.round((100 * done) / source.byteLength)} %`);
    });
    const { generation } = source;
    const text = await textModelOf(source);
    const evaluator = referenceEvaluator(source.name, new ReferencePool(weights, config.threads));
    return { evaluator, text, bos: generation.addBos ? generation.bosTokenId : null };
  } finally {
    await source.close();
  }
}

/** The text side reads files, and a GGUF has none of its own. */
async function textModelOf(source: ModelSource): Promise<TextModel> {
  const directory = await mkdtemp(join(tmpdir(), 'moestro-text-'));
  try {
    await writeFile(join(directory, 'tokenizer.json'), source.tokenizerJson);
    await writeFile(join(directory, 'tokenizer_config.json'), source.tokenizerConfigJson);
    return await loadTextModel(directory, source.generation);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
