/** What `moestro serve` says when it is ready: where, what, where the memory goes, and what to try. Pure text. */
import type { ModelInfo } from '../answer/types.js';
import { formatBytes } from '../bytes.js';

export interface BannerFacts {
  readonly info: ModelInfo;
  readonly version: string;
  /** "http://127.0.0.1:8080" */
  readonly address: string;
  readonly needsKey: boolean;
  /** Models that are loaded when a request names them. */
  readonly others?: readonly string[];
}

export function banner({ info, version, address, needsKey, others = [] }: BannerFacts): string {
  const { memory } = info;
  const io = `${info.ioBackend}${info.ioDirect ? ', past the page cache' : ''}`;
  const key = needsKey ? ` -H 'authorization: Bearer YOUR_KEY'` : '';
  const question = '{"messages":[{"role":"user","content":"What is the capital of France?"}]}';
  return [
    `Moestro ${version} serves ${info.modelName} at ${address}`,
    '',
    `  model      ${info.modelName} (${info.family}), experts at ${info.level} bits, mode ${info.mode}`,
    ...(others.length === 0
      ? []
      : [`  on demand  ${others.join(', ')}: loaded when a request names it, one model at a time`]),
    `  computing  ${info.threads} ${info.threads === 1 ? 'thread' : 'threads'}, ${info.isa} kernels`,
    `  reading    ${io}`,
    '',
    `Where the memory goes (budget ${formatBytes(memory.total)})`,
    ...memoryTable(info),
    ...prefixLines(info),
    '',
    'Try it',
    `  curl ${address}/v1/chat/completions${key} -H 'content-type: application/json' -d '${question}'`,
    '',
    `Chat apps: base URL ${address}/v1, ${needsKey ? 'with your API key' : 'any API key'}, model ${info.modelName}`,
    `Numbers:   ${address}/metrics`,
    'More:      moestro serve --help   (another model, memory budget, precision)',
    'Ctrl-C stops the server.',
    '',
  ].join('\n');
}

function memoryTable({ memory, contextLength }: ModelInfo): string[] {
  const rows: readonly (readonly [string, number, string])[] = [
    ['dense weights', memory.dense, 'attention, routers, embeddings'],
    [
      'KV cache',
      memory.kv,
      `${memory.kvBlocks} blocks; one request takes up to ${contextLength} positions, ${memory.maxSequences} run at once`,
    ],
    [
      'experts',
      memory.experts,
      `${memory.residentExperts} of ${memory.expertCount} fit whole, the rest are read when needed`,
    ],
    ['scratch', memory.scratch, `steps of up to ${memory.chunkTokens} tokens`],
    ['runtime', memory.runtime, 'Node.js, tokenizer'],
    ['unused', memory.unused, 'not taken: the model needs no more'],
  ];
  const sizes = rows.map(([, bytes]) => formatBytes(bytes));
  const width = Math.max(...sizes.map((size) => size.length));
  return rows.map(([name, , note], index) =>
    `  ${name.padEnd(14)} ${sizes[index]!.padStart(width)}   ${note}`.trimEnd(),
  );
}

/** The part of the KV cache that is no request's, and what stands behind it. */
function prefixLines({ prefix }: ModelInfo): string[] {
  if (prefix === null) return [];
  const disk =
    prefix.directory === null ? '' : `, and on disk up to ${formatBytes(prefix.diskBytes)}: ${prefix.directory}`;
  return [`  Of the KV cache up to ${formatBytes(prefix.keptBytesMax)} keep prompts for those that begin alike${disk}`];
}
