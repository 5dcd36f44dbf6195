// The Web Locks API and the other classes are two ways to the same locks.
import { CLASS_NAMES } from './support/locks';
import { conforms, name, SEPARATE_KINDS } from './support/web-locks';

const shared = { mode: 'shared' } as const;
const exclusive = { mode: 'exclusive' } as const;

conforms('a request waits for a guard, a guard for a request', 2, async (test, a, b) => {
  const { namespace } = test;
  await a!.actor.acquire({ name, namespace, ...exclusive });
  const request = await b!.request();
  expect(await test.manager.query()).toMatchObject({ held: [a!.info()], pending: [b!.info()] });
  const guard = await a!.actor.queue({ name, namespace, ...exclusive, as: 'second' });
  await a!.actor.release(name);
  await request.granted();
  expect(guard.settled).toBe(false);
  expect(await a!.actor.call('tryAcquire', { name, namespace })).toBeNull();
  await request.finish();
  await guard.promise;
  const available = await b!.request({ ifAvailable: true });
  expect((await available.called)?.args).toEqual([null]);
  await available.finish();
  await a!.actor.release('second');
});

conforms('shared ones go together', 2, async (test, a, b) => {
  const { namespace } = test;
  await a!.actor.acquire({ name, namespace, ...shared });
  const request = await b!.hold(shared);
  expect((await test.manager.query()).held).toHaveLength(2);
  expect(await b!.actor.call('tryAcquire', { name, namespace, ...exclusive })).toBeNull();
  await a!.actor.release(name);
  await request.finish();
});

conforms('they queue in one queue, which both show', 3, async (test, a, b, c) => {
  const { namespace } = test;
  const hold = await a!.hold();
  const first = await b!.actor.queue({ name, namespace, ...exclusive, as: 'first' });
  const second = await c!.request(shared);
  const third = await a!.actor.queue({ name, namespace, ...exclusive, as: 'third' });
  const pending = [b!, c!, a!].map((agent) => agent.info());
  expect(await test.manager.query()).toMatchObject({ held: [a!.info()], pending });
  expect(await b!.actor.query({ name, namespace })).toMatchObject({ held: [a!.info()], pending });
  await hold.finish();
  await first.promise;
  expect(second.settled || third.settled).toBe(false);
  await b!.actor.release('first');
  await second.granted();
  expect(third.settled).toBe(false);
  await second.finish();
  await third.promise;
  await a!.actor.release('third');
});

conforms(
  'a request has no owner: inside a callback, other classes wait and do not re-enter',
  1,
  async (test, agent) => {
    const seen = await agent!.inside(async ({ manager, proclock, args }) => {
      const results: unknown[] = [];
      for (const Class of [proclock.SharedRLock, proclock.RLock]) {
        const lock = new Class('ledger', { namespace: args });
        await manager.request('ledger', async () => {
          results.push(lock.tryAcquire());
          results.push(await lock.acquire({ timeout: 1 }).catch((error) => (error as { code: string }).code));
        });
      }
      return results;
    }, test.namespace);
    expect(seen).toEqual([null, 'ERR_LOCK_TIMEOUT', null, 'ERR_LOCK_TIMEOUT']);
  },
);

conforms('the holder of a guard that requests the same name waits for itself', 1, async (test, agent) => {
  const { namespace } = test;
  await agent!.actor.acquire({ name, namespace, class: 'SharedRLock', ...exclusive });
  const request = await agent!.request();
  expect(await test.manager.query()).toMatchObject({ held: [agent!.info()], pending: [agent!.info()] });
  await agent!.actor.release(name);
  await request.granted();
  await request.finish();
});

conforms('a lock of another class is robbed like any other', 2, async (test, a, b) => {
  const { namespace } = test;
  await a!.actor.acquire({ name, namespace, class: 'RLock', as: 'outer' });
  await a!.actor.acquire({ name, namespace, class: 'RLock', within: 'outer', as: 'inner' });
  const thief = await b!.hold({ steal: true });
  await test.expectState([thief]);
  for (const guard of ['inner', 'outer'])
    await expect(a!.actor.release(guard)).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
  await test.expectState([thief]);
  await thief.finish();
});

conforms(
  'who was robbed holds nothing any more: it does not re-enter, it waits',
  2,
  async (test, a, b) => {
    const { namespace } = test;
    const rob = async () => {
      const thief = await b!.request({ steal: true });
      await thief.granted();
      return thief;
    };
    for (const className of CLASS_NAMES) {
      const wanted = { name, namespace, class: className, ...exclusive };
      await a!.actor.call('acquireSync', { ...wanted, as: 'robbed' });
      const thief = await rob();
      expect(await a!.actor.call('tryAcquire', { ...wanted, as: 'tried' })).toBeNull();
      const within = await a!.actor.queue({ ...wanted, within: 'robbed', as: 'within' });
      expect(await test.manager.query()).toMatchObject({ held: [b!.info()], pending: [a!.info()] });
      await thief.finish();
      await within.promise;
      // What it has now is a hold like any other, which a release of the robbed guard does not touch.
      await expect(a!.actor.release('robbed')).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      expect(await b!.actor.call('tryAcquire', wanted)).toBeNull();
      await a!.actor.release('within');
      // And a thread that was robbed may acquire it again.
      await a!.actor.call('acquireSync', { ...wanted, as: 'robbed' });
      await (await rob()).finish();
      await a!.actor.call('acquireSync', { ...wanted, as: 'again' });
      await expect(a!.actor.release('robbed')).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      await a!.actor.release('again');
    }
  },
  SEPARATE_KINDS,
);

conforms('nor does the callback of one that was robbed', 2, async (test, a, b) => {
  const ran = a!.inside(async ({ proclock, args }) => {
    const gate = globalThis as { robbed?: () => void };
    const seen: unknown[] = [];
    const lock = new proclock.SharedRLock('ledger', { namespace: args });
    const outcome = lock.exclusive(async (outer) => {
      await new Promise<void>((resolve) => {
        gate.robbed = resolve;
      });
      seen.push(lock.tryExclusive());
      // Waits for the thief, and is a hold of its own.
      await lock.exclusive(async (again) => {
        seen.push(again.token > outer.token);
        await lock.shared((inner) => seen.push(inner.mode));
      });
    });
    seen.push(await outcome.catch((error) => (error as { code: string }).code));
    return seen;
  }, test.namespace);
  await a!.actor.call('ping');
  const thief = await b!.hold({ steal: true });
  await a!.inside(() => (globalThis as { robbed?: () => void }).robbed?.());
  await thief.finish();
  expect(await ran).toEqual([null, true, 'shared', 'ERR_LOCK_LOST']);
});
