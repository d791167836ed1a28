/** The page in a real browser, over a scripted engine whose experts follow the budget. */
import { mkdirSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Chromium, type Page } from '../helpers/chromium.js';
import { METRICS, saying, testServer } from '../http/scripted.js';

const LAYERS = 24;
const EXPERTS = 64;
const MIB = 1 << 20;
const FLOOR_MIB = 50;
const START_MIB = 100;
const ANSWER = 'Paris is the capital of France. '.repeat(12);
const FIRST_LOAD_BYTES_MAX = 150_000;
const HOME = ['Home', 36] as const;
const END = ['End', 35] as const;

let browser: Chromium;
beforeAll(() => {
  browser = new Chromium();
});
afterAll(() => browser.close());

let app: FastifyInstance;
let address: string;
let budgetBytes: number;
afterEach(() => app.close());

/** Experts at 8, 4, 3 and 2 bits by rank, as many as the budget holds at a MiB for ten. */
function residentBits(): Uint8Array {
  const bits = new Uint8Array(LAYERS * EXPERTS);
  const held = Math.min(bits.length, Math.floor((budgetBytes / MIB - FLOOR_MIB) * 10));
  for (let rank = 0; rank < held; ++rank) bits[(rank * 101) % bits.length] = [8, 4, 3, 2][rank % 4]!;
  return bits;
}

