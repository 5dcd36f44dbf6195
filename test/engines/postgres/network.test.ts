// Whatever the network does, a hold is given up before the server can grant the lock to another; what is merely slow loses
// nothing; and no lost answer leaves a hold that nobody knows of.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LockGuard, LockManager, type SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import type { Direction, NetworkProxy } from '../proxy';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const TTL = 1500;

/** A machine that is busy with other tests is late. */
const LATE_MS = 3000;

describeWithServer('the network', () => {
  const fixture = new Fixture();
  let proxy: NetworkProxy;
  /** Over the proxy. */
  let far: SharedLock;
  let near: SharedLock;

  beforeEach(async () => {
    proxy = await fixture.proxy();
    far = await fixture.lock({ ttl: TTL }, fixture.server.url('postgres', proxy.port));
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
    ['towards the server', ['up']],
    ['from the server', ['down']],
  ])('stalls %s: the holder gives up before the next grant', async (_, directions) => {
    const { grantedMs } = await disturbed(() => proxy.stall(...directions));
    expect(grantedMs).toBeLessThan(3 * TTL + LATE_MS);
  });

  test('resets the connection: the holder is told at once', async () => {
    const { lostMs, grantedMs } = await disturbed(() => proxy.reset());
    expect(lostMs).toBeLessThan(LATE_MS);
    expect(grantedMs).toBeLessThan(1000 + LATE_MS);
  });

  test('is slow: nothing is lost', async () => {
    const slow = await fixture.lock({ ttl: 4000 }, fixture.server.url('postgres', proxy.port));
    proxy.delay(500);
    const guard = await slow.exclusive();
    await sleep(6000);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    expect((await near.query()).held).toEqual([]);
  });

  test('trickles: the holder gives up, or is heard of', async () => {
    const { lostMs, grantedMs } = await disturbed(() => proxy.trickle(1));
    expect(lostMs).toBeLessThan(grantedMs);
  });

  test('stalls: questions are told within 5 s, and what waits queues again', async () => {
    const holder = await near.exclusive();
    const waiting = far.exclusive();
    await fixture.untilPending(near, 1);
    proxy.stall();
    const at = performance.now();
    const tried = far.tryShared();
    await expect(tried).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    expect(performance.now() - at).toBeLessThan(5000 + LATE_MS);
    proxy.reset();
    proxy.resume();
    await holder.release();
    await (await waiting).release();
  });

  test('stalls: a release rejects within 5 s', async () => {
    const lock = await fixture.lock({ ttl: 60_000 }, fixture.server.url('postgres', proxy.port));
    const guard = await lock.exclusive();
    proxy.stall();
    const at = performance.now();
    await expect(guard.release()).rejects.toMatchObject({ name: 'LockError' });
    expect(performance.now() - at).toBeLessThan(5000 + LATE_MS);
  });

  test('is slow: an upgrade that is given up while it is refused leaves the hold shared', async () => {
    const upgrading = await near.shared();
    const guard = await far.shared();
    const upgraded = upgrading.upgrade();
    await near.query();
    proxy.delay(50);
    await expect(guard.upgrade({ timeout: 20 })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
    expect(guard.mode).toBe('shared');
    await guard.release();
    await upgraded;
    await upgrading.release();
  });

  // Grant and theft come together, before anything is made of the grant.
  describe('holds the answer back while the lock is stolen', () => {
    const heldNear = async () => (await near.query()).held.length;

    async function steal(): Promise<void> {
      const space = await fixture.space();
      await new LockManager({ space }).request(fixture.name, { steal: true }, () => {});
    }

    async function expectTold(acquired: Promise<LockGuard>): Promise<void> {
      const guard = await acquired;
      const lost = new Promise((resolve) => {
        if (guard.lost.aborted) resolve(undefined);
        else guard.lost.addEventListener('abort', resolve);
      });
      await lost;
      expect(guard.lost.reason).toMatchObject({ code: 'ERR_LOCK_LOST', cause: { name: 'Theft' } });
      await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      const robbed = () => fixture.server.sql("select from proclock.slots where state = 'robbed'");
      await until(async () => (await robbed()).length === 0);
    }

    test('that it granted at once', async () => {
      proxy.stall('down');
      const acquired = far.exclusive();
      await until(async () => (await heldNear()) === 1);
      await steal();
      proxy.resume();
      await expectTold(acquired);
    });

    test('that it granted to whom it had told to wait', async () => {
      const guard = await near.exclusive();
      proxy.stall('down');
      const acquired = far.exclusive();
      await fixture.untilPending(near, 1);
      await guard.release();
      await until(async () => (await heldNear()) === 1);
      await steal();
      proxy.resume();
      await expectTold(acquired);
    });

    test('to a release: the holder is told of the theft', async () => {
      const guard = await far.exclusive();
      proxy.stall('up');
      const released = guard.release();
      await steal();
      proxy.resume();
      await expect(released).rejects.toMatchObject({ code: 'ERR_LOCK_LOST', cause: { name: 'Theft' } });
    });
  });

  // The answer is lost, and the connection with it.
  describe('loses the answer', () => {
    const lose = async (committed: () => Promise<boolean>) => {
      await until(committed);
      proxy.reset();
      proxy.resume();
    };
    const heldNear = async () => (await near.query()).held;

    test('to an acquire: it is asked again, and there is one hold', async () => {
      proxy.stall('down');
      const acquired = far.exclusive();
      await lose(async () => (await heldNear()).length === 1);
      const guard = await acquired;
      expect(await heldNear()).toHaveLength(1);
      await guard.release();
      expect(await heldNear()).toEqual([]);
    });

    test('to a release: the lock is free', async () => {
      const guard = await far.exclusive();
      proxy.stall('down');
      const released = guard.release();
      released.catch(() => {});
      await lose(async () => (await heldNear()).length === 0);
      await expect(released).rejects.toMatchObject({ name: 'LockError' });
      const next = await near.exclusive();
      expect(next.abandoned).toBeNull();
      await next.release();
    });

    test('to a downgrade: the hold is lost, and leaves no mark', async () => {
      const guard = await far.exclusive();
      proxy.stall('down');
      const downgraded = guard.downgrade();
      downgraded.catch(() => {});
      await lose(async () => (await heldNear())[0]?.mode === 'shared');
      await expect(downgraded).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      const next = await near.exclusive();
      expect(next.abandoned).toBeNull();
      await next.release();
    });
  });
});
