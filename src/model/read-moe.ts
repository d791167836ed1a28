/**
 * What does a `.moe` directory hold, and is it whole? Opening checks everything that sizes and the manifest can tell;
 * `verifyMoe` reads every byte. docs/model-format.md is the page on the format.
 */
import { type FileHandle, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MoestroError } from '../errors.js';
import { loadAddon } from '../native/binding.js';
import { checkManifest } from './check-manifest.js';
import type { Manifest } from './manifest.js';

/** A manifest of 1024 layers of 1024 experts has 22 MiB of checksums; nothing needs more than this. */
const MANIFEST_BYTES_MAX = 64 << 20;
const READ_BYTES = 8 << 20;

/** An opened model: read-only facts, no open files. */
export interface MoeModel {
  readonly path: string;
  readonly manifest: Manifest;
  readonly densePath: string;
  readonly expertsPath: string;
  /** Per layer its place among the layers with experts, -1 for a dense layer. */
  readonly moeLayerIndex: readonly number[];
  readonly moeLayerCount: number;
  /** Byte offset of an expert's record in experts.bin; add a plane's offset from manifest.geometry. */
  expertOffset(layer: number, expert: number): number;
  /** CRC-32C of one plane, as unsigned 32-bit. */
  planeCrc(layer: number, expert: number, plane: number): number;
}

export interface VerifyProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Opens and checks the model directory at `path`.
 *
 * @throws {MoestroError} MODEL_INVALID (no such model, or a manifest that is wrong, naming the field), MODEL_VERSION,
 * MODEL_CORRUPT (a file that is missing or of another length than the manifest says), IO_ERROR.
 */
export async function openMoe(path: string): Promise<MoeModel> {
  const manifest = checkManifest(await readManifest(path), path);
  const densePath = join(path, manifest.dense.file);
  const expertsPath = join(path, manifest.experts.file);
  await checkLength(path, manifest.dense.file, manifest.dense.bytes);
  await checkLength(path, manifest.experts.file, manifest.experts.bytes);
  for (const file of [manifest.tokenizer.file, manifest.tokenizer.configFile]) await checkLength(path, file, undefined);

  const { architecture, geometry } = manifest;
  const planeCount = geometry.planes.length;
  const checksums = Buffer.from(manifest.experts.checksums, 'base64');
  let moeLayerCount = 0;
  const moeLayerIndex = architecture.layerKinds.map((kind) => (kind === 'moe' ? moeLayerCount++ : -1));
  const recordIndex = (layer: number, expert: number): number => {
    const index = moeLayerIndex[layer];
    if (index === undefined || index < 0 || !(expert >= 0 && expert < architecture.expertCount))
      throw new MoestroError('INVALID_ARGUMENT', `Cannot find expert ${layer}/${expert} in "${path}": there is none`);
    return index * architecture.expertCount + expert;
  };
  return {
    path,
    manifest,
    densePath,
    expertsPath,
    moeLayerIndex,
    moeLayerCount,
    expertOffset: (layer, expert) => recordIndex(layer, expert) * geometry.recordBytes,
    planeCrc: (layer, expert, plane) => checksums.readUInt32LE((recordIndex(layer, expert) * planeCount + plane) * 4),
  };
}

/**
 * Reads the whole model and compares every checksum.
 *
 * @param onProgress called after every few mebibytes.
 * @throws {MoestroError} MODEL_CORRUPT naming the first tensor or expert plane that differs; else as `openMoe`.
 */
