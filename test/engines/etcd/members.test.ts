// What becomes of holds and waits when members of the cluster are killed, stopped or cut off.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LockGuard, SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

/** How often the leader, and another member, are lost. More of them: PROCLOCK_ETCD_RUNS=50. */
const RUNS = Number(process.env.PROCLOCK_ETCD_RUNS ?? 2);
/** Longer than a member takes to start, and an election, on a busy machine. */
const TTL_MS = 60_000;
const MINUTES = 60_000;

async function lossOf(guard: LockGuard): Promise<number> {
  await new Promise<void>((resolve) => {
    if (guard.lost.aborted) resolve();
    else guard.lost.addEventListener('abort', () => resolve());
  });
  return performance.now();
}

describeWithServer('one member', () => {
  const fixture = new Fixture();

  test('is killed and started again: holds and waits survive, and tokens grow', async () => {
    const lock = await fixture.lock({ ttl: TTL_MS });
    const other = await fixture.lock({ ttl: TTL_MS });
    const guard = await lock.exclusive();
    const waiting = other.exclusive();
    await fixture.untilPending(lock, 1);
    const [member] = fixture.server.members;
    await fixture.server.restart(member!);
    expect((await lock.query()).pending).toHaveLength(1);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    const next = await waiting;
    expect(next.abandoned).toBeNull();
    expect(next.token).toBeGreaterThan(guard.token);
    await next.release();
  });

  test('is away for longer than the time to live: what is held is lost, what waits queues again', async () => {
    const lock = await fixture.lock({ ttl: fixture.ttlMs });
    const other = await fixture.lock({ ttl: fixture.ttlMs });
    const guard = await lock.exclusive();
    const waiting = other.exclusive();
    await fixture.untilPending(lock, 1);
    const [member] = fixture.server.members;
    await member!.end();
    await lossOf(guard);
    await expect(lock.shared({ timeout: 300 })).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    member!.start();
    const next = await waiting;
    expect(next.abandoned).toMatchObject({ pid: process.pid, token: guard.token });
    expect(next.token).toBeGreaterThan(guard.token);
    await next.release();
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
  });

  describe.each(['exclusive', 'shared'] as const)('a wait (%s) whose watch is cut off', (mode) => {
    test.each([
      ['what it waits for', 0],
      ['more than what it waits for', 1],
    ])('looks again when etcd has forgotten %s (compaction)', async (_, more) => {
      const proxy = await fixture.proxy();
      const far = await fixture.lock({ ttl: TTL_MS }, fixture.through(proxy));
      const near = await fixture.lock({ ttl: TTL_MS });
      const holder = await near.exclusive();
      const waiting = far[mode]();
      await fixture.untilPending(near, 1);
      await far.query();
      proxy.stall();
      await holder.release();
      for (let i = 0; i < more; i++) await fixture.server.ctl(['put', 'something', 'else']);
      const text = await fixture.server.ctl(['get', 'x', '-w', 'json']);
      const [, revision] = /"revision":(\d+)/.exec(text) as unknown as [string, string];
      await fixture.server.ctl(['compaction', revision]);
      proxy.reset();
      proxy.resume();
      const guard = await waiting;
      await guard.release();
      expect(await near.query()).toEqual({ held: [], pending: [] });
    });
  });

  test('loses the keys of a session: it is over, and nothing is abandoned that was not', async () => {
    const lock = await fixture.lock();
    const guard = await lock.exclusive();
    const sessions = await fixture.server.keys('proclock/default/session/');
    for (const key of sessions) await fixture.server.ctl(['lease', 'revoke', key.split('/')[3]!]);
    await lossOf(guard);
    expect(guard.lost.reason).toMatchObject({ cause: { code: 'ERR_LOCK_UNAVAILABLE' } });
    const next = await lock.exclusive();
    expect(next.abandoned).toMatchObject({ token: guard.token });
    await next.release();
  });
});

describeWithServer('a cluster of three', () => {
  const fixture = new Fixture({ members: 3 });
  let holder: SharedLock;
  let waiter: SharedLock;

  beforeEach(async () => {
    holder = await fixture.lock({ ttl: TTL_MS });
    waiter = await fixture.lock({ ttl: TTL_MS });
  });

  async function survives(disturb: () => Promise<() => Promise<void>>): Promise<void> {
    const guard = await holder.exclusive();
    const waiting = waiter.exclusive();
    await fixture.untilPending(holder, 1);
    const restore = await disturb();
    // More than an election takes.
    await sleep(2500);
    await holder.query();
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    const next = await waiting;
    expect(next.abandoned).toBeNull();
    expect(next.token).toBeGreaterThan(guard.token);
    await next.release();
    await restore();
  }

  test(
    'loses its leader: nothing else is lost',
    async () => {
      for (let run = 0; run < RUNS; run++) {
        await survives(async () => {
          const leader = await fixture.server.leader();
          await leader.end();
          return async () => {
            leader.start();
            await fixture.server.untilHealthy();
          };
        });
      }
    },
    RUNS * MINUTES,
  );

  test(
    'loses each member in turn: nothing else is lost',
    async () => {
      for (let run = 0; run < RUNS; run++) {
        const member = fixture.server.members[run % 3]!;
        await survives(async () => {
          await member.end();
          return async () => {
            member.start();
            await fixture.server.untilHealthy();
          };
        });
      }
    },
    RUNS * MINUTES,
  );

  test.each([
    ['a member that stands still', false],
    ['a leader that stands still', true],
  ])(
    'has %s (SIGSTOP): its clients go to another one',
    async (_, isLeader) => {
      const leader = await fixture.server.leader();
      const { members } = fixture.server;
      const stopped = members.find((member) => (member === leader) === isLeader)!;
      // Its clients begin with that one.
      const random = jest.spyOn(Math, 'random').mockReturnValue(members.indexOf(stopped) / members.length);
      holder = await fixture.lock({ ttl: TTL_MS });
      waiter = await fixture.lock({ ttl: TTL_MS });
      random.mockRestore();
      await survives(async () => {
        stopped.signal('SIGSTOP');
        return async () => {
          stopped.signal('SIGCONT');
          await fixture.server.untilHealthy();
        };
      });
    },
    MINUTES,
  );

  test(
    'has no majority: what is held is lost before anybody else is granted; and then all goes on',
    async () => {
      const lock = await fixture.lock({ ttl: 3000 });
      const guard = await lock.exclusive();
      const waiting = waiter.exclusive();
      await fixture.untilPending(lock, 1);
      const lostAt = lossOf(guard);
      // The leader among them: in older versions one that stays goes on for seconds to answer for the others.
      const leader = await fixture.server.leader();
      const gone = [leader, fixture.server.members.find((member) => member !== leader)!];
      await Promise.all(gone.map((member) => member.end()));
      // As late as anything is on this machine.
      const ttlIsOver = sleep(3000).then(() => performance.now());
      await expect(waiter.tryShared()).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
      await lostAt;
      expect((await lostAt) - (await ttlIsOver)).toBeLessThan(1000);
      for (const member of gone) member.start();
      const next = await waiting;
      expect(performance.now()).toBeGreaterThan(await lostAt);
      expect(next.abandoned).toMatchObject({ token: guard.token });
      await next.release();
      await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      await until(async () => (await lock.query()).held.length === 0);
    },
    MINUTES,
  );
});
