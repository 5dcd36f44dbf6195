// Web Locks, "process the lock request queue": which requests are granted, and in which order.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testNamespace } from './support/namespace';
import { conforms, name } from './support/web-locks';

const shared = { mode: 'shared' } as const;
const ifAvailable = { ifAvailable: true } as const;

describe('modes', () => {
  conforms('shared holds of one name go together', 3, async (test, ...agents) => {
    const holds = [];
    for (const agent of agents) holds.push(await agent.hold(shared));
    await test.expectState(holds);
    for (const hold of holds) await hold.finish();
  });

  conforms('an exclusive hold goes with no other', 3, async (test, a, b, c) => {
    const holder = await a!.hold();
    const writer = await b!.request();
    const reader = await c!.request(shared);
    await test.expectState([holder], [writer, reader]);
    await holder.finish();
    await writer.granted();
    await test.expectState([writer], [reader]);
    await writer.finish();
    await reader.granted();
    await test.expectState([reader]);
    await reader.finish();
  });

  conforms('an exclusive request waits for the last of the shared holders', 3, async (test, a, b, c) => {
    const readers = [await a!.hold(shared), await b!.hold(shared)];
    const writer = await c!.request();
    await readers[0]!.finish();
    await test.expectState([readers[1]!], [writer]);
    await readers[1]!.finish();
    await writer.granted();
    await writer.finish();
  });

  conforms('locks of different names have nothing to do with each other', 2, async (test, a, b) => {
    const holds = [await a!.hold({ name: 'one' }), await b!.hold({ name: 'two' })];
    const waits = [await b!.request({ name: 'one' }), await a!.request({ name: 'two' })];
    await holds[1]!.finish();
    await waits[1]!.granted();
    await test.expectState([holds[0]!, waits[1]!], [waits[0]!]);
    await holds[0]!.finish();
    await waits[0]!.granted();
    for (const wait of waits) await wait.finish();
  });

  conforms('nor do locks of one name in different namespaces', 2, async (test, a, b) => {
    const other = testNamespace();
    const holds = [await a!.hold(), await b!.hold({ namespace: other })];
    await test.expectState([holds[0]!]);
    expect(await b!.actor.call('queryAll', { namespace: other })).toMatchObject({
      held: [{ name, pid: b!.actor.pid, threadId: b!.actor.threadId }],
      pending: [],
    });
    for (const hold of holds) await hold.finish();
  });
});

