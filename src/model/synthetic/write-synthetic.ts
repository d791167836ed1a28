/**
 * Writes a `.moe` directory of a real shape with random weights, as fast as the disk takes it: for benchmarks of speed,
 * memory and bytes, where only sizes matter. Every plane is valid and every checksum right; activations stay finite, since
 * each matrix is scaled so that inputs of unit variance give outputs of unit variance.
 *
 * Random bytes are made once, in a pool a little larger than a record; records differ by the offset they are read at, so
 * that a checksum per offset is all the arithmetic there is.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  writevSync,
} from 'node:fs';
import { join } from 'node:path';
import { MoestroError } from '../../errors.js';
import { denseTensorShapes } from '../architecture-limits.js';
import { type DenseBits, denseTensorBytes, denseTensorKind } from '../dense-layout.js';
import {
  type Architecture,
  DEFAULT_TABLES,
  type DenseTensorEntry,
  FORMAT_NAME,
  FORMAT_VERSION,
  type Manifest,
} from '../manifest.js';
import { planeGeometry } from '../plane-geometry.js';
import { type Crc32c, chooseCrc32c } from './checksum.js';
import { denseParts } from './dense-tensors.js';
import { randomPool } from './random-pool.js';
import { scaleRegion } from './scale-region.js';
import { syntheticTokenizer } from './tokenizer.js';

const PAGE = 4096;
/** Records that differ: enough that no layer repeats itself, few enough that their checksums take seconds. */
const VARIANTS_MAX = 64;
const VARIANT_BYTES_MAX = 512 << 20;

export interface SyntheticRequest {
  readonly name: string;
  readonly architecture: Architecture;
  /** 4 for levels 2 to 4, 8 for level 8 too. */
  readonly bitsStored: 4 | 8;
  /** Bits of dense matrices, 8 when absent: see denseTensorKind(). */
  readonly denseBits?: DenseBits;
  readonly seed: number;
  readonly out: string;
  readonly onBytes?: (done: number, total: number) => void;
}

/**
 * Writes the model under a temporary name and renames it.
 *
 * @throws {MoestroError} OUTPUT_EXISTS; errors of the file system come as they are.
 */
export function writeSynthetic(request: SyntheticRequest): Manifest {
  const { architecture, bitsStored, seed, out } = request;
  if (existsSync(out)) {
    throw new MoestroError('OUTPUT_EXISTS', `Cannot write "${out}": it exists already`, { path: out });
  }
  const temporary = `${out}.partial`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  const crc32c = chooseCrc32c();
  const geometry = planeGeometry(architecture.hiddenSize, architecture.expertSize, bitsStored);
  const records = architecture.layerKinds.filter((kind) => kind === 'moe').length * architecture.expertCount;
  const total = records * geometry.recordBytes;
  const dense = writeDense(join(temporary, 'dense.safetensors'), request, crc32c);
  const checksums = writeExperts(join(temporary, 'experts.bin'), request, records, crc32c);
  const tokenizer = syntheticTokenizer(architecture.vocabSize);
  writeFileSync(join(temporary, 'tokenizer.json'), tokenizer.tokenizerJson);
  writeFileSync(join(temporary, 'tokenizer_config.json'), tokenizer.configJson);
  const levels = bitsStored === 8 ? [2, 3, 4, 8] : [2, 3, 4];
  const manifest: Manifest = {
    format: FORMAT_NAME,
    version: FORMAT_VERSION,
    name: request.name,
    source: `random weights, seed ${seed}`,
    architecture,
    levels,
    defaultLevel: bitsStored,
    tables: DEFAULT_TABLES,
    geometry,
    dense: { file: 'dense.safetensors', ...dense },
    experts: { file: 'experts.bin', bytes: total, checksums: Buffer.from(checksums.buffer).toString('base64') },
    tokenizer: { file: 'tokenizer.json', configFile: 'tokenizer_config.json' },
    generation: { eosTokenIds: [tokenizer.endId], bosTokenId: null, addBos: false },
    calibration: null,
    quality: { relativeError: {} },
    synthetic: true,
  };
  writeFileSync(join(temporary, 'manifest.json'), `${JSON.stringify(manifest, null, 1)}\n`);
  renameSync(temporary, out);
  return manifest;
}

