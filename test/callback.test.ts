// With a function the lock is held from before its call until what it returned has settled.
import { type LockGuard, SharedLock } from '../lib';
import { startActor } from './support/actor';
import { expectIdle, freshLock, MODES, name } from './support/locks';
import { testNamespace } from './support/namespace';

describe.each(MODES)('%s', (mode) => {
  const forms = {
    method: (lock: SharedLock, fn: (guard: LockGuard) => unknown) => lock[mode](fn),
    'method with options': (lock: SharedLock, fn: (guard: LockGuard) => unknown) =>
      lock[mode]({ timeout: 1000 }, fn),
    acquire: (lock: SharedLock, fn: (guard: LockGuard) => unknown) =>
      lock.acquire({ exclusive: mode === 'exclusive' }, fn),
    sync: async (lock: SharedLock, fn: (guard: LockGuard) => unknown) => lock[`${mode}Sync`](fn),
    'sync with options': async (lock: SharedLock, fn: (guard: LockGuard) => unknown) =>
      lock[`${mode}Sync`]({ timeout: 1000 }, fn),
    acquireSync: async (lock: SharedLock, fn: (guard: LockGuard) => unknown) =>
      lock.acquireSync({ exclusive: mode === 'exclusive' }, fn),
  };

  describe.each(Object.entries(forms))('%s', (form, call) => {
    test('holds during the call, returns what the function returns, and releases', async () => {
      const lock = freshLock();
      let seen: LockGuard | undefined;
      const result = await call(lock, (guard) => {
        seen = guard;
        expect(guard.lock).toBe(lock);
        expect(guard).toMatchObject({ mode, released: false, abandoned: null });
        expect(lock.query()).toMatchObject({ held: [{ mode }], pending: [] });
        return 'result';
      });
      expect(result).toBe('result');
      expect(seen!.released).toBe(true);
      expectIdle(lock);
    });

    test('releases when the function throws', async () => {
      const lock = freshLock();
      const error = new Error('of the function');
      const thrown = call(lock, () => {
        throw error;
      });
      await expect(thrown).rejects.toBe(error);
      expectIdle(lock);
    });

    test('may be released early, inside', async () => {
      const lock = freshLock();
      await call(lock, (guard) => {
        guard.release();
        expectIdle(lock);
        expect(() => guard.release()).toThrow(expect.objectContaining({ code: 'ERR_LOCK_NOT_HELD' }));
      });
      expectIdle(lock);
    });

    if (form.toLowerCase().includes('sync')) return;

    test('holds until the promise has settled', async () => {
      const lock = freshLock();
      for (const outcome of ['resolve', 'reject'] as const) {
        let settle = (_: string) => {};
        const result = call(
          lock,
          () =>
            new Promise((resolve, reject) => {
              settle = outcome === 'resolve' ? resolve : reject;
            }),
        );
        await new Promise(setImmediate);
        expect(lock.query()).toMatchObject({ held: [{ mode }], pending: [] });
        settle('settled');
        await expect(result.catch((reason) => reason)).resolves.toBe('settled');
        expectIdle(lock);
      }
    });

    test('waits for its turn', async () => {
      const lock = freshLock();
      const guard = await lock.exclusive();
      let called = false;
      const result = call(lock, () => {
        called = true;
      });
      await new Promise(setImmediate);
      expect(called).toBe(false);
      guard.release();
      await result;
      expect(called).toBe(true);
      expectIdle(lock);
    });
  });
});

test('an early release inside lets another process in while the function goes on', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const actor = await startActor('fork', { namespace });
  await lock.exclusive(async (guard) => {
    const wait = await actor.queue({ name, mode: 'exclusive' });
    guard.release();
    await wait.promise;
  });
  // The end of the function did not release what the other one holds.
  expect(lock.query()).toMatchObject({ held: [{ pid: actor.pid }], pending: [] });
  await actor.release(name);
});
