// try* takes the lock or says null; it neither waits nor throws because the lock is taken, by whomever.
import { Lock, SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { CLASS_NAMES, expectIdle, freshLock, MODES, makeLock, name } from './support/locks';
import { testNamespace } from './support/namespace';

describe.each(ACTOR_KINDS)('a lock that a %s actor holds', (kind) => {
  test.each(MODES)('%s: is refused where it conflicts, and granted where it does not', async (mode) => {
    const namespace = testNamespace();
    const actor = await startActor(kind, { namespace });
    await actor.acquire({ name, mode });
    for (const fair of [false, true]) {
      const lock = new SharedLock(name, { namespace, fair });
      expect(lock.tryExclusive()).toBeNull();
      expect(lock.tryAcquire({ exclusive: true })).toBeNull();
      for (const tryIt of [() => lock.tryShared(), () => lock.tryAcquire()]) {
        const guard = tryIt();
        expect(guard === null).toBe(mode === 'exclusive');
        guard?.release();
      }
      expect(lock.query()).toMatchObject({ held: [{ mode }], pending: [] });
    }
    expect(new Lock(name, { namespace }).tryAcquire()).toBeNull();
    await actor.release(name);
  });
});

test.each(CLASS_NAMES)(
  '%s: a lock that this thread or a callback holds is null, or re-entered',
  async (className) => {
    const lock = makeLock(className);
    const reentrant = className.includes('RLock');
    const exclusive = true;
    const tryIt = () => {
      const guard = lock.tryAcquire({ exclusive });
      guard?.release();
      return guard !== null;
    };

    const sync = lock.acquireSync({ exclusive });
    expect(tryIt()).toBe(reentrant);
    sync.release();
    const async = await lock.acquire({ exclusive });
    expect(tryIt()).toBe(false);
    async.release();
    await lock.acquire({ exclusive }, async () => {
      expect(tryIt()).toBe(reentrant);
      await null;
      expect(tryIt()).toBe(reentrant);
    });
    expectIdle(lock);
  },
);

test('the mode is the one that was asked for; an upgrade of an own shared hold is null', () => {
  const lock = freshLock();
  const held = lock.tryShared()!;
  expect(held.mode).toBe('shared');
  expect(lock.tryExclusive()).toBeNull();
  expect(lock.query().held).toHaveLength(1);
  held.release();
  const alone = lock.tryExclusive()!;
  expect(alone.mode).toBe('exclusive');
  expect(lock.tryShared()).toBeNull();
  alone.release();
  expectIdle(lock);
});
