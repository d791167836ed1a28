/** Rows of scripts/elastic-frontier.ts as a picture: divergence over bytes read per token, a panel per residency. */

interface Row {
  readonly name: string;
  readonly residency: number;
  readonly bytesPerToken: number;
  readonly kl: number;
}

const WIDTH = 420;
const HEIGHT = 320;
const MARGIN = { left: 64, right: 16, top: 36, bottom: 48 };
const KINDS = [
  { name: 'level', colour: '#b00020' },
  { name: 'routed', colour: '#0a7d4b' },
  { name: 'elastic', colour: '#1f4fd8' },
] as const;

/** Both axes are linear and begin at 0; points of one kind are told apart by their names as tooltips. */
export function frontierSvg(rows: readonly Row[]): string {
  const residencies = [...new Set(rows.map(({ residency }) => residency))];
  const panels = residencies.map((residency, index) => {
    const own = rows.filter((row) => row.residency === residency);
    return `<g transform="translate(${index * WIDTH} 0)">${panel(residency, own)}</g>`;
  });
  const size = `width="${residencies.length * WIDTH}" height="${HEIGHT}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="11">\n<rect ${size} fill="white"/>\n${panels.join('\n')}\n</svg>\n`;
}

function panel(residency: number, rows: readonly Row[]): string {
  const bytesMax = 1.05 * Math.max(...rows.map(({ bytesPerToken }) => bytesPerToken));
  const klMax = 1.05 * Math.max(...rows.map(({ kl }) => kl));
  const x = (bytes: number): number => MARGIN.left + (bytes / bytesMax) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (kl: number): number => HEIGHT - MARGIN.bottom - (kl / klMax) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const grid = ticks.map((share) => {
    const [gx, gy] = [x(share * bytesMax), y(share * klMax)];
    return (
      `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${gy}" y2="${gy}" stroke="#ddd"/>` +
      `<text x="${MARGIN.left - 6}" y="${gy + 4}" text-anchor="end">${(share * klMax).toFixed(4)}</text>` +
      `<text x="${gx}" y="${HEIGHT - MARGIN.bottom + 16}" text-anchor="middle">${((share * bytesMax) / 1e3).toFixed(0)}</text>`
    );
  });
  const points = rows.map((row) => {
    const colour = KINDS.find(({ name }) => row.name.startsWith(name))?.colour ?? '#555';
    return `<circle cx="${x(row.bytesPerToken).toFixed(1)}" cy="${y(row.kl).toFixed(1)}" r="4" fill="${colour}"><title>${row.name}: KL ${row.kl.toFixed(5)}, ${(row.bytesPerToken / 1e3).toFixed(1)} kB a token</title></circle>`;
  });
  const legend = KINDS.map(
    ({ name, colour }, i) =>
      `<circle cx="${MARGIN.left + 10 + i * 80}" cy="26" r="4" fill="${colour}"/><text x="${MARGIN.left + 18 + i * 80}" y="30">${name}</text>`,
  );
  return [
    `<text x="${MARGIN.left}" y="14" font-size="13">${(100 * residency).toFixed(1)} % of the experts resident</text>`,
    ...grid,
    `<text x="${WIDTH / 2}" y="${HEIGHT - 10}" text-anchor="middle">kB read per token</text>`,
    `<text transform="translate(12 ${HEIGHT / 2}) rotate(-90)" text-anchor="middle">KL to full precision</text>`,
    ...points,
    ...legend,
  ].join('');
}
