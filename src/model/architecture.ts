/**
 * How does each supported family spell its numbers and its tensors? The answers are data, one file a family in
 * models/architectures/; this file reads them and turns a Hugging Face config or GGUF metadata into an Architecture.
 * Facts: transformers models/{qwen3_moe,qwen2_moe,olmoe,mixtral}, llama.cpp src/llama-arch.cpp.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { MoestroError } from '../errors.js';
import { checkArchitecture } from './architecture-limits.js';
import type { Architecture } from './manifest.js';

/** A field is a constant, or the first of `keys` that is present and not null, or the default. */
export interface FieldRule {
  readonly value?: unknown;
  readonly keys?: readonly string[];
  /** A value, or another field's name, or "a/b" of two fields. */
  readonly default?: unknown;
  /** The keys count only when this key is true; otherwise the default. */
  readonly onlyIf?: string;
}

/** Where the experts lie; the first layout whose tensors are in the file is taken. */
export type ExpertLayout =
  | { readonly layout: 'separate'; readonly gate: string; readonly up: string; readonly down: string }
  /** One tensor a layer with all experts, [expert, rows, cols]. */
  | { readonly layout: 'stacked'; readonly gate: string; readonly up: string; readonly down: string }
  /** As stacked, with the rows of gate above those of up. */
  | { readonly layout: 'fused'; readonly gateUp: string; readonly down: string };

/** One source format's spelling of a family. Templates hold {layer}, {expert} and, in keys, {arch}. */
export interface Spelling {
  readonly fields: Readonly<Record<string, FieldRule>>;
  /** Keys that must be absent, null, or one of the values: anything else changes the arithmetic. */
  readonly require: Readonly<Record<string, readonly unknown[]>>;
  /** Canonical dense name to the source's name. */
  readonly tensors: Readonly<Record<string, string>>;
  readonly experts: readonly ExpertLayout[];
  /** Parts of tensor names that carry nothing we need. */
  readonly ignored: readonly string[];
}

export interface FamilyDescription {
  readonly family: string;
  readonly title: string;
  readonly huggingFace: Spelling & {
    readonly modelTypes: readonly string[];
    readonly architectures: readonly string[];
    /** Keys that say which layers have no experts. */
    readonly layerKinds?: { readonly sparseStep: string; readonly denseLayers: string };
  };
  readonly gguf: Spelling & {
    readonly architecture: string;
    /** Rows of q and k within a head: rotary halves apart as Hugging Face has them, or in interleaved pairs. */
    readonly rotaryRows: 'halves' | 'pairs';
  };
}

export type Lookup = (key: string) => unknown;

let descriptions: readonly FamilyDescription[] | undefined;

/** All descriptions, by family name. The folder has the same place relative to src/model and dist/model. */
export function familyDescriptions(): readonly FamilyDescription[] {
  if (descriptions === undefined) {
    const folder = new URL('../../models/architectures/', import.meta.url);
    descriptions = readdirSync(fileURLToPath(folder))
      .filter((file) => file.endsWith('.json'))
      .sort()
      .map((file) => JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as FamilyDescription);
  }
  return descriptions;
}

/** Throws UNSUPPORTED_ARCHITECTURE with the list of what is supported. */
function refuse(found: string, supported: readonly string[]): never {
  throw new MoestroError(
    'UNSUPPORTED_ARCHITECTURE',
    `Cannot convert the model: its architecture is ${found}; supported are ${supported.join(', ')}`,
    { found, supported },
  );
}

/** The family of a Hugging Face config.json, by model_type, or by `architectures` where that is missing. */
export function huggingFaceFamily(config: Readonly<Record<string, unknown>>): FamilyDescription {
  const { model_type: modelType, architectures } = config;
  const names = Array.isArray(architectures) ? architectures : [];
  const family = familyDescriptions().find(({ huggingFace }) =>
    typeof modelType === 'string'
      ? huggingFace.modelTypes.includes(modelType)
      : names.some((name) => huggingFace.architectures.includes(name as string)),
  );
  if (family !== undefined) return family;
  const found = typeof modelType === 'string' ? modelType : (names[0] ?? 'not named');
  const supported = familyDescriptions().flatMap((one) => one.huggingFace.modelTypes);
  return refuse(JSON.stringify(found), supported);
}

/** The family of a GGUF's general.architecture. "llama" is Mixtral when it has experts and refused when it has none. */
export function ggufFamily(metadata: ReadonlyMap<string, unknown>): FamilyDescription {
  const name = metadata.get('general.architecture');
  const family = familyDescriptions().find(({ gguf }) => gguf.architecture === name);
  const supported = familyDescriptions().map(({ gguf, title }) =>
    gguf.architecture === 'llama' ? `llama with experts (${title})` : gguf.architecture,
  );
  if (family === undefined) return refuse(JSON.stringify(name ?? 'not named'), supported);
  const experts = metadata.get(`${family.gguf.architecture}.expert_count`);
  if (experts === undefined || experts === 0) return refuse(`${JSON.stringify(name)} without experts`, supported);
  return family;
}