export async function verifyMoe(
  path: string,
  onProgress: (progress: VerifyProgress) => void = () => {},
): Promise<MoeModel> {
  const model = await openMoe(path);
  const { manifest } = model;
  const { dense, experts, geometry, architecture } = manifest;
  const totalBytes = Object.values(dense.tensors).reduce((sum, one) => sum + one.bytes, experts.bytes);
  let doneBytes = 0;
  const advance = (bytes: number): void => {
    doneBytes += bytes;
    onProgress({ doneBytes, totalBytes });
  };
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  const check = async (file: FileHandle, name: string, offset: number, bytes: number, crc: number): Promise<void> => {
    const found = await crcOf(file, name, offset, bytes, buffer, advance);
    if (found === crc) return;
    const hex = (value: number): string => value.toString(16).padStart(8, '0');
    throw new MoestroError(
      'MODEL_CORRUPT',
      `Cannot trust "${path}": ${name} at offset ${offset} has checksum ${hex(found)}, needed ${hex(crc)}`,
      { path, record: name, offset },
    );
  };

  const denseFile = await openForReading(model.densePath);
  try {
    for (const [name, entry] of Object.entries(dense.tensors))
      await check(denseFile, `tensor "${name}" of ${dense.file}`, entry.offset, entry.bytes, entry.crc32c);
  } finally {
    await denseFile.close();
  }
  const expertsFile = await openForReading(model.expertsPath);
  try {
    for (const [layer, index] of model.moeLayerIndex.entries()) {
      if (index < 0) continue;
      for (let expert = 0; expert < architecture.expertCount; expert++) {
        for (const [plane, { offset, bytes }] of geometry.planes.entries()) {
          const at = model.expertOffset(layer, expert) + offset;
          const name = `plane ${plane} of expert ${layer}/${expert}`;
          await check(expertsFile, name, at, bytes, model.planeCrc(layer, expert, plane));
        }
      }
    }
  } finally {
    await expertsFile.close();
  }
  return model;
}

async function crcOf(
  file: FileHandle,
  name: string,
  offset: number,
  bytes: number,
  buffer: Buffer,
  advance: (bytes: number) => void,
): Promise<number> {
  const { crc32c } = loadAddon();
  let crc = 0;
  for (let done = 0; done < bytes; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, bytes - done), offset + done);
    if (bytesRead === 0)
      throw new MoestroError('MODEL_CORRUPT', `Cannot read ${name}: got ${done} of ${bytes} bytes at offset ${offset}`);
    crc = crc32c(crc, buffer.subarray(0, bytesRead));
    done += bytesRead;
    advance(bytesRead);
  }
  return crc;
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (cause) {
    throw new MoestroError('IO_ERROR', `Cannot open "${path}": ${(cause as Error).message}`, { path }, cause);
  }
}

async function readManifest(path: string): Promise<unknown> {
  const file = join(path, 'manifest.json');
  let text: string;
  try {
    const found = await stat(file);
    // A pipe would be waited for, and a directory is no manifest.
    if (!found.isFile())
      throw new MoestroError('MODEL_INVALID', `Cannot open "${path}": manifest.json is no file`, { path });
    const { size } = found;
    if (size > MANIFEST_BYTES_MAX)
      throw new MoestroError(
        'MODEL_INVALID',
        `Cannot open "${path}": manifest.json has ${size} bytes, needed at most ${MANIFEST_BYTES_MAX}`,
      );
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (cause instanceof MoestroError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new MoestroError(
        'MODEL_INVALID',
        `Cannot open "${path}": found no manifest.json, needed a .moe directory as \`moestro convert\` writes it`,
        { path },
        cause,
      );
    throw new MoestroError('IO_ERROR', `Cannot open "${file}": ${(cause as Error).message}`, { path }, cause);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MoestroError(
      'MODEL_INVALID',
      `Cannot open "${path}": manifest.json is no JSON (${(cause as Error).message.slice(0, 120)})`,
      { path },
      cause,
    );
  }
}

async function checkLength(path: string, file: string, bytes: number | undefined): Promise<void> {
  const found = await stat(join(path, file)).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT')
      throw new MoestroError('MODEL_CORRUPT', `Cannot open "${path}": ${file} is missing`, { path, file }, cause);
    throw new MoestroError('IO_ERROR', `Cannot open "${join(path, file)}": ${cause.message}`, { path, file }, cause);
  });
  if (!found.isFile()) throw new MoestroError('MODEL_CORRUPT', `Cannot open "${path}": ${file} is no file`, { path });
  if (bytes !== undefined && found.size !== bytes)
    throw new MoestroError('MODEL_CORRUPT', `Cannot open "${path}": ${file} has ${found.size} bytes, needed ${bytes}`, {
      path,
      file,
      found: found.size,
      needed: bytes,
    });
}
