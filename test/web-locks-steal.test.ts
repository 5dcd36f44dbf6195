// Web Locks, `steal`: the lock is taken from whoever holds it, in whatever agent, ahead of those that wait.
import { SharedLock } from '../lib';
import { testNamespace, until } from './support/namespace';
import { conforms, name, type Requested, SEPARATE_KINDS } from './support/web-locks';

const steal = { steal: true } as const;
const shared = { mode: 'shared' } as const;

/** Its promise rejects though its callback runs on. */
async function expectRobbed(...robbed: Requested[]): Promise<void> {
  for (const one of robbed) {
    await expect(one.outcome).rejects.toMatchObject({ name: 'AbortError', code: DOMException.ABORT_ERR });
    expect(await one.calls()).toBe(1);
  }
}

describe('the thief', () => {
  conforms('gets a lock that nobody holds, like any other request', 2, async (test, a, b) => {
    const thief = await a!.hold(steal);
    const next = await b!.request();
    await test.expectState([thief], [next]);
    await thief.finish('value');
    await next.granted();
    await next.finish();
  });

  conforms(
    'gets a lock that is held exclusively: the promise of its holder rejects at once',
    2,
    async (test, a, b) => {
      const robbed = await a!.hold();
      const thief = await b!.hold(steal);
      await expectRobbed(robbed);
      await test.expectState([thief]);
      await robbed.finishUnheard();
      await test.expectState([thief]);
      await thief.finish('value');
    },
  );

  conforms(
    'gets a lock that several hold shared: it is taken from all of them',
    4,
    async (test, a, b, c, d) => {
      const robbed = [
        await a!.hold(shared),
        await b!.hold(shared),
        await c!.hold(shared),
        await c!.hold(shared),
      ];
      const thief = await d!.hold(steal);
      await expectRobbed(...robbed);
      await test.expectState([thief]);
      for (const one of robbed) await one.finishUnheard();
      await test.expectState([thief]);
      await thief.finish();
    },
  );

  conforms('robs itself, too', 1, async (test, a) => {
    const robbed = await a!.hold();
    const thief = await a!.hold(steal);
    await expectRobbed(robbed);
    await test.expectState([thief]);
    await robbed.finishUnheard();
    await thief.finish();
  });

  conforms('is robbed by the next thief', 4, async (test, ...agents) => {
    const first = await agents[0]!.hold();
    const thieves = [];
    for (const agent of agents) thieves.push(await agent.hold(steal));
    const last = thieves.pop()!;
    await expectRobbed(first, ...thieves);
    await test.expectState([last]);
    // In another order than that of the robberies.
    for (const one of [thieves[1]!, first, thieves[0]!, thieves[2]!]) await one.finishUnheard();
    await test.expectState([last]);
    await last.finish('the last one');
  });

  conforms('takes locks of its name only', 2, async (test, a, b) => {
    const others = [await a!.hold({ name: 'other' }), await a!.hold({ name: '' })];
    const thief = await b!.hold(steal);
    await test.expectState([...others, thief]);
    for (const one of [...others, thief]) await one.finish('value');
  });

  conforms('takes locks of its namespace only', 2, async (_, a, b) => {
    const holder = await a!.hold();
    const elsewhere = await b!.hold({ ...steal, namespace: testNamespace() });
    await elsewhere.finish();
    await holder.finish('value');
  });
});

describe('those who wait', () => {
  conforms(
    'go on waiting, in their order; when the thief is done it is their turn',
    4,
    async (test, a, b, c, d) => {
      const robbed = await a!.hold();
      const queue = [
        await b!.request(),
        await c!.request(shared),
        await a!.request(shared),
        await c!.request(),
      ];
      const thief = await d!.hold(steal);
      await expectRobbed(robbed);
      await test.expectState([thief], queue);
      await robbed.finishUnheard(); // which lets nobody in
      await test.expectState([thief], queue);
      await thief.finish();
      for (const turn of [queue.slice(0, 1), queue.slice(1, 3), queue.slice(3)]) {
        for (const one of turn) await one.granted();
        await test.expectState(turn, queue.slice(queue.indexOf(turn.at(-1)!) + 1));
        for (const one of turn) await one.finish();
      }
    },
  );

  conforms('behind a shared holder are passed by the thief as well', 3, async (test, a, b, c) => {
    const reader = await a!.hold(shared);
    const writer = await b!.request();
    const thief = await c!.hold(steal);
    await expectRobbed(reader);
    await test.expectState([thief], [writer]);
    await thief.finish();
    await writer.granted();
    await reader.finishUnheard();
    await test.expectState([writer]);
    await writer.finish();
  });

  conforms('may be robbed as soon as they are granted', 3, async (test, a, b, c) => {
    const holder = await a!.hold();
    const waiter = await b!.request();
    await holder.finish();
    await waiter.granted();
    const thief = await c!.hold(steal);
    await expectRobbed(waiter);
    await test.expectState([thief]);
    await waiter.finishUnheard();
    await thief.finish();
  });

  conforms('are served while those who were robbed still run', 3, async (test, a, b, c) => {
    const robbed = await a!.hold();
    const thief = await b!.hold(steal);
    await thief.finish();
    const later = [await c!.hold(shared), await b!.hold(shared)];
    await test.expectState(later);
    await robbed.finishUnheard();
    await test.expectState(later);
    for (const one of later) await one.finish();
    await expectRobbed(robbed);
  });
});

