/** A `.moe` directory to something that answers: text model, engine thread, and the generator over both. */

import { startEngine } from './engine/client.js';
import type { TokenBytes } from './constrain/program.js';
import { type EngineConfig, GREEDY, type Sampling } from './engine/types.js';
import { TextGenerator } from './generate.js';
import { openMoe } from './model/read-moe.js';
import { loadTextModel } from './text/text-model.js';
import type { TextModel } from './text/types.js';

export interface OpenModel {
  readonly generator: TextGenerator;
  /** Ends what is under way, stops the engine thread and frees its memory. */
  close(): Promise<void>;
}

/** @throws {MoestroError} what is wrong with the model's files, or that the budget is below the model's floor. */
export async function openModel(config: EngineConfig, defaults: Sampling = GREEDY): Promise<OpenModel> {
  // The manifest is checked here too, before a thread is started for it.
  const { manifest } = await openMoe(config.modelPath);
  const text = await loadTextModel(config.modelPath, manifest.generation);
  const engine = await startEngine(config, tokenBytesOf(text, manifest.architecture.vocabSize));
  const capacity = engine.info.memory.maxSequences + config.maxQueued;
  return {
    generator: new TextGenerator(engine, text, { capacity, defaults }),
    close: () => engine.close(),
  };
}

/** The vocabulary as bytes that both threads see, a megabyte or two. Tokens that are no text are empty. */
function tokenBytesOf(text: TextModel, vocabSize: number): TokenBytes {
  const count = Math.min(text.vocabSize, vocabSize);
  const offsets = new Uint32Array(new SharedArrayBuffer(4 * (count + 1)));
  for (let id = 0; id < count; ++id) offsets[id + 1] = offsets[id]! + text.tokenBytes(id).length;
  const bytes = new Uint8Array(new SharedArrayBuffer(offsets[count]!));
  for (let id = 0; id < count; ++id) bytes.set(text.tokenBytes(id), offsets[id]!);
  return { bytes, offsets };
}
