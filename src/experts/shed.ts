/**
 * Which planes go when there are to be fewer slots? Those that are worth least for the memory they take, top planes of
 * an expert before those below them. A plane's worth is the decayed use of its expert times what a bit of it adds to an
 * answer: with one level for all (`exact`) every bit counts alike, so the coldest experts go whole; where experts run at
 * several levels, the high planes of all but the hottest go first, then cold bases.
 */
import type { ResidencyView } from './residency.js';

/** What the choice looks at. */
export type ShedView = Pick<ResidencyView, 'experts' | 'residentBits' | 'layerExperts' | 'floors' | 'uses'>;

export interface Shed {
  readonly keys: number[];
  /** What each keeps; a key may stand here several times, with ever fewer bits. */
  readonly bits: number[];
  /** Slots that come free. */
  freedBits: number;
  freedScales: number;
}

/**
 * @param bits slots of bits that must come free, @param scales of scales.
 * @param levels of the model, ascending: what an expert can be cut down to.
 * @param gains by level index: what a bit of the plane up to that level adds, descending.
 * @param isAtRest experts in use or being read keep what they have.
 * @returns fewer than asked for only where experts are not at rest.
 */
export function planShed(
  bits: number,
  scales: number,
  view: ShedView,
  levels: readonly number[],
  gains: readonly number[],
  isAtRest: (key: number) => boolean,
): Shed {
  const shed: Shed = { keys: [], bits: [], freedBits: 0, freedScales: 0 };
  if (bits <= 0 && scales <= 0) return shed;
  const lines: { key: number; level: number; worth: number }[] = [];
  for (let key = 0; key < view.residentBits.length; ++key) {
    if (view.residentBits[key] === 0 || !isAtRest(key)) continue;
    const use = view.uses.decayed[key]!;
    for (const [index, level] of levels.entries()) {
      if (level <= view.residentBits[key]!) lines.push({ key, level, worth: use * gains[index]! });
    }
  }
  const last = view.uses.lastUse;
  lines.sort((a, b) => a.worth - b.worth || last[a.key]! - last[b.key]! || a.key - b.key || b.level - a.level);
  const held = Uint8Array.from(view.residentBits);
  const layerExperts = Int32Array.from(view.layerExperts);
  // Layers keep their floors as far as others have something to give.
  for (const keepsFloors of [true, false]) {
    for (const { key, level } of lines) {
      if (shed.freedBits >= bits && shed.freedScales >= scales) return shed;
      if (held[key] !== level) continue; // gone already, or below a plane that stays
      const below = levelBelow(levels, level);
      const layer = Math.floor(key / view.experts);
      if (below === 0 && keepsFloors && layerExperts[layer]! <= view.floors[layer]!) continue;
      held[key] = below;
      shed.keys.push(key);
      shed.bits.push(below);
      shed.freedBits += level - below;
      if (below > 0) continue;
      ++shed.freedScales;
      layerExperts[layer] = layerExperts[layer]! - 1;
    }
  }
  return shed;
}

const levelBelow = (levels: readonly number[], level: number): number =>
  levels.reduce((below, other) => (other < level && other > below ? other : below), 0);
