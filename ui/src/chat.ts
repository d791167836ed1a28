/** The conversation: questions go out, answers come in as a stream, each with what it took. */
import { ApiError, ask, events } from './api.js';
import { element, formatBytes } from './page.js';

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null } }[];
  readonly usage?: {
    readonly completion_tokens: number;
    readonly moestro?: {
      readonly mean_bits: number;
      readonly bytes_read: number;
      readonly decode_tokens_per_second: number | null;
    };
  } | null;
  readonly error?: { readonly message: string };
}

const history: { readonly role: 'user' | 'assistant'; readonly content: string }[] = [];
let running: AbortController | null = null;

/** @param onKey is called when the server wants a key. */
export function startChat(onKey: () => void): void {
  const form = element('ask', HTMLFormElement);
  const question = element('question', HTMLTextAreaElement);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (text === '' || running !== null) return;
    question.value = '';
    void answer(text, onKey);
  });
  question.addEventListener('keydown', (event) => {
    // Enter sends, as chats do; while an input method composes a character it belongs to that.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  element('stop', HTMLButtonElement).addEventListener('click', () => running?.abort());
  element('clear', HTMLButtonElement).addEventListener('click', () => {
    running?.abort();
    history.length = 0;
    for (const one of document.querySelectorAll('.message')) one.remove();
    question.focus();
  });
}

async function answer(text: string, onKey: () => void): Promise<void> {
  const controller = new AbortController();
  running = controller;
  showRunning(true);
  addMessage('user', 'You', text);
  const message = addMessage('assistant', 'Answer', '');
  // Read out once, when it is complete.
  message.root.setAttribute('aria-busy', 'true');
  const messages = [...history, { role: 'user' as const, content: text }];
  try {
    const body = { messages, stream: true, stream_options: { include_usage: true } };
    for await (const event of events(await ask('v1/chat/completions', body, controller.signal))) {
      const chunk = event as Chunk;
      if (chunk.error !== undefined) throw new Error(chunk.error.message);
      message.add(chunk.choices?.[0]?.delta?.content ?? '');
      if (chunk.usage != null) message.account(accountOf(chunk.usage));
    }
    history.push(...messages.slice(-1), { role: 'assistant', content: message.text() });
  } catch (error) {
    if (controller.signal.aborted) message.account('stopped');
    else message.fail(error instanceof Error ? error.message : String(error));
    if (error instanceof ApiError && error.status === 401) onKey();
  } finally {
    message.root.removeAttribute('aria-busy');
    running = null;
    showRunning(false);
  }
}

function accountOf(usage: NonNullable<Chunk['usage']>): string {
  const count = `${usage.completion_tokens} tokens`;
  if (usage.moestro === undefined) return count;
  const { mean_bits: bits, bytes_read: bytes, decode_tokens_per_second: rate } = usage.moestro;
  const speed = rate === null ? '' : `, ${rate.toFixed(1)} a second`;
  return `${count}${speed}, ${bits.toFixed(2)} bits a weight, ${formatBytes(bytes)} read`;
}

function showRunning(isRunning: boolean): void {
  element('send', HTMLButtonElement).hidden = isRunning;
  element('stop', HTMLButtonElement).hidden = !isRunning;
}

function addMessage(kind: 'user' | 'assistant', who: string, text: string) {
  const list = element('messages', HTMLElement);
  element('hint', HTMLElement).hidden = true;
  const part = (name: string, content: string): HTMLElement => {
    const node = document.createElement('div');
    node.className = name;
    node.textContent = content;
    return node;
  };
  const root = part(`message ${kind}`, '');
  const body = part('text', text);
  const account = part('account', '');
  root.append(part('who', who), body, account);
  list.append(root);
  const follow = (): void => {
    list.scrollTop = list.scrollHeight;
  };
  follow();
  return {
    root,
    text: () => body.textContent ?? '',
    add: (more: string) => {
      if (more === '') return;
      // Who has scrolled up to read stays there.
      const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
      body.append(more);
      if (isAtEnd) follow();
    },
    account: (words: string) => {
      account.textContent = words;
      follow();
    },
    fail: (words: string) => {
      root.classList.add('failed');
      body.append(words);
      follow();
    },
  };
}
