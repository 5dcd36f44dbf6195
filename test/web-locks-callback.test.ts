// Web Locks, what happens at a grant: the callback is called once, in its own time, with the lock; the lock is held until
// what it returned has settled; and that is what request() comes to.
import { conforms, name, takeTurns } from './support/web-locks';

describe('the callback', () => {
  conforms('is given a Lock with name and mode, and nothing else', 1, async (_, agent) => {
    const seen = await agent!.inside(({ manager }) => {
      const lookAt = (...args: unknown[]) => {
        const [lock] = args as [{ name: string; mode: string }];
        // Read-only attributes: in strict code an assignment throws.
        Reflect.set(lock, 'name', 'other');
        Reflect.set(lock, 'mode', 'other');
        return [args.length, lock.name, lock.mode, String(lock)];
      };
      return Promise.all([
        manager.request('a', lookAt),
        manager.request('b', { mode: 'shared' }, lookAt),
        manager.request('c', { mode: 'exclusive', ifAvailable: true }, lookAt),
        manager.request('d', { steal: true }, lookAt),
      ]);
    });
    expect(seen).toEqual([
      [1, 'a', 'exclusive', '[object Lock]'],
      [1, 'b', 'shared', '[object Lock]'],
      [1, 'c', 'exclusive', '[object Lock]'],
      [1, 'd', 'exclusive', '[object Lock]'],
    ]);
  });

  conforms('is called without a receiver', 1, async (_, agent) => {
    const strict = await agent!.inside(({ manager }) =>
      manager.request('ledger', new Function("'use strict'; return this === undefined;") as () => boolean),
    );
    expect(strict).toBe(true);
  });

  conforms('is never called before request() returns, and once at most', 2, async (_, a, b) => {
    const kinds = [{}, { mode: 'shared' }, { ifAvailable: true }, { steal: true }, { signal: true }] as const;
    for (const options of kinds) {
      const both = [await a!.hold(options), await b!.request(options)];
      for (const one of both) {
        // Granted, the second one after the first or beside it; or null.
        expect((await one.called)?.synchronous).toBe(false);
        await one.finishUnheard();
      }
      await Promise.allSettled(both.map(({ outcome }) => outcome));
      expect(await Promise.all(both.map((one) => one.calls()))).toEqual([1, 1]);
    }
  });

  conforms(
    'is not called in the turn of the request, so that what follows comes first',
    1,
    async (_, agent) => {
      const order = await agent!.inside(async ({ manager }) => {
        const seen: string[] = [];
        const all = [{}, { ifAvailable: true }, { steal: true }].map((options, n) =>
          manager.request(`lock ${n}`, options, () => {
            seen.push('callback');
          }),
        );
        seen.push('after');
        await Promise.all(all);
        return seen;
      });
      expect(order).toEqual(['after', 'callback', 'callback', 'callback']);
    },
  );
});

