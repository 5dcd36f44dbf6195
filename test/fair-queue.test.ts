// With `fair` the lock is handed on strictly first-in, first-out.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, startActors } from './support/actor';
import { as, expectIdle, name, untilPending, who } from './support/locks';
import { testNamespace, until } from './support/namespace';

const fair = true;

async function setUp() {
  const namespace = testNamespace();
  return {
    lock: new SharedLock(name, { namespace, fair }),
    unfair: new SharedLock(name, { namespace }),
    actors: await startActors(ACTOR_KINDS, { namespace }),
  };
}

test('waiters of several processes and threads, in mixed modes, are granted in the order in which they came', async () => {
  const { lock, actors } = await setUp();
  // Waiters that belong together are granted together: neighbouring shared ones.
  const batches = [
    ['exclusive'],
    ['shared', 'shared', 'shared'],
    ['exclusive'],
    ['exclusive'],
    ['shared'],
  ] as const;

  const first = await lock.exclusive();
  const queue: Array<Array<{ actor: Actor; guard: string; label: string }>> = [];
  let arrivals = 0;
  for (const batch of batches) {
    const waiters = [];
    for (const mode of batch) {
      const actor = actors[arrivals % actors.length]!;
      const guard = `guard ${arrivals++}`;
      await actor.queue({ name, mode, fair, as: guard });
      waiters.push({ actor, guard, label: as(actor, mode) });
    }
    queue.push(waiters);
  }
  const infosOf = () => {
    const { held, pending } = lock.query();
    return { held: who(held as never), pending: who(pending as never) };
  };
  const labels = (waiters: Array<{ label: string }>) => waiters.map(({ label }) => label);
  expect(infosOf().pending).toEqual(labels(queue.flat()));

  first.release();
  while (queue.length > 0) {
    const granted = queue.shift()!;
    await until(() => lock.query().held.length === granted.length);
    expect(infosOf().held.sort()).toEqual(labels(granted).sort());
    expect(infosOf().pending).toEqual(labels(queue.flat()));
    for (const { actor, guard } of granted) await actor.release(guard);
  }
  expectIdle(lock);
});

test('synchronous waiters queue in order with asynchronous ones', async () => {
  const { lock, actors } = await setUp();
  const [blocked, async, last] = actors as [Actor, Actor, Actor];
  const first = lock.exclusiveSync();
  const sync = blocked.begin('acquireSync', { name, mode: 'exclusive', fair });
  await untilPending(lock, 1);
  await async.queue({ name, mode: 'exclusive', fair });
  await last.queue({ name, mode: 'exclusive', fair });
  expect(who(lock.query().pending as never)).toEqual(actors.map((actor) => as(actor, 'exclusive')));

  first.release();
  await sync.promise;
  for (const actor of actors) {
    await until(
      () => lock.query().held[0]?.pid === actor.pid && lock.query().held[0]?.threadId === actor.threadId,
    );
    await actor.release(name);
  }
  expectIdle(lock);
});

test('nobody gets ahead of a fair waiter, not even where it would fit in, nor without asking for fairness', async () => {
  const { lock, unfair, actors } = await setUp();
  const [writer, other] = actors as [Actor, Actor];
  const reader = await lock.shared();
  const written = await writer.queue({ name, mode: 'exclusive', fair });
  const before = lock.query();
  for (const handle of [lock, unfair]) {
    expect(handle.tryShared()).toBeNull();
    await expect(handle.shared({ timeout: 0 })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
  }
  expect(await other.call('tryAcquire', { name, fair })).toBeNull();
  expect(lock.query()).toEqual(before);
  const late = await other.queue({ name, fair });
  reader.release();
  await written.promise;
  expect(late.settled).toBe(false);
  await writer.release(name);
  await late.promise;
});
