// Whatever the network does, a hold is given up before the engine can grant the lock to another; and what is merely slow loses
// nothing.
//
// PROCLOCK_LEASES is how many leases run out over connections that are stalled.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { LockManager, type SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { type EngineFixture, LATE_MS } from '../fixture';
import type { Direction, NetworkProxy } from '../proxy';

const LEASES = Number(process.env.PROCLOCK_LEASES ?? 4);
const AT_A_TIME = 4;

/** How long a question waits for its answer at the most. */
const ANSWER_MS_MAX = 5000;

/** When it looked for the last time and still found that it holds: before it looked, should it stand still between the two. */
const NOTE_CERTAINTY = `
  const guard = guards.get(args);
  globalThis.certain = new Promise((resolve) => {
    let last;
    const timer = setInterval(() => {
      const before = process.hrtime.bigint();
      if (!guard.lost.aborted) last = before;
      else {
        clearInterval(timer);
        resolve(String(last));
      }
    }, 5);
  });
`;

export function network(fixture: EngineFixture): void {
  const { ttlMs, sessionsBreak } = fixture;

  describe('the network', () => {
    let proxy: NetworkProxy;
    /** Over the proxy. */
    let far: SharedLock;
    let near: SharedLock;

    const farLock = (ttl: number) => fixture.lock({ ttl }, fixture.through(proxy));

    beforeEach(async () => {
      proxy = await fixture.proxy();
      far = await farLock(ttlMs);
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
      // Whoever looks knows. The timer that tells may be late.
      expect(guard.lost.aborted).toBe(true);
      await until(() => lostAt < Number.POSITIVE_INFINITY);
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
      const { lostMs, grantedMs } = await disturbed(() => proxy.stall(...directions));
      expect(lostMs).toBeLessThan(ttlMs + LATE_MS);
      expect(grantedMs).toBeLessThan(2 * ttlMs + LATE_MS);
    });

    test('trickles: the holder gives up before the next grant', async () => {
      await disturbed(() => proxy.trickle(1));
    });

    if (sessionsBreak)
      test('resets the connection: the holder is told at once', async () => {
        const { lostMs, grantedMs } = await disturbed(() => proxy.reset());
        expect(lostMs).toBeLessThan(LATE_MS);
        expect(grantedMs).toBeLessThan(fixture.deathMs + LATE_MS);
      });
    else
      test('resets the connection: nothing is lost, what waits waits on, and thefts are heard of', async () => {
        const steady = await farLock(30_000);
        const guard = await steady.exclusive();
        const waiting = steady.exclusive();
        await fixture.untilPending(near, 1);
        const before = await near.query();
        for (let round = 0; round < 3; round++) {
          proxy.reset();
          await steady.query();
        }
        expect(await near.query()).toEqual(before);
        expect(guard.lost.aborted).toBe(false);
        await guard.release();
        const next = await waiting;
        expect(next.abandoned).toBeNull();
        proxy.reset();
        const thief = new LockManager({ space: await fixture.space() });
        await thief.request(fixture.name, { steal: true }, () => {});
        await until(() => next.lost.aborted);
        expect(next.lost.reason).toMatchObject({ cause: { name: 'Theft' } });
        await next[Symbol.asyncDispose]();
      });

    test('is slow: nothing is lost', async () => {
      const slow = await farLock(7500);
      proxy.delay(500);
      const guard = await slow.exclusive();
      await sleep(11_000);
      expect(guard.lost.aborted).toBe(false);
      await guard.release();
      expect((await near.query()).held).toEqual([]);
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

    test('stalls: questions are told within 5 s, and what waits queues again', async () => {
      const holder = await near.exclusive();
      const waiting = far.exclusive();
      await fixture.untilPending(near, 1);
      proxy.stall();
      const at = performance.now();
      const questions = [far.tryShared(), far.query(), far.exclusive({ timeout: 1000 })];
      for (const { reason } of (await Promise.allSettled(questions)) as PromiseRejectedResult[])
        expect(reason).toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
      expect(performance.now() - at).toBeLessThan(ANSWER_MS_MAX + LATE_MS);
      proxy.reset();
      proxy.resume();
      await holder.release();
      await (await waiting).release();
    });

    test('stalls: a release rejects within 5 s, and what was asked for is done when it can be', async () => {
      const lock = await farLock(60_000);
      const guard = await lock.exclusive();
      proxy.stall();
      const at = performance.now();
      // A session that breaks with its connection is given up in that moment as well: the hold may be known to be lost.
      const code = expect.stringMatching(
        sessionsBreak ? /^ERR_LOCK_(UNAVAILABLE|LOST)$/ : /^ERR_LOCK_UNAVAILABLE$/,
      );
      await expect(guard.release()).rejects.toMatchObject({ code });
      expect(performance.now() - at).toBeLessThan(ANSWER_MS_MAX + LATE_MS);
      proxy.reset();
      proxy.resume();
      const next = await near.exclusive();
      // Where the session has ended with its connection, nobody heard of the release.
      expect(next.abandoned?.token).toBe(sessionsBreak ? guard.token : undefined);
      await next.release();
    });

    test(
      `lets a lease run out: its hold is lost before the next grant, ${LEASES} times of ${LEASES}`,
      async () => {
        for (let done = 0; done < LEASES; done += AT_A_TIME) {
          const these = Array.from({ length: Math.min(AT_A_TIME, LEASES - done) }, (_, i) => done + i);
          await Promise.all(these.map((number) => runOut(`lease ${number}`)));
        }
      },
      30_000 + LEASES * 4000,
    );

    /** One clock for all processes tells which came first. */
    async function runOut(name: string): Promise<void> {
      const options = { ttl: 2 * ttlMs };
      const stalled = await fixture.proxy();
      const holder = await fixture.child(options, fixture.through(stalled));
      const waiter = await fixture.child(options);
      await holder.hold(name);
      await holder.run(NOTE_CERTAINTY, name);
      stalled.stall();
      const granted = waiter.run<string>(
        'guards.set(args, await lock(args).exclusive()); return String(process.hrtime.bigint())',
        name,
      );
      const certain = await holder.run<string>('return certain');
      expect(BigInt(certain)).toBeLessThan(BigInt(await granted));
      await waiter.run('await space.close()');
      await Promise.all([holder.kill(), waiter.kill()]);
      await stalled.stop();
    }
  });
}
