/**
 * Is this a manifest we can trust? Every field is checked against the types of manifest.ts and against what the
 * architecture implies, so that whoever holds a Manifest may compute offsets from it without looking again.
 */
import { MoestroError } from '../errors.js';
import { checkArchitecture, denseTensorShapes } from './architecture-limits.js';
import { type DenseKind, denseTensorBytes, isDenseMatrix } from './dense-layout.js';
import {
  type Architecture,
  type DenseTensorEntry,
  FORMAT_NAME,
  FORMAT_VERSION,
  type Manifest,
  type PlaneGeometry,
  type PlaneTables,
} from './manifest.js';
import { planeGeometry } from './plane-geometry.js';

type Fields = Readonly<Record<string, unknown>>;

/**
 * @param value parsed manifest.json.
 * @param path the model's directory, for messages.
 * @throws {MoestroError} MODEL_VERSION for another version, MODEL_INVALID naming the field for everything else.
 */
export function checkManifest(value: unknown, path: string): Manifest {
  const check = new FieldChecker(path);
  const top = check.object(value, 'manifest');
  if (top.format !== FORMAT_NAME) check.fail('format', top.format, `"${FORMAT_NAME}"`);
  if (top.version !== FORMAT_VERSION) {
    throw new MoestroError(
      'MODEL_VERSION',
      `Cannot open "${path}": its format version is ${shown(top.version)}, needed ${FORMAT_VERSION}; convert the model again`,
      { path, version: top.version, needed: FORMAT_VERSION },
    );
  }
  const architecture = readArchitecture(check, top.architecture);
  const geometry = readGeometry(check, top.geometry, architecture);
  const levels = geometry.bitsStored === 8 ? [2, 3, 4, 8] : [2, 3, 4];
  if (!sameJson(top.levels, levels)) check.fail('levels', top.levels, JSON.stringify(levels));
  const defaultLevel = check.integer(top.defaultLevel, 'defaultLevel', 2, 8);
  if (!levels.includes(defaultLevel)) check.fail('defaultLevel', defaultLevel, `one of ${levels.join(', ')}`);

  const tokenizer = check.object(top.tokenizer, 'tokenizer');
  if (tokenizer.file !== 'tokenizer.json') check.fail('tokenizer.file', tokenizer.file, '"tokenizer.json"');
  if (tokenizer.configFile !== 'tokenizer_config.json')
    check.fail('tokenizer.configFile', tokenizer.configFile, '"tokenizer_config.json"');

  return {
    format: FORMAT_NAME,
    version: FORMAT_VERSION,
    name: check.text(top.name, 'name'),
    source: check.text(top.source, 'source'),
    architecture,
    levels,
    defaultLevel,
    tables: readTables(check, top.tables),
    geometry,
    dense: readDense(check, top.dense, architecture),
    experts: readExperts(check, top.experts, architecture, geometry),
    tokenizer: { file: 'tokenizer.json', configFile: 'tokenizer_config.json' },
    generation: readGeneration(check, top.generation, architecture.vocabSize),
    calibration: readCalibration(check, top.calibration),
    quality: readQuality(check, top.quality),
    ...(top.precision === undefined ? {} : { precision: readPrecision(check, top.precision, architecture) }),
    ...(top.synthetic === true ? { synthetic: true } : {}),
  };
}

/** Fields of an untrusted object, each named in the error that refuses it. */
class FieldChecker {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  fail(field: string, found: unknown, needed: string): never {
    throw new MoestroError(
      'MODEL_INVALID',
      `Cannot open "${this.#path}": manifest.json has ${field} ${shown(found)}, needed ${needed}`,
      { path: this.#path, field },
    );
  }

  object(value: unknown, field: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail(field, value, 'an object');
    return value as Fields;
  }

  text(value: unknown, field: string): string {
    if (typeof value !== 'string' || value.length > 4096) this.fail(field, value, 'a text of at most 4096 characters');
    return value as string;
  }

  integer(value: unknown, field: string, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
      this.fail(field, value, `an integer from ${min} to ${max}`);
    return value as number;
  }

  exactly(value: unknown, field: string, needed: number): number {
    if (value !== needed) this.fail(field, value, String(needed));
    return needed;
  }

