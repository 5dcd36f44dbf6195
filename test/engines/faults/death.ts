// A process that is killed, in whatever role, takes nothing with it: whoever waits gets the lock as soon as the engine knows of
// the death, and is told when the dead one may have been in the middle of a change. What becomes of marks and of upgrades is in
// the conformance suite.
import { performance } from 'node:perf_hooks';
import { LockManager } from '../../../lib/remote';
import { until } from '../../support/until';
import { type EngineFixture, LATE_MS } from '../fixture';

export function deaths(fixture: EngineFixture): void {
  describe('a process that is killed', () => {
    test('while it holds, leaves a mark for the next one, who has the lock in time', async () => {
      const lock = await fixture.lock();
      const holder = await fixture.child();
      const token = await holder.hold(lock.name);
      const waiting = lock.exclusive();
      await fixture.untilPending(lock, 1);
      const killedAt = performance.now();
      await holder.kill();
      const guard = await waiting;
      expect(performance.now() - killedAt).toBeLessThan(fixture.deathMs + LATE_MS);
      expect(guard.abandoned).toMatchObject({ pid: holder.pid, threadId: 0, token });
      expect(guard.token).toBeGreaterThan(token);
      await guard.release();
      const next = await lock.exclusive();
      expect(next.abandoned).toBeNull();
      await next.release();
      expect(await fixture.traces()).toBe(0);
    });

    test('is not in the way of one that comes later, or only tries', async () => {
      const lock = await fixture.lock();
      const holder = await fixture.child();
      const token = await holder.hold(lock.name);
      await holder.kill();
      await until(async () => (await lock.query()).held.length === 0);
      const guard = await lock.tryShared();
      expect(guard?.abandoned).toMatchObject({ pid: holder.pid, token });
      expect(await guard?.tryUpgrade()).toBe(true);
      await guard?.release();
    });

    test('while it waits, is passed over, and leaves no mark', async () => {
      const lock = await fixture.lock();
      const first = await lock.exclusive();
      const waiter = await fixture.child();
      waiter.hold(lock.name).catch(() => {});
      await fixture.untilPending(lock, 1);
      const second = lock.exclusive();
      await fixture.untilPending(lock, 2);
      await waiter.kill();
      // Granted before the server knows of the death, it would leave a mark.
      if (fixture.serverGrants) await fixture.untilPending(lock, 1);
      await first.release();
      const guard = await second;
      expect(guard.abandoned).toBeNull();
      await guard.release();
    });

    test('together with those ahead of it, keeps nobody waiting', async () => {
      const lock = await fixture.lock();
      const holder = await fixture.child();
      await holder.hold(lock.name);
      const waiters = await Promise.all([fixture.child(), fixture.child()]);
      for (const [index, waiter] of waiters.entries()) {
        waiter.hold(lock.name).catch(() => {});
        await fixture.untilPending(lock, index + 1);
      }
      const waiting = lock.exclusive();
      await fixture.untilPending(lock, 3);
      const killedAt = performance.now();
      await Promise.all([holder, ...waiters].map((child) => child.kill()));
      const guard = await waiting;
      expect(performance.now() - killedAt).toBeLessThan(fixture.deathMs + LATE_MS);
      expect(guard.abandoned).toMatchObject({ pid: holder.pid });
      await guard.release();
    });

    test('after it asked for the release, leaves the lock free or marked, and never both', async () => {
      const lock = await fixture.lock();
      const holder = await fixture.child();
      await holder.hold(lock.name);
      const waiting = lock.exclusive();
      await fixture.untilPending(lock, 1);
      const end = 'guards.get(args).release(); process.kill(process.pid, "SIGKILL")';
      holder.run(end, lock.name).catch(() => {});
      await holder.ended;
      const guard = await waiting;
      if (guard.abandoned !== null) expect(guard.abandoned.pid).toBe(holder.pid);
      expect((await lock.query()).held).toHaveLength(1);
      await guard.release();
    });

    test('frees all that it had, however much that is', async () => {
      const [one, two] = await fixture.twoLocks();
      /** Somebody has to wait for all that is dead to be looked for. */
      const whileSomebodyWaits = async (work: () => Promise<void>) => {
        const guard = await one.exclusive();
        const waiting = two.exclusive();
        await fixture.untilPending(one, 1);
        await work();
        await guard.release();
        await (await waiting).release();
      };
      let usual = 0;
      await whileSomebodyWaits(async () => {
        usual = await fixture.leftovers();
      });
      const child = await fixture.child();
      await child.run(
        'await Promise.all(Array.from({ length: 500 }, (_, i) => lock(args + i).shared().then((guard) => guards.set(i, guard))))',
        fixture.name,
      );
      await child.hold(one.name);
      const waiting = one.exclusive();
      await fixture.untilPending(one, 1);
      await child.kill();
      await (await waiting).release();
      await whileSomebodyWaits(() => until(async () => (await fixture.leftovers()) <= usual));
      expect((await (await fixture.space()).query()).held).toEqual([]);
    });

    test('leaves the mark also where the next one steals the lock', async () => {
      const space = await fixture.space();
      const holder = await fixture.child();
      await holder.hold(fixture.name);
      await holder.kill();
      await until(async () => (await space.query()).held.length === 0);
      const manager = new LockManager({ space });
      await manager.request(fixture.name, { steal: true }, () => {});
      const guard = await (await fixture.lock()).shared();
      expect(guard.abandoned).toMatchObject({ pid: holder.pid });
      await guard.release();
    });
  });
}
