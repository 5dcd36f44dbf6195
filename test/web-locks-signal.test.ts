// Web Locks, `signal`: ends a request that is still pending, and nothing else.
import { conforms, SEPARATE_KINDS } from './support/web-locks';

const signal = { signal: true } as const;
const shared = { mode: 'shared' } as const;

describe('aborted before the request', () => {
  conforms(
    'rejects with the reason, although the lock is free; the callback is not called',
    1,
    async (_, agent) => {
      const seen = await agent!.inside(async ({ manager }) => {
        const outcomes = [];
        for (const reason of [undefined, 'a string', 0, new RangeError('mine')]) {
          const signal = AbortSignal.abort(reason);
          const same = await manager
            .request('ledger', { signal }, () => 'called')
            .catch((error) => error === signal.reason && (reason === undefined ? error.name : 'reason'));
          outcomes.push(same);
        }
        return outcomes;
      });
      expect(seen).toEqual(['AbortError', 'reason', 'reason', 'reason']);
    },
  );
});

describe('aborted while it waits', () => {
  conforms('rejects with an AbortError, or the reason that was given', 2, async (test, a, b) => {
    const holder = await a!.hold();
    const [plain, custom] = [await b!.request(signal), await b!.request(signal)];
    await plain.abort();
    await custom.abort('changed my mind');
    await expect(plain.outcome).rejects.toMatchObject({ name: 'AbortError', code: DOMException.ABORT_ERR });
    await expect(custom.outcome).rejects.toMatchObject({ message: 'changed my mind' });
    await test.expectState([holder]);
    await holder.finish();
    expect([await plain.calls(), await custom.calls()]).toEqual([0, 0]);
  });

  conforms('rejects with exactly the reason, whatever that is', 1, async (_, agent) => {
    const same = await agent!.inside(async ({ manager }) => {
      const results: boolean[] = [];
      await manager.request('ledger', async () => {
        for (const reason of ['a string', 0, null, { an: 'object' }, new RangeError('mine')]) {
          const controller = new AbortController();
          const request = manager.request('ledger', { signal: controller.signal }, () => {});
          controller.abort(reason);
          await request.catch((error) => results.push(error === reason));
        }
      });
      return results;
    });
    expect(same).toEqual([true, true, true, true, true]);
  });

  conforms(
    'leaves the queue at once: in the turn of the abort it is not pending any more',
    2,
    async (test, a, b) => {
      const holder = await a!.hold();
      const pending = await b!.inside(async ({ manager }) => {
        const controller = new AbortController();
        const request = manager.request('ledger', { signal: controller.signal }, () => {});
        const before = manager.query();
        controller.abort('now');
        const after = manager.query();
        await request.catch(() => {});
        return [(await before).pending.length, (await after).pending.length];
      });
      expect(pending).toEqual([1, 0]);
      await test.expectState([holder]);
      await holder.finish();
    },
  );

  conforms('lets those behind it in that fit in beside the holders', 4, async (test, a, b, c, d) => {
    const reader = await a!.hold(shared);
    const writer = await b!.request(signal);
    const readers = [await c!.request(shared), await d!.request(shared), await a!.request(shared)];
    await test.expectState([reader], [writer, ...readers]);
    await writer.abort();
    await expect(writer.outcome).rejects.toMatchObject({ name: 'AbortError' });
    for (const one of readers) await one.granted();
    await test.expectState([reader, ...readers]);
    for (const one of [reader, ...readers]) await one.finish();
  });

  conforms(
    'at the front, in the middle and at the end: the others keep their order',
    4,
    async (test, a, b, c, d) => {
      const holder = await a!.hold();
      const queue = [];
      for (const [n, agent] of [b!, c!, d!, b!, c!].entries())
        queue.push(await agent.request(n % 2 === 0 ? signal : {}));
      for (const gone of [2, 4, 0]) {
        await queue[gone]!.abort();
        await expect(queue[gone]!.outcome).rejects.toMatchObject({ name: 'AbortError' });
      }
      const [first, second] = [queue[1]!, queue[3]!];
      await test.expectState([holder], [first, second]);
      await holder.finish();
      await first.granted();
      await test.expectState([first], [second]);
      await first.finish();
      await second.granted();
      await second.finish();
      expect(await queue[0]!.calls()).toBe(0);
    },
  );

  conforms('one signal ends all requests that were made with it', 2, async (test, a, b) => {
    const holders = [await a!.hold({ name: 'one' }), await a!.hold({ name: 'two' })];
    const reasons = await b!.inside(async ({ manager }) => {
      const controller = new AbortController();
      const { signal } = controller;
      const requests = ['one', 'two', 'one'].map((name) => manager.request(name, { signal }, () => {}));
      controller.abort('all of you');
      const outcomes = await Promise.allSettled(requests);
      return outcomes.map((one) => one.status === 'rejected' && one.reason);
    });
    expect(reasons).toEqual(['all of you', 'all of you', 'all of you']);
    await test.expectState(holders);
    for (const one of holders) await one.finish();
  });

  conforms('AbortSignal.timeout() ends a request with its TimeoutError', 2, async (_, a, b) => {
    const holder = await a!.hold();
    const reason = await b!.inside(({ manager }) =>
      manager
        .request('ledger', { signal: AbortSignal.timeout(20) }, () => 'called')
        .catch((error) => (error as Error).name),
    );
    expect(reason).toBe('TimeoutError');
    await holder.finish();
  });
});

