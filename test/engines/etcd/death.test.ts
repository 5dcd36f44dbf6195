// A process that is killed, in whatever role, takes nothing with it: whoever waits gets the lock when its lease has ended, and
// is told when the dead one may have been in the middle of a change.
import { performance } from 'node:perf_hooks';
import { LockManager } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture, TTL_MS } from './fixture';

const GRANT_MS_MAX = TTL_MS + 1000;

describeWithServer('a process that is killed', () => {
  const fixture = new Fixture();

  test('while it holds, leaves a mark for the next one, who has the lock when the lease has ended', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    const token = await holder.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    const killedAt = performance.now();
    await holder.kill();
    const guard = await waiting;
    expect(performance.now() - killedAt).toBeLessThan(GRANT_MS_MAX);
    expect(guard.abandoned).toMatchObject({ pid: holder.pid, threadId: 0, token });
    expect(guard.token).toBeGreaterThan(token);
    await guard.release();
    const next = await lock.exclusive();
    expect(next.abandoned).toBeNull();
    await next.release();
    expect(await fixture.cluster.keys('proclock/default/lock/')).toEqual([]);
  });

  test('one after another, leaves the youngest mark, until somebody finishes', async () => {
    const lock = await fixture.lock();
    const holders = await Promise.all([fixture.child(), fixture.child()]);
    let last = 0n;
    for (const holder of holders) {
      last = await holder.hold(lock.name);
      await holder.kill();
    }
    const guard = await lock.shared();
    expect(guard.abandoned).toMatchObject({ pid: holders[1]!.pid, token: last });
    await guard.upgrade();
    await guard.downgrade();
    await guard.release();
    const next = await lock.exclusive();
    expect(next.abandoned).toBeNull();
    await next.release();
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
    expect(performance.now() - killedAt).toBeLessThan(GRANT_MS_MAX);
    expect(guard.abandoned).toMatchObject({ pid: holder.pid });
    await guard.release();
  });

  test('after it asked for the release, leaves the lock free or marked, and never both', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    await holder.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    holder.run('guards.get(args).release(); process.kill(process.pid, "SIGKILL")', lock.name).catch(() => {});
    await holder.ended;
    const guard = await waiting;
    if (guard.abandoned !== null) expect(guard.abandoned.pid).toBe(holder.pid);
    expect((await lock.query()).held).toHaveLength(1);
    await guard.release();
  });

  test('while it upgrades, bars nobody; and is no reader any more that an upgrade waits for', async () => {
    const lock = await fixture.lock();
    const upgrader = await fixture.child();
    const guard = await lock.shared();
    await upgrader.hold(lock.name, 'shared');
    upgrader.run('await guards.get(args).upgrade()', lock.name).catch(() => {});
    await until(async () => {
      const tried = await lock.tryShared();
      await tried?.release();
      return tried === null;
    });
    const newcomer = lock.shared();
    await fixture.untilPending(lock, 1);
    await upgrader.kill();
    await (await newcomer).release();
    await guard.upgrade();
    expect(guard.abandoned).toBeNull();
    await guard.release();
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
