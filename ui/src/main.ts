/** The page: a chat, and beside it what the engine does. */
import { keepKey } from './api.js';
import { startChat } from './chat.js';
import { startLive } from './live.js';
import { element } from './page.js';

const form = element('key-form', HTMLFormElement);
const key = element('key', HTMLInputElement);

function wantKey(): void {
  if (!form.hidden) return;
  form.hidden = false;
  key.focus();
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  keepKey(key.value.trim());
  key.value = '';
  form.hidden = true;
  element('question', HTMLTextAreaElement).focus();
});
startChat(wantKey);
startLive(wantKey);
