// No answer that is lost, or that comes late, leaves a hold or a wait that nobody knows of. Where a session survives its
// connection, what was asked is asked again over another one, and is done once. Where it ends with it, holds are lost, and
// waits are queued anew.
import { setTimeout as sleep } from 'node:timers/promises';
import { type LockGuard, LockManager, type LockMode, type SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import type { EngineFixture } from '../fixture';
import type { NetworkProxy } from '../proxy';
import { MODES } from '../stage';

/** No lease is to end here. */
const TTL_MS = 10_000;

export function lostAnswers(fixture: EngineFixture): void {
  const { sessionsBreak } = fixture;

  describe('an answer', () => {
    let proxy: NetworkProxy;
    /** Over the proxy. */
    let far: SharedLock;
    let near: SharedLock;

    beforeEach(async () => {
      proxy = await fixture.proxy();
      far = await fixture.lock({ ttl: TTL_MS }, fixture.through(proxy));
      near = await fixture.lock({ ttl: TTL_MS });
    });

    const heldNear = async () => (await near.query()).held;
    const isHeld = async () => (await heldNear()).length === 1;
    const isHeldAs = (mode: LockMode) => async () => (await heldNear())[0]?.mode === mode;
    const isFree = async () => (await heldNear()).length === 0;

    /** Whether newcomers have to wait, though the lock is held shared. */
    async function isBarred(): Promise<boolean> {
      const guard = await near.tryShared();
      await guard?.release();
      return guard === null;
    }

    /** Once the engine has done what was asked, the answer is lost, and the connection with it. */
    async function lose(isDone: () => Promise<boolean>): Promise<void> {
      await until(isDone);
      proxy.reset();
      proxy.resume();
    }

    /** The same for a question that is asked now. */
    async function askInVain<T>(
      ask: () => Promise<T>,
      isDone: () => Promise<boolean>,
    ): Promise<{ asked: Promise<T> }> {
      proxy.stall('down');
      const asked = ask();
      asked.catch(() => {});
      await lose(isDone);
      return { asked };
    }

    /** What is seen nearby. The server may hear of the end of a connection, and so of a session, a little later. */
    async function expectSoon(isSo: () => Promise<boolean>): Promise<void> {
      if (sessionsBreak) await until(isSo);
      else expect(await isSo()).toBe(true);
    }

    async function expectLost(call: Promise<unknown>): Promise<void> {
      await expect(call).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    }

    /** The next holder has a greater token, and finds a mark or none. */
    async function expectNext(guard: LockGuard, isMarked = false): Promise<void> {
      const next = await near.exclusive();
      expect(next.token).toBeGreaterThan(guard.token);
      expect(next.abandoned !== null).toBe(isMarked);
      await next.release();
    }

    async function steal(): Promise<void> {
      const space = await fixture.space();
      await new LockManager({ space }).request(fixture.name, { steal: true }, () => {});
    }

    const isStolenWhen = (isSo: () => Promise<boolean>) => async () => {
      if (!(await isSo())) return false;
      await steal();
      return true;
    };

    async function expectRobbed(guard: LockGuard): Promise<void> {
      await until(() => guard.lost.aborted);
      expect(guard.lost.reason).toMatchObject({ code: 'ERR_LOCK_LOST', cause: { name: 'Theft' } });
      await expectLost(guard.release());
      await until(async () => (await fixture.traces()) === 0);
      await expectNext(guard);
    }

    describe('that is lost', () => {
      test.each(MODES)('to an acquire (%s): there is one hold', async (mode) => {
        const guard = await (await askInVain(() => far[mode](), isHeld)).asked;
        // The session that has ended may have done something with the lock: the engine does not know.
        expect(guard.abandoned !== null).toBe(sessionsBreak && mode === 'exclusive');
        // Until the server hears of that end, the session shares the lock.
        if (mode === 'shared') await expectSoon(isHeld);
        expect(await heldNear()).toHaveLength(1);
        await guard.release();
        expect(await near.query()).toEqual({ held: [], pending: [] });
        await expectNext(guard);
      });

      test('to a try', async () => {
        const guard = await (await askInVain(() => far.tryExclusive(), isHeld)).asked;
        // The lock may still be that of the session that has ended.
        if (!sessionsBreak) expect(guard).not.toBeNull();
        await guard?.release();
        await expectSoon(isFree);
      });

      test.each(MODES)('that a wait has begun (%s): it is one wait', async (mode) => {
        const waits = async () => (await near.query()).pending.length === 1;
        const holder = await near.exclusive();
        const { asked } = await askInVain(() => far[mode](), waits);
        await far.query();
        await expectSoon(waits);
        await holder.release();
        await (await asked).release();
      });

      test.each(MODES)('to the grant of a wait (%s): it has the lock', async (mode) => {
        const holder = await near.exclusive();
        const waiting = far[mode]();
        await fixture.untilPending(near, 1);
        await far.query(); // what it is to be told was asked for before
        proxy.stall('down');
        await holder.release();
        await sleep(100); // the answer to nothing else is to be lost
        await lose(async () => true);
        const guard = await waiting;
        expect(guard.token).toBeGreaterThanOrEqual(holder.token);
        await expectSoon(isHeld);
        expect(await heldNear()).toMatchObject([{ mode }]);
        await guard.release();
        await expectSoon(isFree);
      });

      test('to a release: the lock is free, and nothing is abandoned', async () => {
        const guard = await far.exclusive();
        const { asked } = await askInVain(() => guard.release(), isFree);
        if (sessionsBreak) await expect(asked).rejects.toMatchObject({ name: 'LockError' });
        else await asked;
        await expectNext(guard);
      });

      test('to a downgrade: the hold is shared, or lost without a mark', async () => {
        const guard = await far.exclusive();
        const { asked } = await askInVain(() => guard.downgrade(), isHeldAs('shared'));
        if (sessionsBreak) {
          await expectLost(asked);
          await expectLost(guard.release());
        } else {
          await asked;
          expect(guard.mode).toBe('shared');
          await (await near.shared()).release();
          await guard.release();
        }
        await expectNext(guard);
      });

      test('to an upgrade: the hold is exclusive, or lost with a mark', async () => {
        const guard = await far.shared();
        const { asked } = await askInVain(() => guard.upgrade(), isHeldAs('exclusive'));
        if (sessionsBreak) {
          await expectLost(asked);
          await expectLost(guard.release());
        } else {
          await asked;
          expect(await near.tryShared()).toBeNull();
          await guard.release();
        }
        await expectNext(guard, sessionsBreak);
      });

      test('that an upgrade waits: it has the lock when the others have left, or bars nobody', async () => {
        const reader = await near.shared();
        const guard = await far.shared();
        const { asked } = await askInVain(() => guard.upgrade(), isBarred);
        await far.query();
        if (sessionsBreak) {
          await expectLost(asked);
          await until(async () => !(await isBarred()));
          await reader.release();
        } else {
          await reader.release();
          await asked;
          expect(guard.mode).toBe('exclusive');
          await guard.release();
        }
        await expectSoon(async () => Object.values(await near.query()).flat().length === 0);
      });

      test('to an acquire, and meanwhile a thief comes: it was granted, and is lost; or is granted anew', async () => {
        const guard = await (await askInVain(() => far.exclusive(), isStolenWhen(isHeld))).asked;
        if (!sessionsBreak) return expectRobbed(guard);
        expect(guard.lost.aborted).toBe(false);
        expect(guard.abandoned).toBeNull();
        await guard.release();
        await expectNext(guard);
      });

      test('to a release, and meanwhile a thief comes: it was released', async () => {
        const guard = await far.exclusive();
        const { asked } = await askInVain(() => guard.release(), isStolenWhen(isFree));
        if (sessionsBreak) await expect(asked).rejects.toMatchObject({ name: 'LockError' });
        else await asked;
        await expectNext(guard);
      });

      test('to a withdrawal: the place is gone', async () => {
        const holder = await near.exclusive();
        const controller = new AbortController();
        const waiting = far.exclusive({ signal: controller.signal });
        await fixture.untilPending(near, 1);
        await far.query(); // it has been told that it waits: the withdrawal follows that answer
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

    // So grant and theft come together, before anything is made of the grant.
    describe('that is late, while the lock is stolen', () => {
      test('to an acquire: it was granted, and is lost', async () => {
        proxy.stall('down');
        const acquired = far.exclusive();
        await until(isHeld);
        await steal();
        proxy.resume();
        await expectRobbed(await acquired);
      });

      if (fixture.serverGrants)
        test('to one who was told to wait, and was granted since: it is lost', async () => {
          const guard = await near.exclusive();
          proxy.stall('down');
          const acquired = far.exclusive();
          await fixture.untilPending(near, 1);
          await guard.release();
          await until(isHeld);
          await steal();
          proxy.resume();
          await expectRobbed(await acquired);
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
  });
}