/** Writes all records; returns the checksum of every plane [record, plane]. */
function writeExperts(path: string, request: SyntheticRequest, records: number, crc32c: Crc32c): Uint32Array {
  const { architecture, bitsStored, seed } = request;
  const { hiddenSize, expertSize } = architecture;
  const geometry = planeGeometry(hiddenSize, expertSize, bitsStored);
  const bitsBytes = bitsStored * geometry.bitBytes;
  const variants = Math.max(4, Math.min(VARIANTS_MAX, Math.floor(VARIANT_BYTES_MAX / geometry.recordBytes)));
  const pool = randomPool(bitsBytes + variants * PAGE, seed);
  const scales = scaleRegion(hiddenSize, expertSize, geometry.scaleBytes, seed + 1);
  const scaleCrc = crc32c(0, scales);
  const variantCrcs = Array.from({ length: variants }, (_, variant) =>
    geometry.planes.map((plane, index) => {
      const begin = variant * PAGE + (index === 0 ? 0 : plane.offset - geometry.scaleBytes);
      const bytes = plane.bits * geometry.bitBytes;
      return crc32c(index === 0 ? scaleCrc : 0, pool.subarray(begin, begin + bytes));
    }),
  );
  const checksums = new Uint32Array(records * geometry.planes.length);
  const file = openSync(path, 'wx');
  try {
    for (let record = 0; record < records; ++record) {
      // A step coprime to the number of variants visits all of them before one repeats.
      const variant = (record * 5 + Math.floor(record / variants)) % variants;
      checksums.set(variantCrcs[variant]!, record * geometry.planes.length);
      writeAll(file, [scales, pool.subarray(variant * PAGE, variant * PAGE + bitsBytes)]);
      request.onBytes?.((record + 1) * geometry.recordBytes, records * geometry.recordBytes);
    }
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return checksums;
}

function writeDense(
  path: string,
  { architecture, seed, denseBits = 8 }: SyntheticRequest,
  crc32c: Crc32c,
): { readonly bytes: number; readonly tensors: Record<string, DenseTensorEntry> } {
  const shapes = [...denseTensorShapes(architecture)];
  const header: Record<string, unknown> = {};
  let length = 0;
  for (const [name, [rows, cols]] of shapes) {
    const kind = denseTensorKind(name, denseBits);
    const bytes = denseTensorBytes(kind, rows, cols);
    header[name] = {
      dtype: kind === 'f32' ? 'F32' : 'U8',
      shape: kind === 'f32' ? [rows, cols] : [bytes],
      data_offsets: [length, length + bytes],
    };
    length += bytes;
  }
  const text = JSON.stringify(header);
  const headerBytes = Math.ceil((8 + text.length) / PAGE) * PAGE;
  const start = Buffer.alloc(headerBytes, ' ');
  start.writeBigUInt64LE(BigInt(headerBytes - 8));
  start.write(text, 8, 'latin1');
  const tensors: Record<string, DenseTensorEntry> = {};
  const file = openSync(path, 'wx');
  try {
    writeAll(file, [start]);
    let offset = headerBytes;
    for (const [index, [name, [rows, cols]]] of shapes.entries()) {
      const kind = denseTensorKind(name, denseBits);
      let bytes = 0;
      let crc = 0;
      for (const part of denseParts(name, kind, rows, cols, seed + index)) {
        writeAll(file, [part]);
        crc = crc32c(crc, part);
        bytes += part.length;
      }
      tensors[name] = { kind, rows, cols, offset, bytes, crc32c: crc };
      offset += bytes;
    }
    fsyncSync(file);
    return { bytes: offset, tensors };
  } finally {
    closeSync(file);
  }
}

/** A write may take less than it was given (2 GiB at most on Linux, or a disk that fills up). */
function writeAll(file: number, parts: readonly Uint8Array[]): void {
  let rest = parts.filter((part) => part.length > 0);
  while (rest.length > 0) {
    let written = writevSync(file, rest);
    if (written === 0) throw new MoestroError('DISK_FULL', 'Cannot write the model: the disk took no more bytes');
    rest = rest.flatMap((part) => {
      const taken = Math.min(written, part.length);
      written -= taken;
      return taken === part.length ? [] : [part.subarray(taken)];
    });
  }
}
