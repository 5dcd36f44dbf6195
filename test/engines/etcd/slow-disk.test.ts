// A member whose disk is slow, or stands still: what is asked takes longer, or fails in time; and what is
// held is kept, or is lost before another one has it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { LATE_MS } from '../fixture';
import { commandOf, describeWith, end, found, hasEnded } from '../programs';
import { Fixture } from './fixture';
import { isThere } from './server';

const strace = found(() => commandOf('strace'), 'strace');

const TTL_MS = 10_000;
const SLOW_MS = 400;
/** A change is answered when it is on the disk, and what was changed before it is in the tables, which takes two writes more. */
const VERY_SLOW_MS = 2000;
/** Longer than any call waits. */
const STILL_MS = 20_000;

describeWith(isThere && strace !== undefined, 'there is no etcd, or no strace, on PATH')('the disk', () => {
  const fixture = new Fixture();
  const tracers: ChildProcess[] = [];

  afterEach(async () => {
    for (const tracer of tracers.splice(0)) await end(tracer, 'SIGINT');
  });

  /** Each write is on the disk so much later. @returns what ends that */
  async function slowDown(ms: number): Promise<() => Promise<void>> {
    const { pid } = fixture.server.members[0]!;
    const calls = 'fsync,fdatasync';
    const args = [
      '-f',
      '-p',
      String(pid),
      '-e',
      `trace=${calls}`,
      '-e',
      `inject=${calls}:delay_enter=${ms * 1000}`,
    ];
    const tracer = spawn(strace as string, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    tracers.push(tracer);
    await once(tracer.stderr!, 'data'); // "Process … attached"
    tracer.stderr!.resume();
    expect(hasEnded(tracer)).toBe(false);
    return () => end(tracer, 'SIGINT');
  }

  test('is slow: nothing is lost', async () => {
    const [one, two] = [await fixture.lock({ ttl: TTL_MS }), await fixture.lock({ ttl: TTL_MS })];
    const guard = await one.exclusive();
    const restore = await slowDown(SLOW_MS);
    const at = performance.now();
    const waiting = two.exclusive();
    await fixture.untilPending(one, 1);
    await guard.release();
    const next = await waiting;
    expect(performance.now() - at).toBeGreaterThan(2 * SLOW_MS);
    expect(next.abandoned).toBeNull();
    await next.release();
    await restore();
  });

  test('is slower than any call may be at first: a lock is acquired all the same', async () => {
    const lock = await fixture.lock({ ttl: 60_000 });
    const restore = await slowDown(VERY_SLOW_MS);
    const guard = await lock.exclusive();
    await restore();
    await guard.release();
  }, 90_000);

  test('stands still: a release rejects within 5 s, and is carried out when that can be', async () => {
    const [one, two] = [await fixture.lock({ ttl: TTL_MS }), await fixture.lock({ ttl: TTL_MS })];
    const guard = await one.exclusive();
    const restore = await slowDown(STILL_MS);
    const at = performance.now();
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    expect(performance.now() - at).toBeLessThan(5000 + LATE_MS);
    await restore();
    const next = await two.exclusive();
    expect(next.abandoned).toBeNull();
    await next.release();
  }, 60_000);

  test('stands still: calls fail in time, and what is held is kept, or is lost before another one has it', async () => {
    const [one, two] = [await fixture.lock({ ttl: TTL_MS }), await fixture.lock({ ttl: TTL_MS })];
    const guard = await one.exclusive();
    let granted = false;
    const waiting = two.exclusive().then((next) => {
      granted = true;
      return next;
    });
    await fixture.untilPending(one, 1);
    const restore = await slowDown(STILL_MS);
    await expect(two.exclusive({ timeout: 1000 })).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    await sleep(TTL_MS / 2);
    await restore();
    if (!guard.lost.aborted) {
      expect(granted).toBe(false);
      await guard.release();
    }
    const next = await waiting;
    expect(next.abandoned !== null).toBe(guard.lost.aborted);
    expect(next.token).toBeGreaterThan(guard.token);
    await next.release();
  }, 60_000);
});