describe('first in, first out', () => {
  conforms(
    'requests of all agents are granted in the order in which they were made',
    4,
    async (test, ...agents) => {
      const modes = [
        'exclusive',
        'exclusive',
        'shared',
        'shared',
        'exclusive',
        'shared',
        'exclusive',
      ] as const;
      const holder = await agents[0]!.hold();
      const queue = [];
      for (const [n, mode] of modes.entries()) queue.push(await agents[(n + 1) % 4]!.request({ mode }));
      await test.expectState([holder], queue);
      await holder.finish();
      while (queue.length > 0) {
        // Neighbouring shared ones are granted together.
        const alone = queue[0]!.info.mode === 'exclusive';
        const others = queue.findIndex(({ info }) => info.mode === 'exclusive');
        const granted = queue.splice(0, alone ? 1 : others);
        for (const one of granted) await one.granted();
        await test.expectState(granted, queue);
        for (const one of granted) await one.finish();
      }
    },
  );

  conforms('a shared request does not overtake a waiting exclusive one', 3, async (test, a, b, c) => {
    const reader = await a!.hold(shared);
    const writer = await b!.request();
    const late = await c!.request(shared);
    await test.expectState([reader], [writer, late]);
    await reader.finish();
    await writer.granted();
    await test.expectState([writer], [late]);
    await writer.finish();
    await late.granted();
    await late.finish();
  });

  conforms('newcomers that never pause do not get ahead, whatever they try', 3, async (_, a, b, c) => {
    const holder = await a!.hold(shared);
    const first = await b!.request();
    // Whatever fits in beside the holder, or in the moment in which the lock is free.
    const trying = c!.inside(
      async ({ manager, proclock, args }) => {
        const state = globalThis as { enough?: boolean };
        state.enough = false;
        const lock = new proclock.SharedLock(args.name, { namespace: args.namespace });
        let granted = 0;
        for (let round = 1; !state.enough; round++) {
          const mode = round % 2 ? 'shared' : 'exclusive';
          await manager.request(args.name, { ifAvailable: true, mode }, (got) => {
            if (got !== null) granted++;
          });
          const guard = lock.tryAcquire({ exclusive: mode === 'exclusive' });
          if (guard !== null) granted++;
          guard?.release();
          if (round % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        return granted;
      },
      { name, namespace: first.args.namespace },
    );
    for (let n = 0; n < 5; n++) await c!.actor.call('ping');
    expect(first.settled).toBe(false);
    await holder.finish();
    await first.granted();
    await c!.inside(() => {
      (globalThis as { enough?: boolean }).enough = true;
    });
    expect(await trying).toBe(0);
    await first.finish();
  });

  conforms('a nested request for the same name waits for the outer one', 2, async (test, a, b) => {
    const outer = await a!.hold();
    const between = await b!.request();
    const inner = await a!.request();
    await test.expectState([outer], [between, inner]);
    await outer.finish();
    await between.granted();
    await between.finish();
    await inner.granted();
    await inner.finish();
  });

  conforms(
    'hundreds of requests, each for a moment: all are granted, never two at once',
    3,
    async (test, ...agents) => {
      const file = join(tmpdir(), test.namespace);
      const ran = agents.map((agent) =>
        agent.inside(async ({ manager, args }) => {
          const { closeSync, openSync, rmSync } = require('node:fs') as typeof import('node:fs');
          const request = () =>
            manager.request('busy', async () => {
              closeSync(openSync(args, 'wx')); // fails if it is there already
              await null;
              rmSync(args);
              return 1;
            });
          return (await Promise.all(Array.from({ length: 300 }, request))).length;
        }, file),
      );
      for (const one of ran) expect(await one).toBe(300);
    },
  );
});

describe('ifAvailable', () => {
  conforms('is granted if nobody holds the lock, or only those that fit in', 2, async (test, a, b) => {
    const alone = await a!.hold(ifAvailable);
    await alone.finish();
    const holds = [
      await a!.hold({ ...shared, ...ifAvailable }),
      await b!.hold({ ...shared, ...ifAvailable }),
    ];
    await test.expectState(holds);
    for (const hold of holds) await hold.finish();
  });

  conforms('gets null if somebody holds the lock, and never waits', 2, async (test, a, b) => {
    for (const [held, wanted] of [
      ['exclusive', 'exclusive'],
      ['exclusive', 'shared'],
      ['shared', 'exclusive'],
    ] as const) {
      const holder = await a!.hold({ mode: held });
      const request = await b!.request({ mode: wanted, ...ifAvailable });
      expect(await request.called).toEqual({ args: [null], synchronous: false });
      await test.expectState([holder]);
      // The callback runs on without the lock, which nobody waits for.
      await holder.finish();
      const next = await a!.hold();
      await request.finish('without');
      await next.finish();
    }
  });

  conforms('gets null if others wait, even where it would fit in', 3, async (test, a, b, c) => {
    const reader = await a!.hold(shared);
    const writer = await b!.request();
    const request = await c!.request({ ...shared, ...ifAvailable });
    expect(await request.called).toEqual({ args: [null], synchronous: false });
    await request.finish();
    await test.expectState([reader], [writer]);
    await reader.finish();
    await writer.granted();
    await writer.finish();
  });

  conforms(
    'what its callback returns or throws is passed on, with a lock and without',
    2,
    async (_, a, b) => {
      const outcomes = async () => {
        const value = await b!.inside(({ manager }) =>
          manager.request('ledger', { ifAvailable: true }, (lock) => lock?.name ?? 'none'),
        );
        const thrown = await b!.inside(({ manager }) =>
          manager
            .request('ledger', { ifAvailable: true }, () => {
              throw new Error('mine');
            })
            .catch((error) => (error as Error).message),
        );
        const rejected = await b!.inside(({ manager }) =>
          manager
            .request('ledger', { ifAvailable: true }, () => Promise.reject(new Error('mine')))
            .catch((error) => (error as Error).message),
        );
        return [value, thrown, rejected];
      };
      expect(await outcomes()).toEqual([name, 'mine', 'mine']);
      const holder = await a!.hold();
      expect(await outcomes()).toEqual(['none', 'mine', 'mine']);
      await holder.finish();
    },
  );
});
