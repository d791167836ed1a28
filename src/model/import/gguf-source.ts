/** A GGUF file, or the parts that llama.cpp's gguf-split made of one, as a ModelSource. */
import { basename, dirname, join } from 'node:path';
import { MoestroError } from '../../errors.js';
import { ggufArchitecture, ggufFamily } from '../architecture.js';
import { readGgufHeader } from './gguf.js';
import { ggufVocabulary } from './gguf-vocabulary.js';
import type { ModelSource } from './source.js';
import type { RawTensor } from './source-dtypes.js';
import { openSourceFile, type SourceFile } from './source-file.js';
import { makeTensorTable } from './tensor-table.js';

const PART_NAME = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/;
const MAX_PARTS = 1024;

/** Opens a model by its file or any of its parts and checks all headers. Reads no weights. The caller closes it. */
export async function openGguf(path: string): Promise<ModelSource> {
  const files: SourceFile[] = [];
  const close = async () => void (await Promise.all(files.map((file) => file.close())));
  try {
    const { metadata, tensors } = await readParts(path, files);
    const family = ggufFamily(metadata);
    const vocabulary = ggufVocabulary(metadata);
    const isTied = !tensors.has(family.gguf.tensors.head!);
    const architecture = ggufArchitecture(family, metadata, vocabulary.tokenCount, isTied);
    const table = makeTensorTable(tensors, family.gguf, architecture, path, family.gguf.rotaryRows === 'pairs');
    return {
      name: PART_NAME.exec(basename(path))?.[1] ?? basename(path).replace(/\.gguf$/i, ''),
      describe: `GGUF ${table.mainDtype}`,
      architecture,
      denseNames: table.denseNames,
      byteLength: table.byteLength,
      dense: table.dense,
      expert: table.expert,
      tokenizerJson: vocabulary.tokenizerJson,
      tokenizerConfigJson: vocabulary.tokenizerConfigJson,
      generation: vocabulary.generation,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Parts {
  /** Of the first part: the others repeat only which part they are. */
  readonly metadata: ReadonlyMap<string, unknown>;
  readonly tensors: ReadonlyMap<string, RawTensor>;
}

/** Opens every part, adding each to `files` before anything can fail. */
async function readParts(path: string, files: SourceFile[]): Promise<Parts> {
  const [, stem, , total] = PART_NAME.exec(basename(path)) ?? [];
  const count = total === undefined ? 1 : Number(total);
  if (count < 1 || count > MAX_PARTS) fail(path, `its name promises ${count} parts, at most ${MAX_PARTS} allowed`);
  const tensors = new Map<string, RawTensor>();
  let metadata: ReadonlyMap<string, unknown> = new Map();
  for (let part = 0; part < count; part++) {
    const name = `${stem}-${String(part + 1).padStart(5, '0')}-of-${total}.gguf`;
    const file = await openSourceFile(stem === undefined ? path : join(dirname(path), name));
    files.push(file);
    const header = readGgufHeader(file);
    const found = [header.metadata.get('split.no') ?? 0, header.metadata.get('split.count') || 1];
    if (found[0] !== part || found[1] !== count) {
      fail(
        file.path,
        `it is part ${String(found[0])} of ${String(found[1])}, needed part ${part} of ${count} by its name`,
      );
    }
    if (part === 0) metadata = header.metadata;
    for (const [key, tensor] of header.tensors) {
      if (tensors.has(key)) fail(file.path, `tensor "${key}" is also in "${tensors.get(key)!.file.name}"`);
      tensors.set(key, tensor);
    }
  }
  return { metadata, tensors };
}

function fail(path: string, found: string): never {
  throw new MoestroError('SOURCE_INVALID', `Cannot convert "${path}": ${found}`);
}
