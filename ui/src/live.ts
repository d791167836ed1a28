/** What the engine does now: figures, memory and the map, asked for twice a second while the page is seen. */
import { ApiError, ask } from './api.js';
import { drawMap } from './heat-map.js';
import { element, formatBytes } from './page.js';

const LOOK_EVERY_MS = 500;
/** Rates are over so many looks. */
const WINDOW = 6;

interface Live {
  readonly model: string;
  readonly mode: string;
  readonly level: number;
  readonly layers: number;
  readonly experts: number;
  readonly resident_bits: string;
  readonly tokens: number;
  readonly hits: number;
  readonly misses: number;
  readonly bytes_read: number;
  readonly reads_in_flight: number;
  readonly sequences_open: number;
  readonly sequences_queued: number;
  readonly budget_bytes: number;
  readonly rss_bytes: number;
  readonly enough_bytes: number;
}

interface Budget {
  readonly budget_bytes: number;
  readonly floor_bytes: number;
}

const MIB = 1 << 20;
let looks: { readonly at: number; readonly live: Live }[] = [];
let isMoving = false;

/** @param onKey is called when the server wants a key. */
export function startLive(onKey: () => void): void {
  const look = async (): Promise<void> => {
    if (document.visibilityState === 'visible') {
      try {
        show((await (await ask('v1/moestro/live')).json()) as Live);
      } catch (error) {
        looks = [];
        state(error instanceof ApiError ? error.message : 'the server does not answer');
        if (error instanceof ApiError && error.status === 401) onKey();
      }
    }
    setTimeout(look, LOOK_EVERY_MS);
  };
  void look();
  startBudget();
}

function state(words: string): void {
  const line = element('engine-state', HTMLElement);
  if (line.textContent !== words) line.textContent = words;
}

function show(live: Live): void {
  looks = [...looks, { at: performance.now(), live }].slice(-WINDOW - 1);
  const first = looks[0]!;
  const seconds = Math.max(0.001, (performance.now() - first.at) / 1000);
  const since = (read: (one: Live) => number): number => read(live) - read(first.live);
  const text = (id: string, words: string): void => {
    element(id, HTMLElement).textContent = words;
  };
  state(live.sequences_open > 0 ? 'answering' : 'idle');
  text('model', `${live.model}, ${live.level} bits, ${live.mode}`);
  text('tps', looks.length < 2 ? '0' : (since((one) => one.tokens) / seconds).toFixed(1));
  // Of the last seconds, or since start while nothing is asked for.
  const recent = since((one) => one.hits + one.misses);
  const [hits, all] = recent > 0 ? [since((one) => one.hits), recent] : [live.hits, live.hits + live.misses];
  text('hits', all === 0 ? '–' : `${((100 * hits) / all).toFixed(1)} %`);
  text('reads', String(live.reads_in_flight));
  text('rate', `${formatBytes(looks.length < 2 ? 0 : since((one) => one.bytes_read) / seconds)}/s`);
  text(
    'open',
    live.sequences_queued > 0
      ? `${live.sequences_open} + ${live.sequences_queued} waiting`
      : String(live.sequences_open),
  );
  showMemory(live);
  drawMap({ ...live, bits: Uint8Array.from(atob(live.resident_bits), (character) => character.charCodeAt(0)) });
}

function showMemory({ rss_bytes: taken, budget_bytes: budget, enough_bytes: enough }: Live): void {
  const meter = element('memory', HTMLMeterElement);
  meter.max = budget;
  meter.value = taken;
  meter.high = budget;
  meter.ariaValueText = `${formatBytes(taken)} of ${formatBytes(budget)}`;
  element('memory-text', HTMLElement).textContent = `${formatBytes(taken)} taken of ${formatBytes(budget)}`;
  const slider = element('budget', HTMLInputElement);
  slider.max = String(Math.ceil(Math.max(enough, budget) / MIB));
  if (!isMoving && !slider.disabled) slider.value = String(Math.round(budget / MIB));
  tellBudget();
}

function tellBudget(): void {
  const slider = element('budget', HTMLInputElement);
  const words = slider.disabled ? '' : formatBytes(Number(slider.value) * MIB);
  element('budget-value', HTMLOutputElement).value = words;
  slider.ariaValueText = words;
}

/** The slider works when the server can change its budget while it runs. */
function startBudget(): void {
  const slider = element('budget', HTMLInputElement);
  const note = element('budget-note', HTMLElement);
  const take = ({ floor_bytes: floor, budget_bytes: budget }: Budget): void => {
    slider.min = String(Math.ceil(floor / MIB));
    slider.max = String(Math.max(Number(slider.max), Math.ceil(budget / MIB)));
    slider.disabled = false;
    slider.value = String(Math.round(budget / MIB));
    tellBudget();
  };
  const load = async (): Promise<void> => {
    try {
      take((await (await ask('v1/moestro/budget')).json()) as Budget);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        note.textContent = 'This server keeps the budget it was started with.';
        return;
      }
      setTimeout(load, 2000);
    }
  };
  slider.addEventListener('input', () => {
    isMoving = true;
    tellBudget();
  });
  slider.addEventListener('change', async () => {
    note.textContent = 'changing the budget';
    try {
      take((await (await ask('v1/moestro/budget', { budget: Number(slider.value) * MIB })).json()) as Budget);
      note.textContent = `The budget is ${formatBytes(Number(slider.value) * MIB)}.`;
    } catch (error) {
      note.textContent = error instanceof Error ? error.message : String(error);
    }
    isMoving = false;
  });
  void load();
}
