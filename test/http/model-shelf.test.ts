/** Several models that take turns, over engines that say when they are loaded. */
import { describe, expect, it } from 'vitest';
import { MoestroError } from '../../src/errors.js';
import type { TextGenerator } from '../../src/generate.js';
import { ModelShelf } from '../../src/http/model-shelf.js';

const codeOf = (call: Promise<unknown>): Promise<string | null> =>
  call.then(
    () => null,
    (error: MoestroError) => error.code,
  );
const never = new AbortController().signal;
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A shelf of models a and b; loading b fails while `broken` holds it. */
async function shelf(waitingMax = 8) {
  const events: string[] = [];
  const broken = new Set<string>();
  const made = new ModelShelf({
    entries: ['a', 'b'].map((id) => ({ id, createdSeconds: 1 })),
    waitingMax,
    open: async ({ id }) => {
      await settled();
      if (broken.has(id)) throw new MoestroError('MODEL_CORRUPT', `Cannot load ${id}`);
      events.push(`open ${id}`);
      return { generator: { id } as unknown as TextGenerator, close: async () => void events.push(`close ${id}`) };
    },
  });
  await made.start();
  return { shelf: made, events, broken };
}

describe('ModelShelf', () => {
  it('loads a model when it is named and nobody answers any more, and never two at once', async () => {
    const { shelf: made, events } = await shelf();
    const [first, second] = [await made.lease('a', never), await made.lease(null, never)];
    expect([first.model.id, second.model.id]).toEqual(['a', 'a']);
    const other = made.lease('b', never);
    first.release();
    first.release();
    await settled();
    expect(events).toEqual(['open a']);
    second.release();
    expect((await other).model.id).toBe('b');
    expect(events).toEqual(['open a', 'close a', 'open b']);
    expect(made.current()?.id).toBe('b');
  });

  it('lets nobody wait for ever: who comes later for the model at hand waits behind', async () => {
    const { shelf: made } = await shelf();
    const order: string[] = [];
    const first = await made.lease('a', never);
    const ask = async (who: string, name: string) => {
      const { model, release } = await made.lease(name, never);
      order.push(`${who} has ${model.id}`);
      await settled();
      release();
    };
    const all = [ask('1', 'b'), ask('2', 'a'), ask('3', 'b')];
    await settled();
    expect(order).toEqual([]);
    first.release();
    await Promise.all(all);
    expect(order).toEqual(['1 has b', '3 has b', '2 has a']);
  });

  it('forgets who has gone, and refuses more than may wait', async () => {
    const { shelf: made, events } = await shelf(1);
    const first = await made.lease('a', never);
    const gone = new AbortController();
    const waiting = made.lease('b', gone.signal);
    expect(await codeOf(made.lease('a', never))).toBe('QUEUE_FULL');
    gone.abort(new MoestroError('CANCELLED', 'Cannot go on'));
    expect(await codeOf(waiting)).toBe('CANCELLED');
    first.release();
    await settled();
    expect(events).toEqual(['open a']);
    expect((await made.lease('a', never)).model.id).toBe('a');
  });

  it('tells those who asked when a model cannot be loaded, and serves the other one again', async () => {
    const { shelf: made, broken, events } = await shelf();
    broken.add('b');
    expect(await codeOf(made.lease('b', never))).toBe('MODEL_CORRUPT');
    expect(made.current()).toBeNull();
    expect((await made.lease('a', never)).model.id).toBe('a');
    expect(events).toEqual(['open a', 'close a', 'open a']);
  });

  it('knows its models by name', async () => {
    const { shelf: made } = await shelf();
    expect(await codeOf(made.lease('c', never))).toBe('MODEL_NOT_FOUND');
  });

  it('refuses who waits when it is closed', async () => {
    const { shelf: made, events } = await shelf();
    await made.lease('a', never);
    const waiting = codeOf(made.lease('b', never));
    await made.close();
    expect(await waiting).toBe('ENGINE_CLOSED');
    expect(events).toEqual(['open a', 'close a']);
  });
});
