/** Which numbers of a model do the kernels and the file format hold? Checked once, where a source is opened. */
import { MoestroError } from '../errors.js';
import type { Architecture } from './manifest.js';

/** Largest value and the multiple it must be of. 32 is a scale group (native/kernels/formats.h). */
const COUNTS: readonly (readonly [keyof Architecture, number, number])[] = [
  ['hiddenSize', 65_536, 32],
  ['layerCount', 1024, 1],
  ['headCount', 1024, 1],
  ['kvHeadCount', 1024, 1],
  ['headDim', 1024, 32],
  ['vocabSize', 1 << 20, 1],
  ['contextLength', 1 << 24, 1],
  ['expertCount', 1024, 1],
  ['topK', 64, 1],
  ['expertSize', 262_144, 32],
];

/**
 * Takes fields read from an untrusted file and returns them as an Architecture, without any others.
 * Throws SOURCE_INVALID for a missing or absurd number and UNSUPPORTED_ARCHITECTURE for one the format cannot hold.
 */
export function checkArchitecture(fields: Readonly<Record<string, unknown>>): Architecture {
  for (const [name, max, multiple] of COUNTS) checkCount(name, fields[name], 1, max, multiple);
  checkCount('sharedExpertSize', fields.sharedExpertSize, 0, 262_144, 32);
  checkCount('denseFfnSize', fields.denseFfnSize, 0, 262_144, 32);
  if (fields.slidingWindow !== null) checkCount('slidingWindow', fields.slidingWindow, 1, 1 << 24, 1);
  for (const name of ['ropeTheta', 'rmsNormEps']) {
    const value = fields[name];
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) invalid(name, value, 'a positive number');
  }
  for (const name of ['attentionBias', 'tiedEmbeddings', 'normTopK', 'sharedExpertGate']) {
    if (typeof fields[name] !== 'boolean') invalid(name, fields[name], 'true or false');
  }
  const checked = fields as unknown as Architecture;
  if (!['none', 'head', 'full'].includes(checked.qkNorm)) invalid('qkNorm', checked.qkNorm, 'none, head or full');
  if (checked.headCount % checked.kvHeadCount !== 0) {
    invalid('headCount', checked.headCount, `a multiple of kvHeadCount ${checked.kvHeadCount}`);
  }
  if (checked.topK > checked.expertCount) invalid('topK', checked.topK, `at most ${checked.expertCount} experts`);
  if (!checked.layerKinds.includes('moe')) invalid('layerKinds', 'all dense', 'at least one layer with experts');
  if (checked.layerKinds.includes('dense') && checked.denseFfnSize === 0) {
    invalid('denseFfnSize', 0, 'a size, since there are layers without experts');
  }
  return {
    family: checked.family,
    hiddenSize: checked.hiddenSize,
    layerCount: checked.layerCount,
    headCount: checked.headCount,
    kvHeadCount: checked.kvHeadCount,
    headDim: checked.headDim,
    vocabSize: checked.vocabSize,
    contextLength: checked.contextLength,
    ropeTheta: checked.ropeTheta,
    rmsNormEps: checked.rmsNormEps,
    qkNorm: checked.qkNorm,
    attentionBias: checked.attentionBias,
    tiedEmbeddings: checked.tiedEmbeddings,
    expertCount: checked.expertCount,
    topK: checked.topK,
    expertSize: checked.expertSize,
    normTopK: checked.normTopK,
    sharedExpertSize: checked.sharedExpertSize,
    sharedExpertGate: checked.sharedExpertGate,
    denseFfnSize: checked.denseFfnSize,
    layerKinds: checked.layerKinds,
    slidingWindow: checked.slidingWindow,
  };
}

/** Canonical dense tensors of a model and their shapes [rows, cols]: see the end of manifest.ts. */
export function denseTensorShapes(model: Architecture): ReadonlyMap<string, readonly [number, number]> {
  const { hiddenSize: hidden, vocabSize, headDim } = model;
  const shapes = new Map<string, readonly [number, number]>([['embedding', [vocabSize, hidden]]]);
  if (!model.tiedEmbeddings) shapes.set('head', [vocabSize, hidden]);
  shapes.set('final_norm', [1, hidden]);
  const qSize = model.headCount * headDim;
  const kvSize = model.kvHeadCount * headDim;
  model.layerKinds.forEach((kind, layer) => {
    const set = (name: string, rows: number, cols: number) => shapes.set(`layers.${layer}.${name}`, [rows, cols]);
    const ffn = (prefix: string, size: number) => {
      set(`${prefix}_gate`, size, hidden);
      set(`${prefix}_up`, size, hidden);
      set(`${prefix}_down`, hidden, size);
    };
    set('attn_norm', 1, hidden);
    set('q', qSize, hidden);
    set('k', kvSize, hidden);
    set('v', kvSize, hidden);
    set('o', hidden, qSize);
    if (model.attentionBias) {
      set('q_bias', 1, qSize);
      set('k_bias', 1, kvSize);
      set('v_bias', 1, kvSize);
    }
    if (model.qkNorm !== 'none') {
      set('q_norm', 1, model.qkNorm === 'head' ? headDim : qSize);
      set('k_norm', 1, model.qkNorm === 'head' ? headDim : kvSize);
    }
    set('ffn_norm', 1, hidden);
    if (kind === 'dense') {
      ffn('ffn', model.denseFfnSize);
      return;
    }
    set('router', model.expertCount, hidden);
    if (model.sharedExpertSize > 0) {
      ffn('shared', model.sharedExpertSize);
      if (model.sharedExpertGate) set('shared_router', 1, hidden);
    }
  });
  return shapes;
}

function checkCount(name: string, value: unknown, min: number, max: number, multiple: number): void {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    invalid(name, value, `an integer from ${min} to ${max}`);
  }
  if (value % multiple !== 0) {
    throw new MoestroError(
      'UNSUPPORTED_ARCHITECTURE',
      `Cannot convert the model: ${name} is ${value}, needed a multiple of ${multiple}`,
      { name, value },
    );
  }
}

function invalid(name: string, value: unknown, needed: string): never {
  const found = value === undefined ? 'missing' : (JSON.stringify(value)?.slice(0, 80) ?? typeof value);
  throw new MoestroError('SOURCE_INVALID', `Cannot read the model's numbers: ${name} is ${found}, needed ${needed}`, {
    name,
  });
}
