/** Adds what calibration learned of precision to a finished model. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkManifest } from './check-manifest.js';
import { realDisk, replaceFile } from './disk.js';
import type { Manifest, PrecisionProfile } from './manifest.js';

/**
 * Replaces manifest.json of the model at `path` as a whole: killed at any point, the old or the new one stands.
 *
 * @throws {MoestroError} MODEL_INVALID when the manifest would be wrong; what the file system throws.
 */
export async function savePrecision(path: string, precision: PrecisionProfile): Promise<void> {
  const file = join(path, 'manifest.json');
  const manifest = JSON.parse(await readFile(file, 'utf8')) as Manifest;
  const changed = { ...manifest, precision };
  checkManifest(changed, path);
  await replaceFile(realDisk, file, `${JSON.stringify(changed, null, 1)}\n`);
}