describe('whoever is robbed', () => {
  conforms('may come to any end: nothing becomes of it', 2, async (test, a, b) => {
    const robbed = [await a!.hold(shared), await a!.hold(shared), await a!.hold(shared)];
    const thief = await b!.hold(steal);
    await expectRobbed(...robbed);
    await robbed[0]!.finishUnheard();
    await robbed[1]!.fail('mine');
    await robbed[2]!.fail('mine, too');
    // An unhandled rejection would end the agent.
    for (let n = 0; n < 3; n++) await a!.actor.call('ping');
    await expectRobbed(...robbed);
    await test.expectState([thief]);
    await thief.finish();
  });

  conforms('in the moment between grant and callback is still called, and rejects', 1, async (_, agent) => {
    const seen = await agent!.inside(async ({ manager }) => {
      const order: string[] = [];
      const first = manager.request('ledger', (lock) => {
        order.push(`first ${lock.mode}`);
        return 'first';
      });
      const second = manager.request('ledger', { steal: true }, () => {
        order.push('second');
        return 'second';
      });
      const outcomes = await Promise.allSettled([first, second]);
      return [order, outcomes.map((one) => (one.status === 'fulfilled' ? one.value : one.reason.name))];
    });
    expect(seen).toEqual([
      ['first exclusive', 'second'],
      ['AbortError', 'second'],
    ]);
  });

  conforms(
    'in many agents at once: each of those who hold learns of it, at every robbery',
    4,
    async (test, ...agents) => {
      const thief = agents.pop()!;
      for (let round = 0; round < 10; round++) {
        const robbed = await Promise.all(agents.map((agent) => agent.hold(shared)));
        const stolen = await thief.hold(steal);
        await expectRobbed(...robbed);
        await test.expectState([stolen]);
        for (const one of robbed) await one.finishUnheard();
        await stolen.finish();
      }
    },
  );

  conforms(
    'by all others at the same time: all but one of them reject, and the lock is free after that',
    4,
    async (test, ...agents) => {
      const outcomes = (
        await Promise.all(
          agents.map((agent) =>
            agent.inside(({ manager }) =>
              Promise.all(
                Array.from({ length: 25 }, () =>
                  manager
                    .request(
                      'ledger',
                      { steal: true },
                      () => new Promise((resolve) => setTimeout(resolve, 2)),
                    )
                    .then(
                      () => 'done',
                      (error) => (error as Error).name,
                    ),
                ),
              ),
            ),
          ),
        )
      ).flat();
      expect([...new Set(outcomes)].sort()).toEqual(['AbortError', 'done']);
      await test.expectIdle();
    },
  );
});

describe('together with SharedLock', () => {
  for (const mode of ['shared', 'exclusive'] as const) {
    conforms(`a guard (${mode}) that was robbed says so when it is released`, 2, async (test, a, b) => {
      const { actor } = a!;
      const { namespace } = test;
      await actor.acquire({ name, namespace, mode });
      const thief = await b!.hold(steal);
      await test.expectState([thief]);
      await expect(actor.release(name)).rejects.toMatchObject({
        name: 'LockError',
        code: 'ERR_LOCK_LOST',
        message: expect.stringContaining('stolen'),
      });
      await test.expectState([thief]);
      await thief.finish();
    });
  }

  conforms('a guard that was robbed can not be downgraded', 2, async (test, a, b) => {
    const { actor } = a!;
    await actor.acquire({ name, namespace: test.namespace, mode: 'exclusive' });
    const thief = await b!.hold(steal);
    await expect(actor.call('downgrade', { guard: name })).rejects.toMatchObject({
      code: 'ERR_LOCK_LOST',
    });
    await test.expectState([thief]);
    await thief.finish();
    await expect(actor.release(name)).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
  });

  conforms('tokens grow across a robbery', 3, async (test, a, b, c) => {
    const { namespace } = test;
    const before = await a!.actor.acquire({ name, namespace, mode: 'exclusive' });
    const waiting = await c!.actor.queue({ name, namespace, mode: 'exclusive', as: 'next' });
    const thief = await b!.hold(steal);
    await thief.finish();
    const after = await waiting.promise;
    expect(BigInt(after.token)).toBeGreaterThan(BigInt(before.token) + 1n); // the thief's is between them
    expect(after.abandoned).toBeNull();
    await expect(a!.actor.release(name)).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    await c!.actor.release('next');
  });

  conforms('a callback of a SharedLock that was robbed rejects', 2, async (test, a, b) => {
    const ran = a!.inside(async ({ proclock, args }) => {
      const lock = new proclock.SharedLock('ledger', { namespace: args });
      return lock
        .exclusive(async () => {
          await new Promise<void>((resolve) => {
            (globalThis as { goOn?: () => void }).goOn = resolve;
          });
          return 'done';
        })
        .catch((error) => (error as { code: string }).code);
    }, test.namespace);
    await a!.actor.call('ping');
    const thief = await b!.hold(steal);
    await a!.inside(() => (globalThis as { goOn?: () => void }).goOn?.());
    expect(await ran).toBe('ERR_LOCK_LOST');
    await thief.finish();
  });

  conforms(
    'synchronous waiters wait behind the thief',
    2,
    async (test, a, b) => {
      const lock = new SharedLock(name, { namespace: test.namespace });
      const own = lock.exclusiveSync();
      const blocked = a!.actor.begin('acquireSync', { name, namespace: test.namespace });
      await until(() => lock.query().pending.length === 1);
      const thief = await b!.hold(steal);
      expect(lock.query()).toMatchObject({
        held: [{ pid: b!.actor.pid, threadId: b!.actor.threadId }],
        pending: [{ pid: a!.actor.pid, threadId: a!.actor.threadId }],
      });
      expect(() => own.release()).toThrow(expect.objectContaining({ code: 'ERR_LOCK_LOST' }));
      expect(blocked.settled).toBe(false);
      await thief.finish();
      await blocked.promise;
      await a!.actor.release(name);
      lock.close();
    },
    SEPARATE_KINDS,
  );
});
