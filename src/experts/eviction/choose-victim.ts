/** What every eviction policy is: a pure choice among experts, so that policies can be compared over one trace. */

/** What is known of each expert's past, by expert key. Outlives eviction. */
export interface UseView {
  /** Uses so far. */
  readonly counts: Float64Array;
  /** Decayed uses times a factor common to all experts: larger means used more, more recently. */
  readonly decayed: Float64Array;
  /** Clock of the last use, -1 before the first. */
  readonly lastUse: Float64Array;
  /** Log of the expected discounted use, as learned so far (reuse/reuse-model.ts). */
  readonly worth: Float32Array;
  /** Geometry: expert key = layer * experts + expert. */
  readonly layers: number;
  readonly experts: number;
}

/**
 * @param candidates expert keys that may lose their slots; only the first `count` entries are meant.
 * @param uses read, never changed.
 * @param layer whose turn it is, among the MoE layers.
 * @returns the key that should go first, or -1 when `count` is 0. Equal candidates: the one used longest ago, then the
 * lower key, so that a run can be repeated exactly.
 */
export type ChooseVictim = (candidates: Int32Array, count: number, uses: UseView, layer: number) => number;
