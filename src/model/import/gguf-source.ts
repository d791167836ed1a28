/** A GGUF file as a ModelSource. */
import { MoestroError } from '../../errors.js';
import { ggufArchitecture, ggufFamily } from '../architecture.js';
import { readGgufHeader } from './gguf.js';
import { ggufVocabulary } from './gguf-vocabulary.js';
import type { ModelSource } from './source.js';
import { openSourceFile } from './source-file.js';
import { makeTensorTable } from './tensor-table.js';

/** Opens a file and checks all of its header. Reads no weights. The caller closes the source. */
export async function openGguf(path: string): Promise<ModelSource> {
  const file = await openSourceFile(path);
  try {
    const { metadata, tensors } = readGgufHeader(file);
    const splits = metadata.get('split.count');
    if (splits !== undefined && splits !== 0 && splits !== 1) {
      throw new MoestroError(
        'SOURCE_INVALID',
        `Cannot convert "${path}": it is one of ${String(splits)} parts, needed a single file (llama.cpp's gguf-split --merge makes one)`,
      );
    }
    const family = ggufFamily(metadata);
    const vocabulary = ggufVocabulary(metadata);
    const isTied = !tensors.has(family.gguf.tensors.head!);
    const architecture = ggufArchitecture(family, metadata, vocabulary.tokenCount, isTied);
    const table = makeTensorTable(tensors, family.gguf, architecture, path, family.gguf.rotaryRows === 'pairs');
    return {
      name: file.name.replace(/\.gguf$/i, ''),
      describe: `GGUF ${table.mainDtype}`,
      architecture,
      denseNames: table.denseNames,
      byteLength: table.byteLength,
      dense: table.dense,
      expert: table.expert,
      tokenizerJson: vocabulary.tokenizerJson,
      tokenizerConfigJson: vocabulary.tokenizerConfigJson,
      generation: vocabulary.generation,
      close: file.close,
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
