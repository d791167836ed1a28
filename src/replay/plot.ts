/** Hit rate over residency as an SVG: a panel for each trace, a line for each policy. */
import type { ReplayRow } from './types.js';

const PANEL_WIDTH = 360;
const PANEL_HEIGHT = 260;
const MARGIN = 44;
/** Okabe and Ito's palette: told apart by the colour-blind too. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#999999'];

export function plotReplay(rows: readonly ReplayRow[]): string {
  const traces = [...new Set(rows.map((row) => row.trace))];
  const policies = [...new Set(rows.map((row) => row.policy))];
  const columns = Math.min(2, Math.max(1, traces.length));
  const width = columns * PANEL_WIDTH;
  const height = Math.ceil(traces.length / columns) * PANEL_HEIGHT + 24 + 16 * policies.length;
  const panels = traces.map((trace, index) => {
    const x = (index % columns) * PANEL_WIDTH;
    const y = Math.floor(index / columns) * PANEL_HEIGHT;
    return `<g transform="translate(${x},${y})">${panel(rows, trace, policies)}</g>`;
  });
  const legendTop = Math.ceil(traces.length / columns) * PANEL_HEIGHT + 12;
  const legend = policies.map((policy, index) => {
    const y = legendTop + 16 * index;
    const colour = COLOURS[index % COLOURS.length];
    return `<path d="M${MARGIN},${y}h24" stroke="${colour}" stroke-width="2"/><text x="${MARGIN + 30}" y="${y + 4}">${escapeXml(policy)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...panels,
    ...legend,
    '</svg>',
    '',
  ].join('\n');
}

function panel(rows: readonly ReplayRow[], trace: string, policies: readonly string[]): string {
  const own = rows.filter((row) => row.trace === trace);
  const most = Math.max(1, ...own.map((row) => row.residency));
  const x = (residency: number) => (MARGIN + (residency / most) * (PANEL_WIDTH - 2 * MARGIN)).toFixed(1);
  const y = (rate: number) => (PANEL_HEIGHT - MARGIN - rate * (PANEL_HEIGHT - 2 * MARGIN)).toFixed(1);
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (rate) =>
      `<path d="M${x(0)},${y(rate)}H${x(most)}" stroke="#ddd"/><text x="${MARGIN - 6}" y="${Number(y(rate)) + 4}" text-anchor="end">${rate * 100}</text>`,
  );
  const ticks = [...new Set(own.map((row) => row.residency))].map(
    (residency) =>
      `<text x="${x(residency)}" y="${PANEL_HEIGHT - MARGIN + 16}" text-anchor="middle">${residency}</text>`,
  );
  const lines = policies.map((policy, index) => {
    const colour = COLOURS[index % COLOURS.length];
    const points = own.filter((row) => row.policy === policy).sort((a, b) => a.residency - b.residency);
    const path = points.map((row) => `${x(row.residency)},${y(row.hitRate)}`).join(' ');
    const dots = points.map(
      (row) => `<circle cx="${x(row.residency)}" cy="${y(row.hitRate)}" r="2.5" fill="${colour}"/>`,
    );
    return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>${dots.join('')}`;
  });
  const title = `<text x="${MARGIN}" y="24" font-weight="bold">${escapeXml(trace)}</text>`;
  const axes = `<text x="${PANEL_WIDTH / 2}" y="${PANEL_HEIGHT - 8}" text-anchor="middle">experts resident, %</text><text x="${MARGIN}" y="38">hit rate, %</text>`;
  return [title, axes, ...grid, ...ticks, ...lines].join('');
}

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
