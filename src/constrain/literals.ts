/** Many texts at once as a tree of their bytes: however many begin alike, one state follows all of them. */
import { bytes, type Expression, type Graph } from './expression.js';

export function literals(texts: readonly string[]): Expression {
  const encoder = new TextEncoder();
  const children: Map<number, number>[] = [new Map()];
  const accepts = new Set<number>();
  const edges: Graph['edges'][number][] = [];
  for (const text of texts) {
    let state = 0;
    for (const byte of encoder.encode(text)) {
      let next = children[state]!.get(byte);
      if (next === undefined) {
        next = children.push(new Map()) - 1;
        children[state]!.set(byte, next);
        edges.push({ from: state, by: bytes([[byte, byte]]), to: next });
      }
      state = next;
    }
    accepts.add(state);
  }
  return { kind: 'graph', graph: { states: children.length, edges, accepts: [...accepts] } };
}
