import type { GearMode, Mode, PrefetchMode } from '../engine/types.js';
import type { IoBackend, Isa, KvType } from '../native/binding.js';
import { budgetSize, choice, decimal, level, onOff, path, unless, whole } from './checks.js';
import { PREFIX_SETTINGS } from './prefix-settings.js';
import type { Setting } from './setting.js';

/** The instruction sets that kernels are written for, by Node's name of the processor's architecture. */
export const isasOf = (architecture: string): readonly Isa[] =>
  architecture === 'x64'
    ? ['scalar', 'avx2', 'avx512', 'avx512vbmi', 'amx']
    : architecture === 'arm64'
      ? ['scalar', 'neon']
      : ['scalar'];
const ISAS = isasOf(process.arch);

/** What the engine is told: `moestro serve`, `chat`, `eval`, `bench` and loadModel() share these. */
export const ENGINE_SETTINGS: readonly Setting[] = [
  {
    key: 'budget',
    flag: '--budget <size>',
    env: 'MOESTRO_BUDGET',
    help: 'memory the whole process may take: "8GiB", "1.5GB", "60%", "@FILE" for a file that says so, or "auto" for what is free less a margin',
    fallback: 'auto',
    parse: unless('auto', budgetSize),
    isLive: true,
  },
  {
    key: 'mode',
    flag: '--mode <mode>',
    env: 'MOESTRO_MODE',
    help: 'precision: "exact" runs every expert at the full level, "routed" gives low-weight experts fewer bits, "elastic" also those that are not in memory',
    fallback: 'exact',
    parse: choice<Mode>('exact', 'routed', 'elastic'),
  },
  {
    key: 'meanBits',
    flag: '--mean-bits <bits>',
    env: 'MOESTRO_MEAN_BITS',
    help: 'bits a weight that "routed" aims at in the mean and "elastic" has at least, from 2 to 8, or "auto"',
    fallback: 'auto',
    parse: unless('auto', decimal(2, 8)),
  },
  {
    key: 'targetTps',
    flag: '--target-tps <rate>',
    env: 'MOESTRO_TARGET_TPS',
    help: 'tokens a second that "elastic" holds for each answer where it can, or "auto" to spend a quarter of the time on reads',
    fallback: 'auto',
    parse: unless('auto', decimal(0.01, 100_000)),
  },
  {
    key: 'level',
    flag: '--level <bits>',
    env: 'MOESTRO_LEVEL',
    help: 'the full level in bits: 2, 3, 4, 8, or "auto" for the default of the model',
    fallback: 'auto',
    parse: unless('auto', level),
  },
  {
    key: 'context',
    flag: '--context <positions>',
    env: 'MOESTRO_CONTEXT',
    help: 'positions one request may take, or "auto" for what the budget affords',
    fallback: 'auto',
    parse: unless('auto', whole(16, 1 << 24)),
  },
  {
    key: 'threads',
    flag: '--threads <count>',
    env: 'MOESTRO_THREADS',
    help: 'threads that compute, or "auto" for one per processor',
    fallback: 'auto',
    parse: unless('auto', whole(1, 256)),
  },
  {
    key: 'kv',
    flag: '--kv <type>',
    env: 'MOESTRO_KV',
    help: 'keys and values of past tokens: "f16", or "int8" for half the memory',
    fallback: 'f16',
    parse: choice<KvType>('f16', 'int8'),
  },
  {
    key: 'chunk',
    flag: '--chunk <tokens>',
    env: 'MOESTRO_CHUNK',
    help: 'prompt tokens computed in one step',
    fallback: '512',
    parse: whole(1, 4096),
  },
  {
    key: 'maxSequences',
    flag: '--max-sequences <count>',
    env: 'MOESTRO_MAX_SEQUENCES',
    help: 'requests answered at once, or "auto": 64 where the budget holds all experts, 4 where they are read',
    fallback: 'auto',
    parse: unless('auto', whole(1, 256)),
  },
  {
    key: 'maxQueued',
    flag: '--max-queued <count>',
    env: 'MOESTRO_MAX_QUEUED',
    help: 'requests that wait beyond those; any more are told to come back later',
    fallback: '64',
    parse: whole(0, 10_000),
  },
  {
    key: 'gear',
    flag: '--gear <gear>',
    env: 'MOESTRO_GEAR',
    help: 'who shares the steps of decoding: "joint" all answers, "burst" those alike for a turn, "auto" the faster as measured',
    fallback: 'auto',
    parse: choice<GearMode>('auto', 'joint', 'burst'),
  },
  {
    key: 'tokenGap',
    flag: '--token-gap <ms>',
    env: 'MOESTRO_TOKEN_GAP',
    help: 'milliseconds that an answer waits at most for its next token because of the turns of others',
    fallback: '2000',
    parse: whole(0, 600_000),
  },
  {
    key: 'isa',
    flag: '--isa <name>',
    env: 'MOESTRO_ISA',
    help: `instruction set of the kernels: ${ISAS.join(', ')}, or "auto" for the best there is`,
    fallback: 'auto',
    parse: unless('auto', choice<Isa>(...ISAS)),
  },
  {
    key: 'io',
    flag: '--io <backend>',
    env: 'MOESTRO_IO',
    help: 'how experts are read: io_uring, pread, or "automatic" for io_uring where it works',
    fallback: 'automatic',
    parse: choice<IoBackend>('automatic', 'io_uring', 'pread'),
  },
  {
    key: 'queueDepth',
    flag: '--queue-depth <count>',
    env: 'MOESTRO_QUEUE_DEPTH',
    help: 'reads in flight at once',
    // Reads of 256 KiB or more reach the disk's rate at queue depth 2 to 8.
    fallback: '8',
    parse: whole(1, 256),
  },
  {
    key: 'directIo',
    flag: '--direct-io <on|off>',
    env: 'MOESTRO_DIRECT_IO',
    help: 'read past the page cache',
    fallback: 'on',
    parse: onOff,
  },
  {
    key: 'prefetch',
    flag: '--prefetch <mode>',
    env: 'MOESTRO_PREFETCH',
    help: 'read experts on a guess before they are asked for: on, off, or "auto" for on where it is measured to pay',
    fallback: 'off',
    parse: choice<PrefetchMode>('auto', 'on', 'off'),
  },
  {
    key: 'maxResidentExperts',
    flag: '--max-resident-experts <count>',
    env: 'MOESTRO_MAX_RESIDENT_EXPERTS',
    help: 'keep at most so many experts in memory whatever the budget, or "auto" for no such cap',
    fallback: 'auto',
    parse: unless('auto', whole(1, 1 << 24)),
  },
  ...PREFIX_SETTINGS,
  {
    key: 'recordTrace',
    flag: '--record-trace <file>',
    env: 'MOESTRO_RECORD_TRACE',
    help: 'write which experts every token is routed to, for "moestro replay" (.moetrace); nothing of a text is in it',
    fallback: '',
    parse: path,
    isPath: true,
  },
];
