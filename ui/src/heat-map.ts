/** Layers x experts, one pixel each, coloured by the bits per weight that are in memory; the browser enlarges them. */
import { element } from './page.js';

/** Levels there are; what lies between is drawn as the level below. */
const LEVELS = [0, 2, 3, 4, 8];

export interface ExpertMap {
  readonly layers: number;
  readonly experts: number;
  /** By layer, then expert. */
  readonly bits: Uint8Array;
}

export function drawMap({ layers, experts, bits }: ExpertMap): void {
  const canvas = element('map', HTMLCanvasElement);
  if (canvas.width !== experts || canvas.height !== layers) {
    canvas.width = experts;
    canvas.height = layers;
    canvas.style.height = `${Math.min(480, Math.max(96, layers * 7))}px`;
  }
  const colours = LEVELS.map(colourOf);
  const levelOf = Uint8Array.from({ length: 256 }, (_, bit) => LEVELS.findLastIndex((level) => level <= bit));
  const counts = LEVELS.map(() => 0);
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(experts, layers);
  for (const [key, bit] of bits.entries()) {
    const level = levelOf[bit]!;
    counts[level]!++;
    image.data.set(colours[level]!, key * 4);
  }
  context.putImageData(image, 0, 0);
  tell(layers, experts, counts);
}

/** The same for those who do not see the picture. */
function tell(layers: number, experts: number, counts: readonly number[]): void {
  const total = layers * experts;
  const resident = total - counts[0]!;
  element('map-note', HTMLElement).textContent =
    `${layers} layers down, ${experts} experts across: ${resident} of ${total} in memory`;
  const parts = LEVELS.map((level, index) => ({ level, count: counts[index]! })).filter(({ count }) => count > 0);
  const words = parts.map(({ level, count }) => `${count} ${level === 0 ? 'not in memory' : `at ${level} bits`}`);
  const label = `Experts in memory, ${layers} layers by ${experts} experts: ${words.join(', ')}`;
  const canvas = element('map', HTMLCanvasElement);
  if (canvas.ariaLabel === label) return;
  canvas.ariaLabel = label;
  element('legend', HTMLUListElement).replaceChildren(
    ...parts.map(({ level }, index) => {
      const item = document.createElement('li');
      const swatch = document.createElement('span');
      swatch.className = 'swatch';
      swatch.style.background = `var(--bits-${level})`;
      item.append(swatch, words[index]!);
      return item;
    }),
  );
}

function colourOf(level: number): readonly number[] {
  const text = getComputedStyle(document.documentElement).getPropertyValue(`--bits-${level}`).trim();
  return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16)).concat(255);
}
