/** The text of /metrics, the page that describes it and the dashboard that asks for it, held to each other. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ServerMetrics } from '../../src/metrics/server-metrics.js';
import { INFO, METRICS } from '../http/scripted.js';

const read = (name: string): string =>
  readFileSync(fileURLToPath(new URL(`../../docs/${name}`, import.meta.url)), 'utf8');

interface Family {
  readonly kind: string;
  readonly labels: readonly string[];
}

/** Families of one scrape, in which every counter of HTTP has counted. */
async function scrape(): Promise<Map<string, Family>> {
  const metrics = new ServerMetrics();
  metrics.countRequest('/chat/completions', 200, 0.5);
  metrics.countCancelled('/chat/completions');
  const text = await metrics.text(INFO, METRICS);
  return new Map(
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => {
      const sample = new RegExp(`^${name}(?:_bucket)?\\{([^}]*)\\}`, 'm').exec(text)?.[1] ?? '';
      const labels = [...sample.matchAll(/(\w+)="/g)].map((match) => match[1]!).filter((label) => label !== 'le');
      return [name!, { kind: kind!, labels: labels.sort() }] as const;
    }),
  );
}

/** Series that PromQL names, with the labels it chooses or groups by beside them. */
function seriesOf(expression: string): readonly { readonly name: string; readonly labels: readonly string[] }[] {
  const grouped = [...expression.matchAll(/ by \(([^)]*)\)/g)].flatMap((match) => match[1]!.split(/,\s*/));
  return [...expression.matchAll(/\b(moestro_\w+)(?:\{([^}]*)\})?/g)].map(([, name, matchers = '']) => ({
    name: name!,
    labels: [...matchers.matchAll(/(\w+)\s*[=!]~?"/g)].map((match) => match[1]!).concat(grouped),
  }));
}

describe('metrics', () => {
  it('are on the page with kind and labels, and nothing else is', async () => {
    const rows = [...read('metrics.md').matchAll(/^\| `(\w+)` \| (\w+) \| ([^|]*)\|/gm)].map(
      ([, name, kind, labels]) =>
        [name, { kind, labels: labels!.trim() === '' ? [] : labels!.trim().split(', ').sort() }] as const,
    );
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(await scrape()));
  });

  it('are all that the dashboard asks for, by labels they have', async () => {
    const families = await scrape();
    const dashboard = JSON.parse(read('grafana-dashboard.json')) as {
      readonly panels: readonly {
        readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
      }[];
    };
    const targets = dashboard.panels.flatMap((panel) => panel.targets);
    const asked = targets.flatMap(({ expr, legendFormat }) => {
      const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]!);
      return seriesOf(expr).map(({ name, labels }) => ({ name, labels: [...labels, ...shown] }));
    });
    for (const { name, labels } of asked) {
      const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
      expect(family, name).toBeDefined();
      // The scrape adds the instance, a histogram its bounds.
      const known = [...family!.labels, 'instance', ...(family!.kind === 'histogram' ? ['le'] : [])];
      expect(
        labels.filter((label) => !known.includes(label)),
        name,
      ).toEqual([]);
    }
    // And each metric is somewhere to be seen.
    const seen = new Set(asked.map(({ name }) => name.replace(/_bucket$/, '')));
    expect([...families.keys()].filter((name) => !seen.has(name))).toEqual([]);
  });

  it('are counters that end in _total, with units last', async () => {
    for (const [name, { kind }] of await scrape()) {
      expect(name.endsWith('_total'), name).toBe(kind === 'counter');
      expect(name).toMatch(/^moestro_[a-z_]+$/);
    }
  });
});
