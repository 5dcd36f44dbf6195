// A pending acquire keeps its process (or thread) alive; a held lock does not.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { expectIdle, name, untilPending } from './support/locks';
import { testNamespace, until } from './support/namespace';

const ENDED = { code: 0, signal: null };

describe.each(ACTOR_KINDS)('a %s actor that has nothing else to do', (kind) => {
  test('ends although it holds a lock, which is released', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    for (const mode of ['shared', 'exclusive'] as const) {
      const actor = await startActor(kind, { namespace });
      await actor.acquire({ name, mode });
      await actor.call('unref');
      expect(await actor.ended).toEqual(ENDED);
      await until(() => lock.query().held.length === 0);
    }
    (await lock.exclusive()).release();
    expectIdle(lock);
  });

  test('stays while it waits, and ends after the grant', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    const guard = await lock.exclusive();
    const actor = await startActor(kind, { namespace });
    const wait = await actor.queue({ name });
    await actor.call('unref');
    let alive = true;
    void actor.ended.then(() => {
      alive = false;
    });
    // It would have ended long before that many turns of a process that does have something to do.
    const other = await startActor('fork', { namespace });
    for (let i = 0; i < 20; i++) await other.call('ping');
    expect(alive).toBe(true);
    await untilPending(lock, 1);
    guard.release();
    await wait.promise.catch(() => {}); // its answer may get lost, since nothing keeps it alive now
    expect(await actor.ended).toEqual(ENDED);
    await until(() => lock.query().held.length === 0);
    expectIdle(lock);
  });

  test('ends when its wait is given up', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    const guard = await lock.exclusive();
    const actor = await startActor(kind, { namespace });
    const wait = await actor.queue({ name, timeout: 300 });
    const swallowed = wait.promise.catch(() => {});
    await actor.call('unref');
    expect(await actor.ended).toEqual(ENDED);
    await swallowed;
    expect(lock.query()).toMatchObject({ held: [{ pid: process.pid }], pending: [] });
    guard.release();
  });
});

test('a process that only loads the package ends', async () => {
  const namespace = testNamespace();
  const actor = await startActor('fork', { namespace });
  await actor.call('unref');
  expect(await actor.ended).toEqual(ENDED);
});
