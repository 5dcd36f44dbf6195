// Long queues, thefts, and questions that cross a grant.
import { setTimeout as sleep } from 'node:timers/promises';
import { LockManager } from '../../../lib/remote';
import { latch, until } from '../../support/until';
import type { EngineFixture } from '../fixture';

/** More than etcd robs in one transaction. */
const MANY_READERS = 35;

export function queues(fixture: EngineFixture): void {
  const steal = async (work: () => unknown) => {
    const space = await fixture.space();
    await new LockManager({ space }).request(fixture.name, { steal: true }, work);
  };

  describe('the queue', () => {
    test('of one name with many waits is drained in its order, and each release wakes one', async () => {
      const lock = await fixture.lock();
      const first = await lock.exclusive();
      const order: number[] = [];
      const waits = Array.from({ length: fixture.longQueue }, async (_, index) => {
        const guard = await lock.exclusive();
        order.push(index);
        await guard.release();
      });
      // Seldom, for each answer is long.
      while ((await lock.query()).pending.length < waits.length) await sleep(250);
      const before = await fixture.events?.();
      await first.release();
      await Promise.all(waits);
      expect(order).toEqual(waits.map((_, index) => index));
      if (before !== undefined) expect(await fixture.events!()).toBe(before + waits.length);
      expect(await fixture.traces()).toBe(0);
    }, 120_000);

    test('of two spaces is one', async () => {
      const [one, two] = await fixture.twoLocks();
      const first = await one.exclusive();
      const order: string[] = [];
      const waits: Array<Promise<void>> = [];
      for (let index = 0; index < 40; index++) {
        const mode = index % 3 === 0 ? 'exclusive' : 'shared';
        waits.push(
          (index % 2 === 0 ? one : two)[mode]().then(async (guard) => {
            order.push(`${index} ${guard.token}`);
            await guard.release();
          }),
        );
        await fixture.untilPending(one, index + 1);
      }
      await first.release();
      await Promise.all(waits);
      const tokens = order.map((entry) => BigInt(entry.split(' ')[1]!));
      expect([...tokens].sort((a, b) => Number(a - b))).toEqual(tokens);
    });

    test('is passed over by a thief, of whom all hear that hold it, however many', async () => {
      const lock = await fixture.lock();
      const guards = await Promise.all(Array.from({ length: MANY_READERS }, () => lock.shared()));
      const behind = lock.exclusive();
      await fixture.untilPending(lock, 1);
      const lost = guards.map(
        (guard) => new Promise((resolve) => guard.lost.addEventListener('abort', resolve)),
      );
      // A robbed one may hear of it before the thief does: then the callback has not been called yet.
      const inside = latch();
      const { opened, open: finish } = latch();
      const theft = steal(() => {
        inside.open();
        return opened;
      });
      await Promise.all(lost);
      for (const guard of guards) {
        expect(guard.lost.reason).toMatchObject({
          code: 'ERR_LOCK_LOST',
          cause: { name: 'Theft', message: expect.stringContaining(`pid ${process.pid}`) },
        });
        await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      }
      await inside.opened;
      expect(await lock.query()).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [{}] });
      finish();
      await theft;
      const next = await behind;
      expect(next.abandoned).toBeNull();
      await next.release();
    });

    test('a robbed one that asks before it hears is told why', async () => {
      const [lock, space] = [await fixture.lock(), await fixture.space()];
      for (let round = 0; round < 20; round++) {
        const guard = await lock.exclusive();
        const theft = new LockManager({ space }).request(fixture.name, { steal: true }, () => {});
        const released = await guard.release().then(
          () => 'released',
          (error) => error.cause?.name,
        );
        await theft;
        expect(['released', 'Theft']).toContain(released);
      }
      await until(async () => (await fixture.traces()) === 0);
    });

    test('a downgrade after a theft keeps writers out, and lets readers in', async () => {
      const [one, two] = await fixture.twoLocks();
      const victim = await one.exclusive();
      const writer = one.exclusive();
      await fixture.untilPending(one, 1);
      await steal(async () => {
        // What a request holds has no guard: this is what it does to the queue.
        expect((await two.query()).held).toHaveLength(1);
        expect(await two.tryShared()).toBeNull();
      });
      const stolen = await writer;
      await stolen.downgrade();
      await (await two.shared()).release();
      await stolen.release();
      await victim[Symbol.asyncDispose]();
    });

    test('is left by whoever gives up, whatever crosses that', async () => {
      const [one, two] = await fixture.twoLocks();
      for (let round = 0; round < 60; round++) {
        const guard = await one.exclusive();
        const controller = new AbortController();
        const waiting = two.exclusive({ signal: controller.signal });
        const timed = two.shared({ timeout: round % 10 });
        await sleep(round % 5);
        controller.abort(new Error('given up'));
        await guard.release();
        for (const wait of [waiting, timed]) {
          await wait.then(
            (late) => late.release(),
            (error) => expect(['given up', 'ERR_LOCK_TIMEOUT']).toContain(error.code ?? error.message),
          );
        }
      }
      expect(await one.query()).toEqual({ held: [], pending: [] });
    });

    test('an upgrade that is given up leaves the hold shared, whatever crosses that', async () => {
      const [one, two] = await fixture.twoLocks();
      for (let round = 0; round < 40; round++) {
        const reader = await one.shared();
        const guard = await two.shared();
        const controller = new AbortController();
        const upgrading = guard.upgrade({ signal: controller.signal });
        await sleep(round % 4);
        const released = reader.release();
        controller.abort(new Error('given up'));
        const upgraded = await upgrading.then(
          () => true,
          () => false,
        );
        await released;
        expect((await one.query()).held).toMatchObject([{ mode: upgraded ? 'exclusive' : 'shared' }]);
        await guard.release();
        expect(await one.query()).toEqual({ held: [], pending: [] });
      }
    });
  });
}
