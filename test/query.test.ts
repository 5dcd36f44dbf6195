// query() shows who holds a lock and who waits for it, in every process and thread.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, startActor, startActors } from './support/actor';
import { expectIdle, freshLock, name, untilPending } from './support/locks';
import { testNamespace } from './support/namespace';

test('holders and waiters of all kinds, the waiters in queue order, the same from wherever one looks', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const [holder, ...waiters] = (await startActors(['thread', ...ACTOR_KINDS], { namespace })) as [
    Actor,
    ...Actor[],
  ];
  const began = Date.now();
  await holder.acquire({ name, mode: 'exclusive' });
  for (const [i, waiter] of waiters.entries())
    await waiter.queue({ name, mode: i % 2 ? 'shared' : 'exclusive' });
  const own = lock.shared();

  const { held, pending } = lock.query();
  const info = ({ pid, threadId }: { pid: number; threadId: number }, mode: string) =>
    expect.objectContaining({ name, mode, pid, threadId });
  expect(held).toEqual([info(holder, 'exclusive')]);
  expect(pending).toEqual([
    ...waiters.map((waiter, i) => info(waiter, i % 2 ? 'shared' : 'exclusive')),
    info({ pid: process.pid, threadId: 0 }, 'shared'),
  ]);
  for (const { since } of [...held, ...pending]) {
    expect(since).toBeInstanceOf(Date);
    expect(since.getTime()).toBeGreaterThan(began - 50);
    expect(since.getTime()).toBeLessThan(Date.now() + 50);
  }
  for (const actor of [holder, ...waiters]) {
    const seen = await actor.query({ name });
    expect(seen).toEqual({
      held: held.map((info) => ({ ...info, since: info.since.getTime() })),
      pending: pending.map((info) => ({ ...info, since: info.since.getTime() })),
    });
  }

  await holder.release(name);
  // Each as soon as it is granted: on a busy machine one of them may be too late to keep its turn.
  await Promise.all([
    own.then((guard) => guard.release()),
    ...waiters.map(async (waiter) => {
      await waiter.run(`while (!guards.has('${name}')) await new Promise(setImmediate);`);
      await waiter.release(name);
    }),
  ]);
  expectIdle(lock);
});

test('a blocked thread is shown as well', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const actor = await startActor('thread', { namespace });
  const guard = lock.exclusiveSync();
  const granted = actor.begin('acquireSync', { name });
  await untilPending(lock, 1);
  expect(lock.query().pending).toMatchObject([
    { mode: 'shared', pid: process.pid, threadId: actor.threadId },
  ]);
  guard.release();
  await granted.promise;
});

test('clientId stays the same for a thread, and is nobody else’s', async () => {
  const namespace = testNamespace();
  const locks = ['a', 'b'].map((name) => new SharedLock(name, { namespace }));
  const actors = await startActors([...ACTOR_KINDS, ...ACTOR_KINDS], { namespace });
  const ids: string[][] = [];
  for (const lock of locks) {
    const guard = await lock.shared();
    for (const actor of actors) await actor.acquire({ name: lock.name });
    const clients = [{ pid: process.pid, threadId: 0 }, ...actors];
    const { held } = lock.query();
    ids.push(
      clients.map(
        ({ pid, threadId }) => held.find((info) => info.pid === pid && info.threadId === threadId)!.clientId,
      ),
    );
    guard.release();
    for (const actor of actors) await actor.release(lock.name);
  }
  const [first, second] = ids as [string[], string[]];
  expect(new Set(first).size).toBe(actors.length + 1);
  expect(second).toEqual(first);
});

test('each hold of a thread is shown, and a downgraded one as shared', async () => {
  const lock = freshLock();
  const guards = [await lock.shared(), await lock.shared()];
  expect(lock.query()).toMatchObject({ held: [{ mode: 'shared' }, { mode: 'shared' }], pending: [] });
  for (const guard of guards) guard.release();
  const guard = await lock.exclusive();
  guard.downgrade();
  expect(lock.query()).toMatchObject({ held: [{ mode: 'shared' }], pending: [] });
  guard.release();
  expectIdle(lock);
});

test('a lock of one name says nothing of another', async () => {
  const namespace = testNamespace();
  const guard = await new SharedLock('a', { namespace }).exclusive();
  expectIdle(new SharedLock('b', { namespace }));
  guard.release();
});
