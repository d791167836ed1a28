/** `moestro calibrate MODEL`: measures how much each layer minds fewer bits, for `--mode routed`. */
import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { engineConfig } from '../config.js';
import { startEngine } from '../engine/client.js';
import { MoestroError } from '../errors.js';
import { measurePrecision } from '../eval/measure-precision.js';
import { openMoe } from '../model/read-moe.js';
import { savePrecision } from '../model/save-precision.js';
import { loadTextModel } from '../text/text-model.js';
import { progressLine } from './progress-line.js';

export function calibrateCommand(): Command {
  return new Command('calibrate')
    .description(
      'Measures how much each layer minds fewer bits and writes it to the manifest, for --mode routed. ' +
        'Conversion with --calibrate does it by itself.',
    )
    .argument('<model>', 'a .moe directory')
    .requiredOption('--text <file>', 'a text of the kind the model will be used for')
    .addHelpText('after', '\nExample:\n  moestro calibrate my-model.moe --text sample.txt')
    .action(async (model: string, { text }: { readonly text: string }) => {
      const line = progressLine(process.stderr, 'tokens');
      try {
        await calibratePrecision(model, text, (done, total) => line.update('precision', done, total, 0));
      } finally {
        line.stop();
      }
      process.stdout.write(`${model}: calibrated for --mode routed\n`);
    });
}

/** @throws {MoestroError} INVALID_CONFIG for a text that cannot be read or is empty; what the engine throws. */
export async function calibratePrecision(
  modelPath: string,
  textPath: string,
  onTokens: (done: number, total: number) => void,
): Promise<void> {
  const { manifest, moeLayerCount } = await openMoe(modelPath);
  const ids = (await loadTextModel(modelPath)).encode(await readText(textPath));
  // Without MOESTRO_* variables: what is measured must not depend on how the model will be served.
  const engine = await startEngine(engineConfig(modelPath, {}, {}));
  try {
    const profile = await measurePrecision({
      engine,
      ids,
      layerCount: moeLayerCount,
      expertsPerToken: manifest.architecture.topK,
      relativeError: manifest.quality.relativeError,
      onTokens,
    });
    await savePrecision(modelPath, profile);
  } finally {
    await engine.close();
  }
}

async function readText(path: string): Promise<string> {
  let text = '';
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new MoestroError('INVALID_CONFIG', `Cannot read "${path}": ${(cause as Error).message}`, { path }, cause);
  }
  if (text.trim() !== '') return text;
  throw new MoestroError('INVALID_CONFIG', `Cannot calibrate with "${path}": it holds no text`, { path });
}
