// Web Locks, what becomes of an agent that ends, however it ends: its locks are released, its requests leave the queue.
import { SharedLock } from '../lib';
import { until } from './support/namespace';
import { type Agent, conforms, name, SEPARATE_KINDS, takeTurns } from './support/web-locks';

const shared = { mode: 'shared' } as const;
const steal = { steal: true } as const;

const ENDED = { code: 0, signal: null };

describe('an agent that is terminated', () => {
  for (const mode of ['exclusive', 'shared'] as const) {
    conforms(
      `while it holds (${mode}): the next one is granted`,
      3,
      async (test, a, b, c) => {
        await a!.hold({ mode });
        const queue = [await b!.request(), await c!.request()];
        await a!.kill();
        await queue[0]!.granted();
        await test.expectState(queue.slice(0, 1), queue.slice(1));
        await queue[0]!.finish();
        await queue[1]!.granted();
        await queue[1]!.finish();
      },
      SEPARATE_KINDS,
    );
  }

  conforms(
    'while it holds beside others: they keep the lock, and the last of them lets the next one in',
    3,
    async (test, a, b, c) => {
      await a!.hold(shared);
      const other = await b!.hold(shared);
      const writer = await c!.request();
      await a!.kill();
      await until(async () => (await test.manager.query()).held.length === 1);
      await test.expectState([other], [writer]);
      await other.finish();
      await writer.granted();
      await writer.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'while it holds and nobody waits: the lock is available',
    2,
    async (_, a, b) => {
      await a!.hold();
      await a!.hold({ name: 'other', ...shared });
      await a!.kill();
      for (const each of [name, 'other']) {
        await until(async () => {
          const request = await b!.request({ name: each, ifAvailable: true });
          const call = await request.called;
          await request.finish();
          return call?.args[0] !== null;
        });
      }
    },
    SEPARATE_KINDS,
  );

  conforms(
    'while it waits: those behind it do not wait for it',
    4,
    async (test, a, b, c, d) => {
      const reader = await a!.hold(shared);
      await b!.request();
      const readers = [await c!.request(shared), await d!.request(shared)];
      await b!.kill();
      for (const one of readers) await one.granted();
      await test.expectState([reader, ...readers]);
      for (const one of [reader, ...readers]) await one.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'with several requests in the queue: all of them leave, the others keep their order',
    4,
    async (test, a, b, c, d) => {
      const hold = await a!.hold();
      await b!.request();
      const first = await c!.request();
      await b!.request(shared);
      const second = await d!.request(shared);
      await b!.request();
      await b!.kill();
      await until(async () => (await test.manager.query()).pending.length === 2);
      await test.expectState([hold], [first, second]);
      await hold.finish();
      await takeTurns(first, second);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'while it holds one lock and waits for another: both go on without it',
    3,
    async (_, a, b, c) => {
      const hold = await a!.hold({ name: 'one' });
      await b!.hold({ name: 'two' });
      await b!.request({ name: 'one' });
      const waits = [await c!.request({ name: 'one' }), await c!.request({ name: 'two' })];
      await b!.kill();
      await waits[1]!.granted();
      await hold.finish();
      await takeTurns(...waits);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'as a thief: the next one is granted, and the robbed one does not get the lock back',
    3,
    async (test, a, b, c) => {
      const robbed = await a!.hold();
      const next = await c!.request();
      await b!.hold(steal);
      await b!.kill();
      await next.granted();
      await test.expectState([next]);
      await robbed.finishUnheard();
      await expect(robbed.outcome).rejects.toMatchObject({ name: 'AbortError' });
      await next.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'after it was robbed: nothing changes for the thief',
    3,
    async (test, a, b, c) => {
      const robbed = await a!.hold();
      const thief = await b!.hold(steal);
      await expect(robbed.outcome).rejects.toMatchObject({ name: 'AbortError' });
      const next = await c!.request();
      await a!.kill();
      await test.expectState([thief], [next]);
      await thief.finish();
      await next.granted();
      await next.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'with the lock robbed and its thief: the next one is granted',
    3,
    async (test, a, b, c) => {
      await a!.hold(shared);
      await b!.hold(steal);
      const next = await c!.request();
      await Promise.all([a!.kill(), b!.kill()]);
      await next.granted();
      await test.expectState([next]);
      await next.finish();
    },
    SEPARATE_KINDS,
  );
});

describe('what Node’s own in-process implementation gets wrong', () => {
  conforms(
    'the request of a terminated agent is not granted to it: whoever is behind it gets the lock',
    3,
    async (test, a, b, c) => {
      const hold = await a!.hold();
      await b!.request();
      const behind = await c!.request();
      await b!.kill();
      await hold.finish();
      await behind.granted();
      await test.expectState([behind]);
      await behind.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'a request that was aborted does not block those behind it',
    3,
    async (test, a, b, c) => {
      const hold = await a!.hold(shared);
      const aborted = await b!.request({ signal: true });
      const behind = await c!.request(shared);
      await aborted.abort();
      await behind.granted();
      await test.expectState([hold, behind]);
      await expect(aborted.outcome).rejects.toMatchObject({ name: 'AbortError' });
      for (const one of [hold, behind]) await one.finish();
      const next = await c!.hold();
      await next.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'query() sees the other agents',
    2,
    async (test, a, b) => {
      const hold = await a!.hold();
      const wait = await b!.request();
      for (const { actor } of [a!, b!]) {
        expect(await actor.call('queryAll', { namespace: test.namespace })).toMatchObject({
          held: [hold.info],
          pending: [wait.info],
        });
      }
      await hold.finish();
      await wait.granted();
      await wait.finish();
    },
    SEPARATE_KINDS,
  );
});

describe('an agent that ends by itself', () => {
  conforms(
    'may do so while it holds and waits: its event loop is not asked',
    3,
    async (test, a, b, c) => {
      const hold = await a!.hold();
      await b!.hold({ name: 'other' });
      await b!.request();
      const waits = [await c!.request(), await c!.request({ name: 'other' })];
      expect(await b!.actor.exit(0)).toEqual(ENDED);
      await waits[1]!.granted();
      await test.expectState([hold, waits[1]!], [waits[0]!]);
      await hold.finish();
      await takeTurns(...waits);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'ends for want of work although it holds a lock',
    2,
    async (_, a, b) => {
      await a!.hold();
      const next = await b!.request();
      await a!.actor.call('unref');
      expect(await a!.actor.ended).toEqual(ENDED);
      await next.granted();
      await next.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'does not end for want of work while a request is pending',
    2,
    async (test, a, b) => {
      const hold = await a!.hold();
      const wait = await b!.request();
      await b!.actor.call('unref');
      let ended = false;
      void b!.actor.ended.then(() => {
        ended = true;
      });
      // It would have ended long before that many turns of an agent that does have something to do.
      for (let n = 0; n < 20; n++) await a!.actor.call('ping');
      expect(ended).toBe(false);
      await test.expectState([hold], [wait]);
      await hold.finish();
      // Granted it has nothing to do but to hold, which is no reason to stay.
      await wait.called.catch(() => {});
      expect(await b!.actor.ended).toEqual(ENDED);
      await until(async () => (await test.manager.query()).held.length === 0);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'ends for want of work when its request was aborted',
    2,
    async (test, a, b) => {
      const hold = await a!.hold();
      const wait = await b!.request({ signal: true });
      await wait.abort();
      await expect(wait.outcome).rejects.toMatchObject({ name: 'AbortError' });
      await b!.actor.call('unref');
      expect(await b!.actor.ended).toEqual(ENDED);
      await test.expectState([hold]);
      await hold.finish();
    },
    SEPARATE_KINDS,
  );

  conforms(
    'ends for want of work after it was robbed',
    2,
    async (test, a, b) => {
      const robbed = await a!.hold();
      const thief = await b!.hold(steal);
      await expect(robbed.outcome).rejects.toMatchObject({ name: 'AbortError' });
      await a!.actor.call('unref');
      expect(await a!.actor.ended).toEqual(ENDED);
      await test.expectState([thief]);
      await thief.finish();
    },
    SEPARATE_KINDS,
  );
});

describe('the abandoned mark of the other classes', () => {
  const abandonedFor = async (agent: Agent, namespace: string) => {
    const { abandoned } = await agent.actor.acquire({ name, namespace, mode: 'exclusive' });
    return abandoned;
  };

  conforms(
    'tells of an exclusive request that died, also through requests that came in between',
    3,
    async (test, a, b, c) => {
      const { namespace } = test;
      await a!.hold();
      const between = await b!.request();
      await a!.kill();
      await between.granted();
      await between.finish(); // which was not told, and so repaired nothing
      const { pid, threadId } = a!.actor;
      expect(await abandonedFor(c!, namespace)).toMatchObject({ pid, threadId });
      await c!.actor.release(name);
      expect(await abandonedFor(c!, namespace)).toBeNull();
      await c!.actor.release(name);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'does not tell of a shared one',
    2,
    async (test, a, b) => {
      await a!.hold(shared);
      await a!.kill();
      expect(await abandonedFor(b!, test.namespace)).toBeNull();
      await b!.actor.release(name);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'does not tell of one that was robbed before it died; of its thief it does',
    3,
    async (test, a, b, c) => {
      const { namespace } = test;
      await a!.hold();
      const thief = await b!.hold(steal);
      await a!.kill();
      await thief.finish();
      expect(await abandonedFor(c!, namespace)).toBeNull();
      await c!.actor.release(name);
      await b!.hold(steal);
      const { pid, threadId } = b!.actor;
      await b!.kill();
      expect(await abandonedFor(c!, namespace)).toMatchObject({ pid, threadId });
      await c!.actor.release(name);
    },
    SEPARATE_KINDS,
  );

  conforms(
    'is not lost when a thief finds the holder dead',
    3,
    async (test, a, b, c) => {
      const lock = new SharedLock(name, { namespace: test.namespace });
      await a!.hold();
      await a!.kill();
      const thief = await b!.hold(steal);
      await thief.finish();
      const { pid, threadId } = a!.actor;
      const guard = lock.tryExclusive();
      expect(guard?.abandoned).toMatchObject({ pid, threadId });
      guard?.release();
      lock.close();
      expect(await abandonedFor(c!, test.namespace)).toBeNull();
      await c!.actor.release(name);
    },
    SEPARATE_KINDS,
  );
});
