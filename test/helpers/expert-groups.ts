/** What a router chose as the groups that `runExperts` takes: every expert in slots at one level. */
import { GROUP, GROUP_STRIDE } from '../../src/native/binding.js';

/**
 * @param ids of the layer's (token, rank) pairs.
 * @param firstKey of the layer's experts in the slot tables: scale slots by key, bit slots by [key][8].
 */
export function expertGroups(
  ids: Uint16Array,
  level: number,
  firstKey: number,
  scaleSlots: Int32Array,
  bitSlots: Int32Array,
): { readonly count: number; readonly groups: Int32Array; readonly assignments: Int32Array } {
  const experts = [...new Set(ids)];
  const groups = new Int32Array(experts.length * GROUP_STRIDE);
  const assignments: number[] = [];
  for (const [at, expert] of experts.entries()) {
    const key = firstKey + expert;
    const served = [...ids.keys()].filter((pair) => ids[pair] === expert);
    const group = groups.subarray(at * GROUP_STRIDE, (at + 1) * GROUP_STRIDE);
    group.set([expert, level, -1, assignments.length, served.length, scaleSlots[key]!]);
    group.set(bitSlots.subarray(8 * key, 8 * key + level), GROUP.bitSlots);
    assignments.push(...served);
  }
  return { count: experts.length, groups, assignments: Int32Array.from(assignments) };
}
