// A reentrant hold is one hold, however often its owner acquires it again: it is shown once, lasts until the last of its
// guards is released, and never waits for those who wait for it.
import { type LockGuard, RLock, SharedRLock } from '../lib';
import { startActor } from './support/actor';
import { expectIdle, makeLock, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { latch } from './support/until';

const NOT_HELD = withCode('ERR_LOCK_NOT_HELD');
const EXCLUSIVE = { exclusive: true };
const REENTRANT = ['SharedRLock', 'RLock'] as const;

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, i) =>
    permutations(items.filter((_, j) => j !== i)).map((others) => [item, ...others]),
  );
}

describe('a reentrant hold', () => {
  describe.each([
    { className: 'RLock', held: 'exclusive', wanted: 'exclusive' },
    { className: 'SharedRLock', held: 'exclusive', wanted: 'exclusive' },
    { className: 'SharedRLock', held: 'exclusive', wanted: 'shared' },
    { className: 'SharedRLock', held: 'shared', wanted: 'shared' },
  ] as const)('of $className, $held, with $wanted inside', ({ className, held, wanted }) => {
    const outerOptions = { exclusive: held === 'exclusive' };
    const options = { exclusive: wanted === 'exclusive' };

    test.each(permutations(['outer', 'awaited', 'sync', 'try'] as const))(
      'is shown once, and lasts until the last guard is released: %s, %s, %s, %s',
      async (...order) => {
        const lock = makeLock(className);
        const other = makeLock('SharedLock', lock.namespace);
        const outer = lock.acquireSync(outerOptions);
        const guards = {
          outer,
          awaited: await lock.acquire({ ...options, within: outer }),
          sync: lock.acquireSync(options),
          try: lock.tryAcquire(options)!,
        };
        const before = lock.query();
        expect(before).toEqual(state([held], []));
        for (const which of order) {
          expect(lock.query()).toEqual(before);
          expect(other.tryExclusive()).toBeNull();
          guards[which].release();
          // Released once too often: the count stays right.
          expect(() => guards[which].release()).toThrow(NOT_HELD);
          expect(() => guards[which].release()).toThrow('lock released too many times');
        }
        expectIdle(lock);
      },
    );

    test('counts the nested acquires that it makes at the same time, in whatever way they are made', async () => {
      const lock = makeLock(className);
      let before: unknown;
      const look = () => expect(lock.query()).toEqual(before);
      const { opened, open } = latch();
      const last = lock.acquire(outerOptions, async () => {
        before = lock.query();
        expect(before).toEqual(state([held], []));
        await Promise.all([
          lock.acquire(options).then((guard) => guard.release()),
          lock.acquire(options, () => lock.acquire(options, () => new Promise(setImmediate)).then(look)),
          lock.acquire(options, look),
          Promise.resolve(lock.acquireSync(options)).then((guard) => guard.release()),
          lock.acquireSync(options, async () => look()),
          Promise.resolve(lock.tryAcquire(options)!).then((guard) => guard.release()),
        ]);
        look();
        return { nested: lock.acquire(options, () => opened) };
      });
      // The outermost has ended, a nested one has not.
      const { nested } = await last;
      look();
      open();
      await nested;
      expectIdle(lock);
    });
  });

  test('gets no token of its own, and is not downgraded under nested guards', async () => {
    const lock = makeLock('RLock');
    const outer = await lock.acquire();
    const inner = await lock.acquire({ within: outer });
    expect(inner.token).toBe(outer.token);
    expect(() => outer.downgrade()).toThrow(withCode('ERR_LOCK_NOT_REENTRANT'));
    inner.release();
    outer.downgrade();
    outer.release();
    expectIdle(lock);
  });

  test.each(REENTRANT)(
    'a nested guard of a %s that outlives the callback keeps the lock, but not the callback’s context as its owner',
    async (className) => {
      const lock = makeLock(className);
      const { opened, open } = latch();
      let detached: Promise<LockGuard> | undefined;
      const kept = await lock.acquire(EXCLUSIVE, () => {
        detached = opened.then(() => lock.acquire({ timeout: 0 }));
        return lock.acquire();
      });
      expect(lock.query()).toEqual(state(['exclusive'], []));
      open();
      await expect(detached).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
      kept.release();
      expectIdle(lock);
    },
  );

  test.each(REENTRANT)(
    'what a nested callback of a %s left behind is still inside the outer one',
    async (className) => {
      const lock = makeLock(className);
      const { opened, open } = latch();
      await lock.acquire(EXCLUSIVE, async () => {
        let detached: Promise<LockGuard> | undefined;
        await lock.acquire(EXCLUSIVE, () => {
          detached = opened.then(() => lock.acquire({ ...EXCLUSIVE, timeout: 0 }));
        });
        open();
        (await detached!).release();
        expect(lock.query()).toEqual(state(['exclusive'], []));
      });
      expectIdle(lock);
    },
  );

  describe.each(['fork', 'thread'] as const)('on a fair lock for which a %s actor waits', (kind) => {
    test.each([
      { className: 'SharedRLock', held: 'shared', wanted: 'shared' },
      { className: 'SharedRLock', held: 'exclusive', wanted: 'shared' },
      { className: 'SharedRLock', held: 'exclusive', wanted: 'exclusive' },
      { className: 'RLock', held: 'exclusive', wanted: 'exclusive' },
    ] as const)(
      '$className: $wanted in $held is granted ahead of the writer, who could only wait for it',
      async ({ className, held, wanted }) => {
        const namespace = testNamespace();
        const writer = await startActor(kind, { namespace });
        const lock = new { SharedRLock, RLock }[className](name, { namespace, fair: true }) as SharedRLock;
        const options = { exclusive: wanted === 'exclusive' };

        /** Waits no second for any of these: then the lock would never be given to anybody again. */
        const reenter = async (naming: { within?: LockGuard } = {}) => {
          const written = await writer.queue({ name, mode: 'exclusive', fair: true });
          const before = lock.query();
          expect(before).toEqual(state([held], ['exclusive']));
          const nested = { ...options, ...naming, timeout: 1000 };
          (await lock.acquire(nested)).release();
          await lock.acquire(nested, () => lock.acquire(nested, () => {}));
          lock.acquireSync(nested).release();
          lock.acquireSync(nested, () => lock.acquireSync(nested, () => {}));
          expect(lock.query()).toEqual(before);
          expect(written.settled).toBe(false);
          return written;
        };

        const outer = { exclusive: held === 'exclusive' };
        const inCallback = await lock.acquire(outer, async () => [await reenter()]);
        await inCallback[0]!.promise;
        await writer.release(name);

        const guard = await lock.acquire(outer);
        const byName = await reenter({ within: guard });
        guard.release();
        await byName.promise;
        await writer.release(name);

        const sync = lock.acquireSync(outer);
        const byThread = await writer.queue({ name, mode: 'exclusive', fair: true });
        lock.acquireSync(options).release();
        lock.acquireSync({ ...options, timeout: 1000 }, () => {});
        lock.tryAcquire(options)!.release();
        expect(lock.query()).toEqual(state([held], ['exclusive']));
        sync.release();
        await byThread.promise;
        await writer.release(name);
        expectIdle(lock);
      },
    );
  });
});
