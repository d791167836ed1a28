/**
 * Takes out of a format's rules whatever can never end: an automaton without it never leads an answer into a dead end.
 */
import {
  choice,
  EMPTY,
  type Expression,
  type Graph,
  isNothing,
  NOTHING,
  repeat,
  type Rules,
  sequence,
} from './expression.js';

/** The same rules without what cannot match anything; rule 0 is NOTHING when no text at all is in the format. */
export function trim({ expressions, names }: Rules): Rules {
  const canEnd = expressions.map(() => false);
  // Least fixed point: a rule can end once one of its alternatives can.
  for (let isChanged = true; isChanged; ) {
    isChanged = false;
    // Backwards: rules that are called mostly stand behind those that call them.
    for (let rule = expressions.length - 1; rule >= 0; --rule) {
      if (canEnd[rule] || isNothing(trimmed(expressions[rule]!, canEnd))) continue;
      canEnd[rule] = true;
      isChanged = true;
    }
  }
  return {
    expressions: expressions.map((expression, rule) => (canEnd[rule] ? trimmed(expression, canEnd) : NOTHING)),
    names,
  };
}

function trimmed(expression: Expression, canEnd: readonly boolean[]): Expression {
  switch (expression.kind) {
    case 'bytes':
      return expression;
    case 'sequence': {
      const parts: Expression[] = [];
      for (const part of expression.parts) {
        const left = trimmed(part, canEnd);
        if (isNothing(left)) return NOTHING;
        parts.push(left);
      }
      return sequence(parts);
    }
    case 'choice':
      return choice(expression.options.map((option) => trimmed(option, canEnd)));
    case 'repeat':
      return repeat(trimmed(expression.body, canEnd), expression.min, expression.max);
    case 'rule':
      return canEnd[expression.rule] ? expression : NOTHING;
    case 'graph':
      return trimmedGraph(expression.graph, canEnd);
    default:
      return expression satisfies never;
  }
}

function trimmedGraph(graph: Graph, canEnd: readonly boolean[]): Expression {
  const edges = graph.edges
    .map(({ from, by, to }) => ({ from, by: trimmed(by, canEnd), to }))
    .filter(({ by }) => !isNothing(by));
  const ends = new Set(graph.accepts);
  const into = new Map<number, (typeof edges)[number][]>();
  for (const edge of edges) {
    const known = into.get(edge.to);
    if (known === undefined) into.set(edge.to, [edge]);
    else known.push(edge);
  }
  const open = [...ends];
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    for (const { from } of into.get(state) ?? []) {
      if (ends.has(from)) continue;
      ends.add(from);
      open.push(from);
    }
  }
  if (!ends.has(0)) return NOTHING;
  const left = edges.filter(({ from, to }) => ends.has(from) && ends.has(to));
  if (left.length === 0) return EMPTY;
  return { kind: 'graph', graph: { ...graph, edges: left } };
}
