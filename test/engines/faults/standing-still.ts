// A process that stands still for longer than its lease finds its holds lost before it does anything else.
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../../../lib/remote';
import { Connection } from '../../../lib/remote/connection';
import { SuspendedMachine } from '../../support/suspended';
import { until } from '../../support/until';
import type { EngineFixture } from '../fixture';
import type { Worker } from '../worker';

/** Longer than any question waits for its answer. */
const BLOCKED_MS = 6000;
const DELAY_MS = 200;
const SUSPENDED_TTL_MS = 20_000;
/** So often, at least, a session says that it is there. */
const BEATS_PER_TTL_MIN = 3;
/** The questions are on their way when the event loop stands still, and the next thing that it looks at are timers. */
const ASK_AND_BLOCK = `
  const { name, other, DELAY_MS, BLOCKED_MS } = args;
  const questions = [guards.get(name).release(), space.query(), lock(other).tryExclusive()];
  const { setImmediate, setTimeout } = require('node:timers/promises');
  await setTimeout(DELAY_MS);
  await setImmediate();
  const end = Date.now() + BLOCKED_MS;
  while (Date.now() < end);
  return (await Promise.all(questions))[2];
`;

/** It notes, 20 times a second, whether it believes to hold. */
const WORK = `
  const guard = guards.get(args);
  globalThis.steps = [];
  guard.lost.addEventListener('abort', () => steps.push('lost'));
  const timer = setInterval(() => {
    const at = Date.now(); // before it looks, should it stand still between the two
    const { aborted } = guard.lost; // one look: the next one may see more
    steps.push(aborted ? 'over' : 'working ' + at);
    if (aborted) clearInterval(timer);
  }, 50);
`;

export function standingStill(fixture: EngineFixture): void {
  const ttl = fixture.ttlMs;

  describe('a holder', () => {
    async function stepsAfterGrant(stand: (child: Worker) => Promise<unknown>): Promise<void> {
      const holder = await fixture.child({ ttl });
      const lock = await fixture.lock();
      const token = await holder.hold(lock.name);
      await holder.run(WORK, lock.name);
      const waiting = lock.exclusive();
      await fixture.untilPending(lock, 1);
      const standing = stand(holder);
      const guard = await waiting;
      const grantedAt = Date.now();
      expect(guard.token).toBeGreaterThan(token);
      expect(guard.abandoned).toMatchObject({ pid: holder.pid, token });
      holder.signal('SIGCONT');
      await standing;
      await until(() => holder.run<boolean>("return steps.includes('over')"));
      const steps = await holder.run<string[]>('return steps');
      const late = steps.filter((step) => Number(step.split(' ')[1]) >= grantedAt);
      expect(late).toEqual([]);
      expect(steps).toContain('lost');
      await expect(holder.release(lock.name)).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      await guard.release();
    }

    test('is stopped (SIGSTOP) beyond its lease', async () => {
      await stepsAfterGrant(async (holder) => holder.signal('SIGSTOP'));
    });

    test('blocks its event loop beyond its lease', async () => {
      const block = 'const end = Date.now() + args; while (Date.now() < end);';
      await stepsAfterGrant((holder) => holder.run(block, 4 * ttl));
    });

    test('blocks its event loop while the answers come: they are there in time', async () => {
      const proxy = await fixture.proxy();
      const holder = await fixture.child({ ttl: 60_000 }, fixture.through(proxy));
      const lock = await fixture.lock();
      const { name } = lock;
      await holder.hold(name);
      const other = new SharedLock(`${name} 2`, { space: await fixture.space() });
      const guard = await other.exclusive();
      proxy.delay(DELAY_MS);
      expect(await holder.run(ASK_AND_BLOCK, { name, other: other.name, DELAY_MS, BLOCKED_MS })).toBeNull();
      await guard.release();
      expect((await lock.query()).held).toEqual([]);
    });

    test('is on a machine that is suspended while the proof comes that it holds: that counts', async () => {
      const machine = new SuspendedMachine();
      const proofs = jest.spyOn(Connection.prototype, 'certainFor');
      fixture.atEnd(async () => {
        proofs.mockRestore();
        await machine.restore();
      });
      const proxy = await fixture.proxy();
      const lock = await fixture.lock({ ttl: SUSPENDED_TTL_MS }, fixture.through(proxy));
      const guard = await lock.exclusive();
      let answered = proofs.mock.calls.length;
      await until(() => proofs.mock.calls.length > answered, { within: SUSPENDED_TTL_MS });
      proxy.stall('down');
      await sleep(SUSPENDED_TTL_MS / BEATS_PER_TTL_MIN + 500); // the next beat is on its way
      await machine.suspend(0.3 * SUSPENDED_TTL_MS); // less than what was certain before
      answered = proofs.mock.calls.length;
      proxy.resume();
      await until(() => proofs.mock.calls.length > answered);
      expect(guard.lost.aborted).toBe(false);
      await machine.suspend(0.6 * SUSPENDED_TTL_MS);
      expect(guard.lost.aborted).toBe(true);
      await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    });

    test('blocks its event loop for less: nothing is lost', async () => {
      const lock = await fixture.lock({ ttl: 12_000 });
      const guard = await lock.exclusive();
      const end = Date.now() + 4000;
      while (Date.now() < end);
      expect(guard.lost.aborted).toBe(false);
      await guard.release();
    });
  });
}