async function serve(apiKeys: readonly string[] = []): Promise<void> {
  budgetBytes = START_MIB * MIB;
  const server = await testServer(saying(ANSWER), { config: { apiKeys } });
  app = server.app;
  server.engine.live = async () => ({
    layers: LAYERS,
    experts: EXPERTS,
    residentBits: residentBits(),
    metrics: { ...METRICS, budgetBytes, rssBytes: Math.min(budgetBytes, 90 * MIB) },
  });
  server.engine.memory = async (bytes) => {
    budgetBytes = bytes ?? budgetBytes;
    return { ...METRICS.memory!, budgetBytes, allowedBytes: budgetBytes, floorBytes: FLOOR_MIB * MIB };
  };
  await app.listen({ host: '127.0.0.1', port: 0 });
  address = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`;
}

/** Pixels of the map by the colour of each number of bits, as the page shows them. */
const countsOfMap = (page: Page): Promise<Record<string, number>> =>
  page.evaluate(`(() => {
    const map = document.getElementById('map');
    const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);
    const style = getComputedStyle(document.documentElement);
    const names = Object.fromEntries([0, 2, 3, 4, 8].map((bits) => [style.getPropertyValue('--bits-' + bits).trim(), bits]));
    const counts = {};
    for (let at = 0; at < data.length; at += 4) {
      const colour = '#' + [0, 1, 2].map((i) => data[at + i].toString(16).padStart(2, '0')).join('');
      counts[names[colour] ?? colour] = (counts[names[colour] ?? colour] ?? 0) + 1;
    }
    return counts;
  })()`);

function countsOfBits(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const bits of residentBits()) counts[bits] = (counts[bits] ?? 0) + 1;
  return counts;
}

const held = (): number => residentBits().filter((bits) => bits > 0).length;
const mapSays = (page: Page): Promise<void> =>
  page.until(`document.getElementById('map-note').textContent.includes(': ${held()} of ')`);

async function askQuestion(page: Page): Promise<void> {
  await page.evaluate(`document.getElementById('question').focus()`);
  await page.type('What is the capital of France?');
  await page.press('Enter', 13, '\r');
}
const isAnswered = `document.querySelector('.message.assistant:last-child .account')?.textContent.includes('tokens')`;

describe('the page', () => {
  beforeEach(() => serve());

  it('streams an answer, and its map follows the budget slider, by keyboard alone', async () => {
    const page = await browser.page({ width: 1280, height: 800 });
    await page.goto(address);
    await mapSays(page);
    expect(await countsOfMap(page)).toEqual(countsOfBits());

    await askQuestion(page);
    await page.until(isAnswered);
    expect(await page.evaluate(`document.querySelector('.message.assistant .text').textContent`)).toBe(ANSWER);
    expect(await page.evaluate(`document.querySelector('.message.assistant').hasAttribute('aria-busy')`)).toBe(false);

    await page.evaluate(`document.getElementById('budget').focus()`);
    const before = held();
    await page.press(...HOME);
    await page.until(`document.getElementById('budget-note').textContent.startsWith('The budget is')`);
    expect(budgetBytes).toBe(FLOOR_MIB * MIB);
    await mapSays(page);
    expect([held(), await countsOfMap(page)]).toEqual([0, { 0: LAYERS * EXPERTS }]);

    await page.press(...END);
    await page.until(`document.getElementById('map').ariaLabel.includes('at 8 bits')`);
    expect(budgetBytes).toBeGreaterThanOrEqual(START_MIB * MIB);
    await mapSays(page);
    expect(held()).toBeGreaterThanOrEqual(before);
    expect(await countsOfMap(page)).toEqual(countsOfBits());

    expect(page.complaints).toEqual([]);
    expect(page.requests.filter((url) => !url.startsWith(address) && !url.startsWith('data:'))).toEqual([]);
  });

  it('loads little', async () => {
    const page = await browser.page({ width: 1280, height: 800 });
    await page.goto(address);
    await mapSays(page);
    expect(page.receivedBytes).toBeGreaterThan(5_000);
    expect(page.receivedBytes).toBeLessThan(FIRST_LOAD_BYTES_MAX);
  });

  it.each([
    [360, 740, 'light'],
    [390, 844, 'dark'],
    [1280, 800, 'light'],
    [1280, 800, 'dark'],
  ] as const)('fits %d x %d, %s', async (width, height, scheme) => {
    const page = await browser.page({ width, height, scheme });
    await page.goto(address);
    await askQuestion(page);
    await page.until(isAnswered);
    await mapSays(page);
    const [wide, room] = await page.evaluate<[number, number]>(`[document.documentElement.scrollWidth, innerWidth]`);
    expect(wide).toBeLessThanOrEqual(room);
    // For people who look: MOESTRO_SCREENSHOTS=folder.
    const folder = process.env.MOESTRO_SCREENSHOTS;
    if (folder !== undefined) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, `page-${width}-${scheme}.png`), await page.screenshot());
    }
  });

  it('names every control for those who do not see it', async () => {
    const page = await browser.page({ width: 1280, height: 800 });
    await page.goto(address);
    await mapSays(page);
    const { nodes } = (await page.send('Accessibility.getFullAXTree')) as unknown as {
      nodes: { ignored: boolean; role?: { value: string }; name?: { value: string } }[];
    };
    const seen = nodes
      .filter(({ ignored }) => !ignored)
      .map(({ role, name }) => [role?.value, name?.value ?? ''] as const);
    const named = (role: string) => seen.filter(([one]) => one === role).map(([, name]) => name);
    expect(named('textbox')).toEqual(['Your question']);
    expect(named('button')).toEqual(['New chat', 'Send']);
    expect(named('slider')[0]).toMatch(/^Budget/);
    expect(named('meter')).toEqual(['Memory taken of the budget']);
    expect(named('log')).toEqual(['Conversation']);
    expect([...named('image'), ...named('img')][0]).toMatch(/^Experts in memory, 24 layers by 64 experts: /);
    expect(named('heading')).toEqual(['Moestro', 'Chat', 'Engine', 'Memory', 'Experts in memory']);
  });
});

describe('the page of a server with keys', () => {
  beforeEach(() => serve(['secret']));

  it('asks for a key and keeps it in the tab', async () => {
    const page = await browser.page({ width: 390, height: 844 });
    await page.goto(address);
    await page.until(`!document.getElementById('key-form').hidden && document.activeElement.id === 'key'`);
    await page.type('secret');
    await page.press('Enter', 13, '\r');
    await mapSays(page);
    await askQuestion(page);
    await page.until(isAnswered);
    expect(await page.evaluate(`document.getElementById('key-form').hidden`)).toBe(true);
    expect(page.requests.filter((url) => url.includes('secret'))).toEqual([]);
  });
});
