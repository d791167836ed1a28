/** Headless Chromium over its DevTools protocol, by the pipe it offers: no port, no package. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
/** How long a page may take to become what a test waits for. */
const WAIT_MS = 30_000;

interface Message {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

export class Chromium {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #listeners: ((message: Message) => void)[] = [];
  #nextId = 1;
  #rest = '';

  /** Throws where there is no Chromium: a test of the page is not passed without one. */
  constructor() {
    const path = PLACES.find(existsSync);
    if (path === undefined) throw new Error(`found no Chromium in ${PLACES.join(', ')}: apt-get install chromium`);
    this.#profile = mkdtempSync(join(tmpdir(), 'moestro-chromium-'));
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars'];
    this.#child = spawn(
      path,
      [...flags, '--remote-debugging-pipe', `--user-data-dir=${this.#profile}`, 'about:blank'],
      {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
        // A group of its own: its helpers, which write to the profile too, end with it.
        detached: true,
      },
    );
    (this.#child.stdio[4] as Readable).setEncoding('utf8').on('data', (data: string) => this.#receive(data));
  }

  send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        if (error === undefined) resolve(result ?? {});
        else reject(new Error(`${method}: ${error.message}`));
      });
      (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  onMessage(listener: (message: Message) => void): void {
    this.#listeners.push(listener);
  }

  async page(size: { readonly width: number; readonly height: number; readonly scheme?: 'light' | 'dark' }) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId as string);
    await page.open(size);
    return page;
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    if (this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL');
    await gone;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #receive(data: string): void {
    const messages = (this.#rest + data).split('\0');
    this.#rest = messages.pop() ?? '';
    for (const text of messages) {
      const message = JSON.parse(text) as Message;
      const settle = this.#waiting.get(message.id ?? 0);
      this.#waiting.delete(message.id ?? 0);
      if (settle !== undefined) settle(message);
      else for (const listener of this.#listeners) listener(message);
    }
  }
}

export class Page {
  /** Addresses that were asked for, bytes that came (headers too), and what the console and the browser complained of. */
  readonly requests: string[] = [];
  readonly complaints: string[] = [];
  receivedBytes = 0;
  readonly #browser: Chromium;
  readonly #session: string;

  constructor(browser: Chromium, session: string) {
    this.#browser = browser;
    this.#session = session;
    browser.onMessage(({ sessionId, method, params = {} }) => {
      if (sessionId !== session) return;
      if (method === 'Network.requestWillBeSent') this.requests.push((params.request as { url: string }).url);
      if (method === 'Network.loadingFinished') this.receivedBytes += params.encodedDataLength as number;
      if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params.exceptionDetails));
      const entry = params.entry as { level: string; text: string } | undefined;
      if (method === 'Log.entryAdded' && entry?.level === 'error') this.complaints.push(entry.text);
    });
  }

  send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.#browser.send(method, params, this.#session);
  }

  async open(size: { readonly width: number; readonly height: number; readonly scheme?: 'light' | 'dark' }) {
    for (const domain of ['Page', 'Runtime', 'Network', 'Log', 'Accessibility']) await this.send(`${domain}.enable`);
    const { width, height, scheme = 'light' } = size;
    const metrics = { width, height, deviceScaleFactor: 1, mobile: width < 600 };
    await this.send('Emulation.setDeviceMetricsOverride', metrics);
    const features = [{ name: 'prefers-color-scheme', value: scheme }];
    await this.send('Emulation.setEmulatedMedia', { features });
  }

  async goto(url: string): Promise<void> {
    await this.send('Page.navigate', { url });
    await this.until(`location.href.startsWith(${JSON.stringify(url)}) && document.readyState === 'complete'`);
  }

  /** The value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const parameters = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', parameters);
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value;
  }

  /** Waits until the expression is true in the page; the error says what it was at last. */
  async until(expression: string): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const look = `new Promise((done) => setTimeout(() => done(Boolean(${expression})), 50))`;
      // A page that is being replaced cannot answer.
      if (await this.evaluate<boolean>(look).catch(() => false)) return;
      if (performance.now() > deadline) throw new Error(`waited in vain for ${expression}`);
    }
  }

  async type(text: string): Promise<void> {
    await this.send('Input.insertText', { text });
  }

  async press(key: string, code: number, text = ''): Promise<void> {
    const parameters = { key, code: key, windowsVirtualKeyCode: code, ...(text === '' ? {} : { text }) };
    await this.send('Input.dispatchKeyEvent', { type: text === '' ? 'rawKeyDown' : 'keyDown', ...parameters });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...parameters });
  }

  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { captureBeyondViewport: true });
    return Buffer.from(data as string, 'base64');
  }
}
