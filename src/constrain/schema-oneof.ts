/**
 * oneOf asks for exactly one branch. An automaton follows any of them, so the branches have to exclude each other in a way
 * that can be seen: by type, by values, or by a property that all of them require.
 */
import { refuseFormat } from './refuse.js';
import type { Alternative, Located, SchemaDocument } from './schema-document.js';
import { canonical, type Facts, readFacts } from './schema-facts.js';

/** Each pair of branches is compared. */
const BRANCHES_MAX = 64;
/** How deep properties are looked into. */
const DEPTH_MAX = 3;

/** @throws {MoestroError} UNSUPPORTED_FORMAT naming two branches that may both hold. */
export function checkExclusive(document: SchemaDocument, pointer: string, branches: readonly Located[]): void {
  if (branches.length > BRANCHES_MAX)
    throw refuseFormat(pointer, `${branches.length} branches`, `at most ${BRANCHES_MAX}`);
  for (let i = 0; i < branches.length; ++i) {
    for (let j = 0; j < i; ++j) {
      if (exclude(document, [branches[j]!], [branches[i]!], DEPTH_MAX)) continue;
      const found = `branches ${j} and ${i}, which one value may satisfy both`;
      throw refuseFormat(
        pointer,
        found,
        'branches told apart by type or by the value of a required property, or anyOf',
      );
    }
  }
}

function exclude(document: SchemaDocument, a: readonly Located[], b: readonly Located[], depth: number): boolean {
  const factsOf = (alternative: Alternative): Facts => readFacts(document, alternative);
  const left = document.alternatives(a).map(factsOf);
  const right = document.alternatives(b).map(factsOf);
  return left.every((one) => right.every((other) => excludes(document, one, other, depth)));
}

function excludes(document: SchemaDocument, a: Facts, b: Facts, depth: number): boolean {
  const shared = [...a.types].filter(
    (type) =>
      b.types.has(type) ||
      (type === 'integer' && b.types.has('number')) ||
      (type === 'number' && b.types.has('integer')),
  );
  if (shared.length === 0) return true;
  if (a.values !== null && b.values !== null) {
    const values = new Set(a.values.map(canonical));
    if (!b.values.some((value) => values.has(canonical(value)))) return true;
  }
  if (shared.length > 1 || shared[0] !== 'object' || depth === 0) return false;
  if (lacks(a, b) || lacks(b, a)) return true;
  for (const name of a.object.required) {
    if (!b.object.required.has(name)) continue;
    const conditions = (facts: Facts): Located[] =>
      facts.object.parts.flatMap(({ properties }) => properties.get(name) ?? []);
    if (exclude(document, conditions(a), conditions(b), depth - 1)) return true;
  }
  return false;
}

/** Whether `a` requires a property that `b` forbids. */
function lacks(a: Facts, b: Facts): boolean {
  return [...a.object.required].some((name) =>
    b.object.parts.some(
      ({ properties, patterns, additional }) =>
        additional?.schema === false && patterns.length === 0 && !properties.has(name),
    ),
  );
}
