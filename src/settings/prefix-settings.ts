import { byteSize, onOff, path, unless } from './checks.js';
import type { Setting } from './setting.js';

/** Keys and values of past requests: `moestro serve`, `chat` and loadModel(). Measurements keep none. */
export const PREFIX_SETTINGS: readonly Setting[] = [
  {
    key: 'prefixCache',
    flag: '--prefix-cache <on|off>',
    env: 'MOESTRO_PREFIX_CACHE',
    help: 'keep what was computed of past requests for those that begin alike',
    fallback: 'on',
    parse: onOff,
  },
  {
    key: 'prefixMemory',
    flag: '--prefix-memory <size>',
    env: 'MOESTRO_PREFIX_MEMORY',
    help: 'memory of the KV cache that kept prefixes may take, or "auto" for half of it',
    fallback: 'auto',
    parse: unless('auto', byteSize),
  },
  {
    key: 'prefixDir',
    flag: '--prefix-dir <folder>',
    env: 'MOESTRO_PREFIX_DIR',
    help: 'folder in which prefixes outlive the process, "off" for memory only, or "auto": `serve` takes the cache folder of the user, others none',
    fallback: 'auto',
    parse: path,
    isPath: true,
    words: ['auto', 'off'],
  },
  {
    key: 'prefixDisk',
    flag: '--prefix-disk <size>',
    env: 'MOESTRO_PREFIX_DISK',
    help: 'bytes on disk that the prefixes of one model may take',
    fallback: '8GiB',
    parse: byteSize,
  },
  {
    key: 'prefixDailyWrites',
    flag: '--prefix-daily-writes <size>',
    env: 'MOESTRO_PREFIX_DAILY_WRITES',
    help: 'bytes of prefixes written to disk in a day at most, as flash wears',
    fallback: '16GiB',
    parse: byteSize,
  },
];