describe('aborted after the grant', () => {
  conforms(
    'means nothing: the lock is held, and the outcome is that of the callback',
    2,
    async (test, a, b) => {
      const first = await a!.hold(signal);
      const second = await b!.request(signal);
      await first.abort();
      await test.expectState([first], [second]);
      await first.finish('first');
      await second.granted();
      await second.abort();
      await test.expectState([second]);
      await second.finish('second');
    },
  );

  conforms('in the callback itself means nothing, either', 1, async (_, agent) => {
    const values = await agent!.inside(async ({ manager }) => {
      const controller = new AbortController();
      return manager.request('ledger', { signal: controller.signal }, async () => {
        controller.abort('late');
        await null;
        return [(await manager.query()).held.length, 'done'];
      });
    });
    expect(values).toEqual([1, 'done']);
  });

  conforms('after the end means nothing', 1, async (_, agent) => {
    const holder = await agent!.hold(signal);
    await holder.finish('value');
    await holder.abort();
    expect(await holder.outcome).toBe('value');
  });

  conforms('leaves no listener on the signal, granted or not', 1, async (_, agent) => {
    const listeners = await agent!.inside(async ({ manager }) => {
      const { getEventListeners } = require('node:events') as typeof import('node:events');
      const { signal } = new AbortController();
      const counts: number[] = [];
      await manager
        .request('ledger', { signal }, async () => {
          counts.push(getEventListeners(signal, 'abort').length);
          const waiting = manager.request('ledger', { signal }, () => {
            counts.push(getEventListeners(signal, 'abort').length);
          });
          counts.push(getEventListeners(signal, 'abort').length);
          return { waiting };
        })
        .then(({ waiting }) => waiting);
      return counts;
    });
    expect(listeners).toEqual([0, 1, 0]);
  });
});

describe('aborted between grant and callback', () => {
  conforms('of a lock that is free: rejects, is never called, and the lock is free', 1, async (_, agent) => {
    const seen = await agent!.inside(async ({ manager }) => {
      const controller = new AbortController();
      let calls = 0;
      const request = manager.request('ledger', { signal: controller.signal }, () => {
        calls++;
      });
      controller.abort('in between');
      const reason = await request.catch((error) => error);
      return [reason, calls, (await manager.query()).held.length];
    });
    expect(seen).toEqual(['in between', 0, 0]);
  });

  conforms(
    'in the turn in which it came free: one outcome or the other, and the next one is granted',
    2,
    async (_, a, b) => {
      const outcomes = await a!.inside(async ({ manager }) => {
        const seen = new Set<unknown>();
        for (let round = 0; round < 50; round++) {
          const controller = new AbortController();
          let calls = 0;
          let free = () => {};
          const holder = manager.request('ledger', () => new Promise<void>((resolve) => (free = resolve)));
          await null;
          await null;
          const waiter = manager.request('ledger', { signal: controller.signal }, () => ++calls);
          const next = manager.request('ledger', () => 'next');
          free();
          for (let turns = 0; turns < round % 8; turns++) await null;
          controller.abort('late');
          const outcome = await waiter.catch((error) => error);
          // Called exactly if it was granted.
          seen.add(outcome === 'late' ? calls === 0 : outcome === 1 && calls === 1);
          seen.add((await next) === 'next');
          await holder;
        }
        return [...seen];
      });
      expect(outcomes).toEqual([true]);
      await (await b!.hold()).finish();
    },
  );

  conforms(
    'while its event loop is busy: one outcome or the other, and the next one is granted',
    3,
    async (test, a, b, c) => {
      const holder = await a!.hold();
      const busy = await b!.request(signal);
      const next = await c!.request();
      // In one turn of its event loop: the lock comes free, and then the abort.
      const spinning = b!.actor.call('busy', { ms: 100 });
      await holder.finish();
      await busy.abort('enough');
      await spinning;
      // Which of the two its event loop finds first is its own affair.
      if ((await busy.called) === null)
        await expect(busy.outcome).rejects.toMatchObject({ message: 'enough' });
      else await busy.finish();
      await next.granted();
      await test.expectState([next]);
      await next.finish();
    },
    SEPARATE_KINDS,
  );
});
