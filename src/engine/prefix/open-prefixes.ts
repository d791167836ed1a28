/** What prefixes of a model depend on, and the folder where they are stored. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Manifest } from '../../model/manifest.js';
import { addonPath, type KvType, loadAddon, type NativeEngine } from '../../native/binding.js';
import { VERSION } from '../../version.js';
import { KV_BLOCK_TOKENS, kvBlockBytes } from '../memory-plan.js';
import type { PrefixConfig } from '../types.js';
import type { PrefixCacheParts } from './prefix-cache.js';
import { keyOf } from './prefix-index.js';
import { PrefixStore } from './prefix-store.js';
import { readAhead } from './read-ahead.js';

/** @returns what the engine's parts need; without a store where its folder cannot be used, which is told on standard error. */
export function openPrefixes(
  config: PrefixConfig,
  manifest: Manifest,
  kvType: KvType,
  native: NativeEngine,
): Pick<PrefixCacheParts, 'modelKey' | 'blockBytes' | 'memoryBytes' | 'opened'> {
  const { memoryBytes, directory, diskBytes, dailyBytes } = config;
  const kvBytes = kvBlockBytes(manifest.architecture, kvType);
  const kept = { blockBytes: kvBytes, memoryBytes };
  if (directory === null) return { ...kept, modelKey: manifest.name, opened: null };
  const modelKey = modelKeyOf(manifest, kvType);
  const { crc32c, lockFile } = loadAddon();
  const opened = PrefixStore.open({
    directory: join(directory, folderOf(manifest.name)),
    shape: { modelKey, blockTokens: KV_BLOCK_TOKENS, kvBytes },
    diskBytes,
    dailyBytes,
    native,
    crc32c,
    readAhead,
    lockFile,
    today: () => Date.now(),
    warn: (text) => process.stderr.write(`moestro: ${text}\n`),
  });
  return { ...kept, modelKey, opened };
}

/** The manifest has the checksums of all weights; another build of the addon may round otherwise. */
const modelKeyOf = (manifest: Manifest, kvType: KvType): string =>
  keyOf(VERSION, readFileSync(addonPath()), JSON.stringify(manifest), kvType, String(KV_BLOCK_TOKENS));

/** A name that is one part of a path. */
const folderOf = (name: string): string => name.replaceAll(/[^\w.-]/g, '_').replace(/^\.+/, '_') || '_';