/** Reads an Architecture from config.json. Throws SOURCE_INVALID or UNSUPPORTED_ARCHITECTURE naming the key. */
export function huggingFaceArchitecture(
  family: FamilyDescription,
  config: Readonly<Record<string, unknown>>,
): Architecture {
  const lookup: Lookup = (path) => path.split('.').reduce<unknown>((at, key) => own(at, key), config);
  for (const key of ['rope_scaling', 'rope_parameters']) checkRope(key, lookup(key));
  checkRequired(family.huggingFace, lookup);
  const fields = readFields(family.huggingFace, lookup);
  const layerCount = fields.layerCount;
  const kinds = family.huggingFace.layerKinds;
  const step = kinds === undefined ? 1 : (lookup(kinds.sparseStep) ?? 1);
  const denseLayers = kinds === undefined ? [] : (lookup(kinds.denseLayers) ?? []);
  if (typeof step !== 'number' || !Number.isInteger(step) || step < 1) {
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot read config.json: ${kinds?.sparseStep} is ${JSON.stringify(step)}`,
    );
  }
  if (!Array.isArray(denseLayers) || !denseLayers.every((layer) => Number.isInteger(layer))) {
    throw new MoestroError(
      'SOURCE_INVALID',
      `Cannot read config.json: ${kinds?.denseLayers} is not a list of integers`,
    );
  }
  const dense = new Set(denseLayers);
  const isMoe = (layer: number): boolean => (layer + 1) % step === 0 && !dense.has(layer);
  return finish(family.family, fields, typeof layerCount === 'number' ? layerCount : 0, isMoe);
}

/** Reads an Architecture from GGUF metadata; `vocabSize` is the number of tokens in it. */
export function ggufArchitecture(
  family: FamilyDescription,
  metadata: ReadonlyMap<string, unknown>,
  vocabSize: number,
  tiedEmbeddings: boolean,
): Architecture {
  const arch = family.gguf.architecture;
  // llama.cpp allows one value a layer; a list of equal values is the same as one.
  const lookup: Lookup = (key) => {
    const value = metadata.get(key.replace('{arch}', arch));
    return Array.isArray(value) && value.length > 0 && value.every((one) => one === value[0]) ? value[0] : value;
  };
  const scaling = lookup('{arch}.rope.scaling.type');
  if (scaling !== undefined && scaling !== 'none') checkRope(`${arch}.rope.scaling.type`, { type: scaling });
  checkRequired(family.gguf, lookup, arch);
  const fields: Record<string, unknown> = { ...readFields(family.gguf, lookup), vocabSize, tiedEmbeddings };
  const rotary = lookup('{arch}.rope.dimension_count');
  if (rotary !== undefined && rotary !== fields.headDim) {
    throw new MoestroError(
      'UNSUPPORTED_ARCHITECTURE',
      `Cannot convert the model: ${arch}.rope.dimension_count is ${String(rotary)}, needed the head's ${String(fields.headDim)}`,
    );
  }
  const layerCount = fields.layerCount;
  return finish(family.family, fields, typeof layerCount === 'number' ? layerCount : 0, () => true);
}

function own(at: unknown, key: string): unknown {
  return typeof at === 'object' && at !== null && Object.hasOwn(at, key)
    ? (at as Record<string, unknown>)[key]
    : undefined;
}

function checkRope(key: string, value: unknown): void {
  if (value === undefined || value === null) return;
  const type = own(value, 'rope_type') ?? own(value, 'type');
  // Only a flat object may leave its type out: one object a layer kind would hide another scaling.
  const isFlat = typeof value === 'object' && Object.values(value).every((one) => typeof one !== 'object');
  if (isFlat && (type === 'default' || (type === undefined && key === 'rope_parameters'))) return;
  throw new MoestroError(
    'UNSUPPORTED_ARCHITECTURE',
    `Cannot convert the model: ${key} is ${shown(type ?? value)}, needed none or "default"`,
    { key },
  );
}

function checkRequired(spelling: Spelling, lookup: Lookup, arch = ''): void {
  for (const [key, allowed] of Object.entries(spelling.require)) {
    const value = lookup(key);
    if (value === undefined || value === null || allowed.includes(value)) continue;
    throw new MoestroError(
      'UNSUPPORTED_ARCHITECTURE',
      `Cannot convert the model: ${key.replace('{arch}', arch)} is ${shown(value)}, needed ${allowed.map(shown).join(' or ')}`,
      { key },
    );
  }
}

const shown = (value: unknown): string => JSON.stringify(value)?.slice(0, 80) ?? 'undefined';

function readFields(spelling: Spelling, lookup: Lookup): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const [name, rule] of Object.entries(spelling.fields)) fields[name] = readField(rule, lookup, fields);
  return fields;
}

function readField(rule: FieldRule, lookup: Lookup, fields: Readonly<Record<string, unknown>>): unknown {
  if ('value' in rule) return rule.value;
  if (rule.onlyIf === undefined || lookup(rule.onlyIf) === true) {
    for (const key of rule.keys ?? []) {
      const value = lookup(key);
      if (value !== undefined && value !== null) return value;
    }
  }
  if (typeof rule.default !== 'string') return rule.default;
  const [above, below] = rule.default.split('/').map((name) => fields[name]);
  if (!rule.default.includes('/')) return above;
  // What is not a number yet is refused by its own name.
  return typeof above === 'number' && typeof below === 'number' ? above / below : undefined;
}

function finish(
  family: string,
  fields: Readonly<Record<string, unknown>>,
  layerCount: number,
  isMoe: (layer: number) => boolean,
): Architecture {
  // Bounded before the list is made; checkArchitecture refuses the same numbers by name.
  const count = Number.isInteger(layerCount) && layerCount > 0 && layerCount <= 1024 ? layerCount : 0;
  const layerKinds = Array.from({ length: count }, (_, layer) => (isMoe(layer) ? 'moe' : 'dense') as 'moe' | 'dense');
  const denseFfnSize = layerKinds.includes('dense') ? fields.denseFfnSize : 0;
  return checkArchitecture({ family, ...fields, layerKinds, denseFfnSize });
}