  list(value: unknown, field: string, length: number): readonly unknown[] {
    if (!Array.isArray(value) || value.length !== length) this.fail(field, value, `a list of ${length}`);
    return value as readonly unknown[];
  }
}

const shown = (value: unknown): string => {
  const text = JSON.stringify(value);
  if (text === undefined) return 'missing';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

const sameJson = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function readArchitecture(check: FieldChecker, value: unknown): Architecture {
  const fields = check.object(value, 'architecture');
  const family = check.text(fields.family, 'architecture.family');
  const layerCount = check.integer(fields.layerCount, 'architecture.layerCount', 1, 1024);
  const layerKinds = check.list(fields.layerKinds, 'architecture.layerKinds', layerCount);
  layerKinds.forEach((kind, layer) => {
    if (kind !== 'moe' && kind !== 'dense') check.fail(`architecture.layerKinds[${layer}]`, kind, '"moe" or "dense"');
  });
  try {
    return { ...checkArchitecture(fields), family };
  } catch (error) {
    if (!(error instanceof MoestroError)) throw error;
    // Numbers that a source may not have either; here they are this file's fault.
    return check.fail('architecture', { family }, `one that can run (${error.message})`);
  }
}

function readGeometry(check: FieldChecker, value: unknown, model: Architecture): PlaneGeometry {
  const fields = check.object(value, 'geometry');
  if (fields.bitsStored !== 4 && fields.bitsStored !== 8)
    check.fail('geometry.bitsStored', fields.bitsStored, '4 or 8');
  const geometry = planeGeometry(model.hiddenSize, model.expertSize, fields.bitsStored as 4 | 8);
  for (const field of ['scaleBytes', 'bitBytes', 'recordBytes'] as const)
    check.exactly(fields[field], `geometry.${field}`, geometry[field]);
  const planes = check.list(fields.planes, 'geometry.planes', geometry.planes.length);
  geometry.planes.forEach((plane, index) => {
    const found = check.object(planes[index], `geometry.planes[${index}]`);
    for (const field of ['bits', 'offset', 'bytes'] as const)
      check.exactly(found[field], `geometry.planes[${index}].${field}`, plane[field]);
  });
  return geometry;
}

function readTables(check: FieldChecker, value: unknown): PlaneTables {
  const fields = check.object(value, 'tables');
  const table = (name: string, length: number): number[] =>
    check
      .list(fields[name], `tables.${name}`, length)
      .map((entry, index) => check.integer(entry, `tables.${name}[${index}]`, -127, 127));
  return {
    t2: table('t2', 4),
    t3: table('t3', 8),
    t4: table('t4', 16),
    residualStep: check.integer(fields.residualStep, 'tables.residualStep', 1, 64),
    residualOffset: check.integer(fields.residualOffset, 'tables.residualOffset', -512, 512),
  };
}

function readDense(check: FieldChecker, value: unknown, model: Architecture): Manifest['dense'] {
  const fields = check.object(value, 'dense');
  if (fields.file !== 'dense.safetensors') check.fail('dense.file', fields.file, '"dense.safetensors"');
  const fileBytes = check.integer(fields.bytes, 'dense.bytes', 8, Number.MAX_SAFE_INTEGER);
  const found = check.object(fields.tensors, 'dense.tensors');
  const shapes = denseTensorShapes(model);
  for (const name of Object.keys(found)) {
    if (!shapes.has(name))
      check.fail(`dense.tensors["${name}"]`, 'a tensor', 'none: the architecture has no such tensor');
  }
  const tensors: Record<string, DenseTensorEntry> = {};
  for (const [name, [rows, cols]] of shapes) {
    const at = `dense.tensors["${name}"]`;
    const entry = check.object(Object.hasOwn(found, name) ? found[name] : undefined, at);
    const kinds: readonly unknown[] = isDenseMatrix(name) ? ['q4', 'q6', 'q8'] : ['f32'];
    if (!kinds.includes(entry.kind)) check.fail(`${at}.kind`, entry.kind, kinds.join(', '));
    const kind = entry.kind as DenseKind;
    check.exactly(entry.rows, `${at}.rows`, rows);
    check.exactly(entry.cols, `${at}.cols`, cols);
    const bytes = check.exactly(entry.bytes, `${at}.bytes`, denseTensorBytes(kind, rows, cols));
    const offset = check.integer(entry.offset, `${at}.offset`, 8, Number.MAX_SAFE_INTEGER);
    if (offset + bytes > fileBytes)
      check.fail(`${at}.offset`, offset, `at most ${fileBytes - bytes}, so that it ends inside the file`);
    const crc32c = check.integer(entry.crc32c, `${at}.crc32c`, 0, 0xffffffff);
    tensors[name] = { kind, rows, cols, offset, bytes, crc32c };
  }
  const inOrder = Object.entries(tensors).sort(([, a], [, b]) => a.offset - b.offset);
  inOrder.forEach(([name, entry], index) => {
    const next = inOrder[index + 1];
    if (next !== undefined && entry.offset + entry.bytes > next[1].offset)
      check.fail(
        `dense.tensors["${next[0]}"].offset`,
        next[1].offset,
        `at least ${entry.offset + entry.bytes}: "${name}" reaches there`,
      );
  });
  return { file: 'dense.safetensors', bytes: fileBytes, tensors };
}

function readExperts(
  check: FieldChecker,
  value: unknown,
  model: Architecture,
  geometry: PlaneGeometry,
): Manifest['experts'] {
  const fields = check.object(value, 'experts');
  if (fields.file !== 'experts.bin') check.fail('experts.file', fields.file, '"experts.bin"');
  const records = model.layerKinds.filter((kind) => kind === 'moe').length * model.expertCount;
  const bytes = check.exactly(fields.bytes, 'experts.bytes', records * geometry.recordBytes);
  if (!Number.isSafeInteger(bytes)) check.fail('experts.bytes', bytes, 'a size below 8 PiB');
  const checksumBytes = records * geometry.planes.length * 4;
  const { checksums } = fields;
  const length = Math.ceil(checksumBytes / 3) * 4;
  if (typeof checksums !== 'string' || checksums.length !== length || !/^[A-Za-z0-9+/]*={0,2}$/.test(checksums))
    check.fail(
      'experts.checksums',
      typeof checksums === 'string' ? `${checksums.length} characters` : checksums,
      `${length} characters of base64`,
    );
  if (Buffer.from(checksums as string, 'base64').length !== checksumBytes)
    check.fail('experts.checksums', 'another number of bytes', `${checksumBytes} bytes in base64`);
  return { file: 'experts.bin', bytes, checksums: checksums as string };
}

function readGeneration(check: FieldChecker, value: unknown, vocabSize: number): Manifest['generation'] {
  const fields = check.object(value, 'generation');
  const tokenId = (id: unknown, field: string): number => check.integer(id, field, 0, vocabSize - 1);
  if (!Array.isArray(fields.eosTokenIds) || fields.eosTokenIds.length > 64)
    check.fail('generation.eosTokenIds', fields.eosTokenIds, 'a list of at most 64 token ids');
  if (typeof fields.addBos !== 'boolean') check.fail('generation.addBos', fields.addBos, 'true or false');
  return {
    eosTokenIds: (fields.eosTokenIds as unknown[]).map((id, index) => tokenId(id, `generation.eosTokenIds[${index}]`)),
    bosTokenId: fields.bosTokenId === null ? null : tokenId(fields.bosTokenId, 'generation.bosTokenId'),
    addBos: fields.addBos as boolean,
  };
}

function readCalibration(check: FieldChecker, value: unknown): Manifest['calibration'] {
  if (value === null) return null;
  const fields = check.object(value, 'calibration');
  return {
    tokens: check.integer(fields.tokens, 'calibration.tokens', 0, Number.MAX_SAFE_INTEGER),
    text: check.text(fields.text, 'calibration.text'),
  };
}

/** Beyond these, squares and quotients of float32 thresholds mean nothing. */
const SENSITIVITY_RANGE = [1e-12, 1e12] as const;
const IMPORTANCES_MAX = 4096;

function readPrecision(
  check: FieldChecker,
  value: unknown,
  architecture: Architecture,
): NonNullable<Manifest['precision']> {
  const fields = check.object(value, 'precision');
  const [least, most] = SENSITIVITY_RANGE;
  const numbers = (list: readonly unknown[], field: string, min: number): number[] =>
    list.map((item, index) => {
      if (typeof item === 'number' && item >= min && item <= most) return item;
      return check.fail(`precision.${field}[${index}]`, item, `a number from ${min} to ${most}`);
    });
  const layers = architecture.layerKinds.filter((kind) => kind === 'moe').length;
  const { importances } = fields;
  if (!Array.isArray(importances) || importances.length === 0 || importances.length > IMPORTANCES_MAX)
    check.fail('precision.importances', importances, `a list of 1 to ${IMPORTANCES_MAX} numbers`);
  return {
    tokens: check.integer(fields.tokens, 'precision.tokens', 0, Number.MAX_SAFE_INTEGER),
    sensitivities: numbers(check.list(fields.sensitivities, 'precision.sensitivities', layers), 'sensitivities', least),
    importances: numbers(importances as unknown[], 'importances', 0),
  };
}

function readQuality(check: FieldChecker, value: unknown): Manifest['quality'] {
  const errors = check.object(check.object(value, 'quality').relativeError, 'quality.relativeError');
  const relativeError: Record<string, number> = {};
  for (const [level, error] of Object.entries(errors)) {
    const field = `quality.relativeError["${level.slice(0, 20)}"]`;
    if (!/^[2348]$/.test(level)) check.fail(field, error, 'one of the levels 2, 3, 4, 8');
    if (typeof error !== 'number' || !(error >= 0)) check.fail(field, error, 'a number of at least 0');
    relativeError[level] = error as number;
  }
  return { relativeError };
}
