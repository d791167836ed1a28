/**
 * What a format may ask for. Formats come from strangers: each is refused in milliseconds or kept within these bounds,
 * which real schemas stay far below (the largest of public collections have some 5,000 keywords).
 */

/** States of a compiled format; some 20 bytes each in both threads. */
export const STATES_MAX = 200_000;
export const RULES_MAX = 4_000;
/** Characters of a regex or grammar, and of the JSON of a schema. */
export const PATTERN_LENGTH_MAX = 4_096;
export const SOURCE_LENGTH_MAX = 1 << 20;
/** How deep schemas, groups and alternatives nest: they are read by functions that call themselves. */
export const NESTING_MAX = 64;
/** Objects of one schema after its references and alternatives are multiplied out. */
export const ALTERNATIVES_MAX = 256;
/** States of an automaton made of several patterns, or of a pattern and a length. */
export const PRODUCT_STATES_MAX = 4_000;
/** Counted repetitions that are written out, body times count; above that a counter runs. */
export const UNROLLED_MAX = 128;
