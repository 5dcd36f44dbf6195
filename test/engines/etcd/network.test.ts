// Whatever the network does, a hold is given up before etcd can grant the lock to another; what is merely slow loses nothing;
// and no lost answer leaves a hold that nobody knows of.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LockGuard, LockManager, type SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import type { Direction, NetworkProxy } from '../proxy';
import { describeWithServer } from './describe';
import { Fixture, TTL_MS } from './fixture';

/** A machine that is busy with other tests is late. */
const LATE_MS = 3000;

describeWithServer('the network', () => {
  const fixture = new Fixture();
  let proxy: NetworkProxy;
  let endpoint: string[];
  /** Over the proxy. */
  let far: SharedLock;
  let near: SharedLock;

  beforeEach(async () => {
    proxy = await fixture.proxy();
    endpoint = [`127.0.0.1:${proxy.port}`];
    far = await fixture.lock({}, endpoint);
    near = await fixture.lock();
  });

  /** When a waiter nearby has the lock, and whether the hold over the proxy was lost by then. */
  async function disturbed(disturb: () => void) {
    const guard = await far.exclusive();
    const waiting = near.exclusive();
    await fixture.untilPending(near, 1);
    const at = performance.now();
    let lostAt = Number.POSITIVE_INFINITY;
    guard.lost.addEventListener('abort', () => {
      lostAt = performance.now();
    });
    disturb();
    const next = await waiting;
    const grantedAt = performance.now();
    expect(lostAt).toBeLessThan(grantedAt);
    expect(next.abandoned).toMatchObject({ token: guard.token });
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    await next.release();
    return { lostMs: lostAt - at, grantedMs: grantedAt - at };
  }

  test.each<[string, Direction[]]>([
    ['both ways', ['up', 'down']],
    ['towards etcd', ['up']],
    ['from etcd', ['down']],
  ])('stalls %s: the holder gives up before the next grant', async (_, directions) => {
    const { lostMs, grantedMs } = await disturbed(() => proxy.stall(...directions));
    expect(lostMs).toBeLessThan(TTL_MS + LATE_MS);
    expect(grantedMs).toBeLessThan(2 * TTL_MS + LATE_MS);
  });

  test('trickles: the holder gives up', async () => {
    const { lostMs, grantedMs } = await disturbed(() => proxy.trickle(1));
    expect(lostMs).toBeLessThan(grantedMs);
  });

  test('resets the connection: nothing is lost, what waits waits on, and thefts are heard of', async () => {
    const guard = await far.exclusive();
    const waiting = far.exclusive();
    await fixture.untilPending(near, 1);
    const before = await near.query();
    for (let round = 0; round < 3; round++) {
      proxy.reset();
      await far.query();
    }
    expect(await near.query()).toEqual(before);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    const next = await waiting;
    expect(next.abandoned).toBeNull();
    await next.release();
  });

  test('is slow: nothing is lost', async () => {
    const slow = await fixture.lock({ ttl: 6000 }, endpoint);
    proxy.delay(500);
    const guard = await slow.exclusive();
    await sleep(7000);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    expect((await near.query()).held).toEqual([]);
  });

  test('stalls: questions are told within 5 s, and what waits queues again', async () => {
    const holder = await near.exclusive();
    const waiting = far.exclusive();
    await fixture.untilPending(near, 1);
    proxy.stall();
    const at = performance.now();
    const questions = [far.tryShared(), far.query(), far.exclusive({ timeout: 1000 })];
    for (const question of questions)
      await expect(question).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    expect(performance.now() - at).toBeLessThan(6000 + LATE_MS);
    proxy.reset();
    proxy.resume();
    await holder.release();
    await (await waiting).release();
  });

  test('stalls: a release rejects within 5 s', async () => {
    const lock = await fixture.lock({ ttl: 60_000 }, endpoint);
    const guard = await lock.exclusive();
    proxy.stall();
    const at = performance.now();
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    expect(performance.now() - at).toBeLessThan(5000 + LATE_MS);
    // What was asked for is done when it can be.
    proxy.reset();
    proxy.resume();
    await (await near.exclusive()).release();
  });

  test('is slow: an upgrade that is given up while it is refused leaves the hold shared', async () => {
    const upgrading = await near.shared();
    const guard = await far.shared();
    const upgraded = upgrading.upgrade();
    await near.query();
    proxy.delay(50);
    await expect(guard.upgrade({ timeout: 20 })).rejects.toMatchObject({
      code: expect.stringMatching(/TIMEOUT|UPGRADE/),
    });
    expect(guard.mode).toBe('shared');
    await guard.release();
    await upgraded;
    await upgrading.release();
  });

  // The answer is lost, and the connection with it; the question is asked again, over another one.
  describe('loses the answer', () => {
    const lose = async (committed: () => Promise<boolean>) => {
      await until(committed);
      proxy.reset();
      proxy.resume();
    };
    const heldNear = async () => (await near.query()).held;

    test.each(['shared', 'exclusive'] as const)('to an acquire (%s): there is one hold', async (mode) => {
      proxy.stall('down');
      const acquired = far[mode]();
      await lose(async () => (await heldNear()).length === 1);
      const guard = await acquired;
      expect(guard.abandoned).toBeNull();
      expect(await heldNear()).toHaveLength(1);
      await guard.release();
      expect(await near.query()).toEqual({ held: [], pending: [] });
      const next = await near.exclusive();
      expect(next.token > guard.token).toBe(true);
      await next.release();
    });

    test('to a try', async () => {
      proxy.stall('down');
      const acquired = far.tryExclusive();
      await lose(async () => (await heldNear()).length === 1);
      await (await acquired)!.release();
      expect(await heldNear()).toEqual([]);
    });

    test.each(['shared', 'exclusive'] as const)(
      'that a wait has begun (%s): it is one wait',
      async (mode) => {
        const holder = await near.exclusive();
        proxy.stall('down');
        const waiting = far[mode]();
        await lose(async () => (await near.query()).pending.length === 1);
        await far.query();
        expect((await near.query()).pending).toHaveLength(1);
        await holder.release();
        const guard = await waiting;
        await guard.release();
      },
    );

    test.each(['shared', 'exclusive'] as const)(
      'to the grant of a wait (%s): it has the lock',
      async (mode) => {
        const holder = await near.exclusive();
        const waiting = far[mode]();
        await fixture.untilPending(near, 1);
        await far.query(); // its watch was asked for before
        proxy.stall('down');
        await holder.release();
        await sleep(100); // the answer to nothing else is to be lost
        proxy.reset();
        proxy.stall('down');
        proxy.resume();
        const guard = await waiting;
        expect(await heldNear()).toMatchObject([{ mode }]);
        expect(guard.token >= holder.token).toBe(true);
        await guard.release();
        expect(await heldNear()).toEqual([]);
      },
    );

    test('to a release: the lock is free, and nothing is abandoned', async () => {
      const guard = await far.exclusive();
      proxy.stall('down');
      const released = guard.release();
      await lose(async () => (await heldNear()).length === 0);
      await released;
      const next = await near.exclusive();
      expect(next.abandoned).toBeNull();
      await next.release();
    });

    test('to a downgrade: the hold is shared', async () => {
      const guard = await far.exclusive();
      proxy.stall('down');
      const downgraded = guard.downgrade();
      await lose(async () => (await heldNear())[0]?.mode === 'shared');
      await downgraded;
      expect(guard.mode).toBe('shared');
      await (await near.shared()).release();
      await guard.release();
      const next = await near.exclusive();
      expect(next.abandoned).toBeNull();
      await next.release();
    });

    test('to an upgrade: the hold is exclusive', async () => {
      const guard = await far.shared();
      proxy.stall('down');
      const upgraded = guard.upgrade();
      await lose(async () => (await heldNear())[0]?.mode === 'exclusive');
      await upgraded;
      expect(await near.tryShared()).toBeNull();
      await guard.release();
      const next = await near.exclusive();
      expect(next.abandoned).toBeNull();
      expect(next.token > guard.token).toBe(true);
      await next.release();
    });

    test('that an upgrade waits: it has the lock when the others have left', async () => {
      const reader = await near.shared();
      const guard = await far.shared();
      proxy.stall('down');
      const upgraded = guard.upgrade();
      await lose(async () => {
        const newcomer = await near.tryShared();
        await newcomer?.release();
        return newcomer === null;
      });
      await far.query();
      await reader.release();
      await upgraded;
      expect(guard.mode).toBe('exclusive');
      await guard.release();
      expect(await near.query()).toEqual({ held: [], pending: [] });
    });

    describe('and meanwhile a thief comes', () => {
      const steal = async () => {
        const { space } = thief;
        await new LockManager({ space }).request(fixture.name, { steal: true }, () => {});
      };
      let thief: { space: Space };
      beforeEach(async () => {
        thief = { space: await fixture.space() };
      });

      async function expectRobbed(acquired: Promise<LockGuard>): Promise<void> {
        const guard = await acquired;
        await until(() => guard.lost.aborted);
        expect(guard.lost.reason).toMatchObject({ cause: { name: 'Theft' } });
        expect(await near.query()).toEqual({ held: [], pending: [] });
        const next = await near.exclusive();
        expect(next.token > guard.token).toBe(true);
        await next.release();
        await guard[Symbol.asyncDispose]();
      }

      test('to an acquire: it was granted, and is lost', async () => {
        proxy.stall('down');
        const acquired = far.exclusive();
        await lose(async () => {
          if ((await heldNear()).length === 0) return false;
          await steal();
          return true;
        });
        await expectRobbed(acquired);
      });

      test('to a release: it was released', async () => {
        const guard = await far.exclusive();
        proxy.stall('down');
        const released = guard.release();
        await lose(async () => {
          if ((await heldNear()).length > 0) return false;
          await steal();
          return true;
        });
        await released;
      });
    });

    test('to a withdrawal: the place is gone', async () => {
      const holder = await near.exclusive();
      const controller = new AbortController();
      const waiting = far.exclusive({ signal: controller.signal });
      await fixture.untilPending(near, 1);
      proxy.stall('down');
      controller.abort(new Error('given up'));
      waiting.catch(() => {});
      await lose(async () => (await near.query()).pending.length === 0);
      await expect(waiting).rejects.toThrow('given up');
      await far.query();
      expect((await near.query()).pending).toEqual([]);
      await holder.release();
    });
  });
});