describe('the promise', () => {
  conforms(
    'fulfils with what the callback returned, or its promise, or a thenable came to',
    1,
    async (_, agent) => {
      const values = await agent!.inside(({ manager }) =>
        Promise.all([
          manager.request('ledger', () => 1),
          manager.request('ledger', async () => 2),
          // biome-ignore lint/suspicious/noThenProperty: a thenable
          manager.request('ledger', () => ({ then: (resolve: (value: number) => void) => resolve(3) })),
          manager.request('ledger', () => undefined).then((value) => value === undefined),
          manager.request('ledger', () => Promise.resolve(Promise.resolve(5))),
        ]),
      );
      expect(values).toEqual([1, 2, 3, true, 5]);
    },
  );

  conforms(
    'rejects with what the callback threw, or its promise rejected with, whatever that is',
    1,
    async (_, agent) => {
      const same = await agent!.inside(async ({ manager }) => {
        const thrown = [new Error('mine'), 'a string', undefined, null, { an: 'object' }];
        const ways: Array<(value: unknown) => unknown> = [
          (value) => {
            throw value;
          },
          (value) => Promise.reject(value),
          // biome-ignore lint/suspicious/noThenProperty: a thenable
          (value) => ({ then: (_: unknown, reject: (reason: unknown) => void) => reject(value) }),
          (value) => ({
            // biome-ignore lint/suspicious/noThenProperty: a thenable
            get then() {
              throw value;
            },
          }),
        ];
        const results = [];
        for (const way of ways) {
          for (const value of thrown) {
            const outcome = await manager
              .request('ledger', () => way(value))
              .then(
                () => 'fulfilled',
                (reason) => reason === value,
              );
            results.push(outcome, (await manager.query()).held.length);
          }
        }
        return [...new Set(results)];
      });
      expect(same).toEqual([true, 0]);
    },
  );

  conforms('settles after the lock is released', 1, async (_, agent) => {
    const held = await agent!.inside(async ({ manager }) => {
      const left = [];
      await manager.request('ledger', () => {});
      left.push((await manager.query()).held.length);
      await manager
        .request('ledger', async () => {
          throw new Error('mine');
        })
        .catch(() => {});
      left.push((await manager.query()).held.length);
      return left;
    });
    expect(held).toEqual([0, 0]);
  });
});

describe('the lock', () => {
  conforms('is held until the promise of the callback settles', 2, async (test, a, b) => {
    for (const way of ['fulfil', 'fail'] as const) {
      const holder = await a!.hold();
      const waiter = await b!.request();
      for (let n = 0; n < 3; n++) await a!.actor.call('ping');
      await test.expectState([holder], [waiter]);
      if (way === 'fulfil') {
        await holder.finish('value');
      } else {
        await holder.fail('mine');
        await expect(holder.outcome).rejects.toMatchObject({ message: 'mine' });
      }
      await waiter.granted();
      await test.expectState([waiter]);
      await waiter.finish();
    }
  });

  conforms('is held until a thenable calls back', 2, async (test, a, b) => {
    const ran = a!.inside(({ manager }) =>
      manager.request('ledger', () => ({
        // biome-ignore lint/suspicious/noThenProperty: a thenable
        then(resolve: (value: string) => void) {
          (globalThis as { callBack?: () => void }).callBack = () => resolve('called back');
        },
      })),
    );
    await a!.actor.call('ping');
    const waiter = await b!.request();
    expect((await test.manager.query()).held).toMatchObject([{ name, pid: a!.actor.pid }]);
    expect(await waiter.calls()).toBe(0);
    await a!.inside(() => (globalThis as { callBack?: () => void }).callBack?.());
    expect(await ran).toBe('called back');
    await waiter.granted();
    await waiter.finish();
  });

  conforms('is released when the callback throws at once: the next one is granted', 2, async (test, a, b) => {
    const holder = await b!.hold();
    const thrown = a!.inside(({ manager }) =>
      manager
        .request('ledger', () => {
          throw new Error('mine');
        })
        .catch((error) => (error as Error).message),
    );
    await a!.actor.call('ping');
    const next = await b!.request();
    expect((await test.manager.query()).pending).toHaveLength(2);
    await holder.finish();
    expect(await thrown).toBe('mine');
    await next.granted();
    await test.expectState([next]);
    await next.finish();
  });

  conforms('is released before the callbacks of its promise run: they find it free', 1, async (_, agent) => {
    const got = await agent!.inside(({ manager }) =>
      manager
        .request('ledger', async () => {})
        .then(() => manager.request('ledger', { ifAvailable: true }, (lock) => lock !== null)),
    );
    expect(got).toBe(true);
  });

  conforms('of another name may be requested inside, and is held as long', 2, async (test, a, b) => {
    const [one, two] = [await a!.hold({ name: 'one' }), await a!.hold({ name: 'two' })];
    const waits = [await b!.request({ name: 'one' }), await b!.request({ name: 'two' })];
    await two.finish();
    await waits[1]!.granted();
    await test.expectState([one, waits[1]!], [waits[0]!]);
    await one.finish();
    await takeTurns(...waits);
  });
});
