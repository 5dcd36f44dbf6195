// Who the owner is: what is inside a callback, beside it and after it, in one thread and with several locks. What its nested
// calls are granted is in owner-matrix.test.ts.
import { type LockGuard, SharedLock } from '../lib';
import { startActor } from './support/actor';
import { CLASS_NAMES, expectIdle, makeLock, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { latch } from './support/until';

const EXCLUSIVE = { exclusive: true };

test('Promise.all of nested acquires of a lock that is not reentrant: each is refused, the hold stays', async () => {
  const lock = makeLock('SharedLock');
  await lock.exclusive(async () => {
    const nested = [lock.shared(), lock.exclusive(), lock.exclusive(() => {})];
    for (const outcome of await Promise.allSettled(nested))
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_LOCK_NOT_REENTRANT' } });
    expect(lock.query()).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [] });
  });
  expectIdle(lock);
});

describe.each(CLASS_NAMES)('%s: different owners', (className) => {
  const exclusive = true;

  test('two callbacks at the same time in one thread exclude each other', async () => {
    const lock = makeLock(className);
    let inside = 0;
    const work = async () => {
      expect(++inside).toBe(1);
      await new Promise(setImmediate);
      inside--;
    };
    await Promise.all([1, 2, 3].map(() => lock.acquire({ exclusive }, work)));
    expectIdle(lock);
  });

  test('what runs beside a callback is not inside it', async () => {
    const lock = makeLock(className);
    let end = () => {};
    const held = lock.acquire({ exclusive }, () => new Promise<void>((resolve) => (end = resolve)));
    expect(lock.query().held).toHaveLength(1);
    await expect(lock.acquire({ timeout: 0 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    expect(lock.tryAcquire()).toBeNull();
    end();
    await held;
    expectIdle(lock);
  });

  test('a context that outlives its callback is no owner', async () => {
    const lock = makeLock(className);
    let go = () => {};
    const gone = new Promise<void>((resolve) => (go = resolve));
    let detached: Promise<LockGuard> | undefined;
    let refused: Promise<LockGuard> | undefined;
    await lock.acquire({ exclusive }, () => {
      detached = gone.then(() => lock.acquire({ exclusive, timeout: 0 }));
      refused = detached.then(() => lock.acquire({ exclusive, timeout: 0 }));
    });
    go();
    const guard = await detached!;
    // Neither does the detached context own what it acquired without a callback.
    await expect(refused).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    guard.release();
    expectIdle(lock);
  });

  test('neither is that of a sync callback', async () => {
    const lock = makeLock(className);
    const { opened, open } = latch();
    const detached = lock.acquireSync(EXCLUSIVE, () => ({
      awaited: opened.then(() => lock.acquire({ ...EXCLUSIVE, timeout: 0 })),
    }));
    using _held = await lock.acquire(EXCLUSIVE);
    open();
    await expect(detached.awaited).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    expect(lock.query()).toEqual(state(['exclusive'], []));
  });

  test('a callback that released early owns nothing any more', async () => {
    const lock = makeLock(className);
    await lock.acquire({ exclusive }, async (guard) => {
      guard.release();
      const again = await lock.acquire({ exclusive, timeout: 0 });
      await expect(lock.acquire({ exclusive, timeout: 0 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
      again.release();
    });
    expectIdle(lock);
  });

  test('the guard of an async acquire belongs to nobody but those who name it', async () => {
    const lock = makeLock(className);
    using guard = await lock.acquire({ exclusive });
    await expect(lock.acquire({ exclusive, timeout: 0 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    expect(lock.tryAcquire({ exclusive })).toBeNull();
    guard.release();
    expectIdle(lock);
  });

  test('another thread is another owner', async () => {
    const namespace = testNamespace();
    const lock = makeLock(className, namespace);
    const actor = await startActor('thread', { namespace });
    const guard = lock.acquireSync({ exclusive });
    expect(await actor.call('tryAcquire', { name, class: className, mode: 'exclusive' })).toBeNull();
    const granted = await actor.queue({ name, class: className, mode: 'exclusive' });
    expect(granted.settled).toBe(false);
    guard.release();
    await granted.promise;
  });
});

test.each(['SharedLock', 'SharedRLock'] as const)(
  '%s: two shared callbacks at the same time are two holders, and what is nested in each is its own',
  async (className) => {
    const lock = makeLock(className);
    const latches = [latch(), latch()];
    const nestedIn = async () => {
      await expect(lock.exclusive()).rejects.toEqual(withCode('ERR_LOCK_UPGRADE'));
      const nested = lock.shared({ timeout: 0 });
      if (className === 'SharedRLock') return nested;
      await expect(nested).rejects.toEqual(withCode('ERR_LOCK_NOT_REENTRANT'));
      return undefined;
    };
    const [first, second] = latches.map(({ opened }) =>
      lock.shared(async () => {
        const guard = await nestedIn();
        await opened;
        return guard;
      }),
    );
    await new Promise(setImmediate);
    expect(lock.query()).toEqual(state(['shared', 'shared'], []));
    latches[0]!.open();
    (await first)?.release();
    expect(lock.query()).toEqual(state(['shared'], []));
    latches[1]!.open();
    (await second)?.release();
    expectIdle(lock);
  },
);

describe('owners of several locks', () => {
  const pair = () => {
    const namespace = testNamespace();
    return ['a', 'b'].map((each) => new SharedLock(each, { namespace })) as [SharedLock, SharedLock];
  };
  const REFUSED = withCode('ERR_LOCK_NOT_REENTRANT');

  test('a callback inside a callback owns both locks, and only the outer one after it', async () => {
    const [a, b] = pair();
    await a.exclusive(async () => {
      await b.exclusive(async () => {
        await expect(a.exclusive()).rejects.toEqual(REFUSED);
        await expect(b.exclusive()).rejects.toEqual(REFUSED);
      });
      await expect(a.exclusive()).rejects.toEqual(REFUSED);
      (await b.exclusive({ timeout: 0 })).release();
    });
    [a, b].forEach(expectIdle);
  });

  test('`within` makes one owner of several guards', async () => {
    const [a, b] = pair();
    using first = await a.exclusive();
    using second = await b.exclusive({ within: first });
    for (const within of [first, second]) {
      for (const lock of [a, b]) await expect(lock.exclusive({ within })).rejects.toEqual(REFUSED);
    }
    first.release();
    await expect(b.exclusive({ within: second })).rejects.toEqual(REFUSED);
    (await a.exclusive({ within: second, timeout: 0 })).release();
    second.release();
    [a, b].forEach(expectIdle);
  });

  test('a callback acquired `within` a guard, inside another callback, owns what both own', async () => {
    const [a, b] = pair();
    const c = new SharedLock('c', { namespace: a.namespace });
    await a.exclusive(async () => {
      using guard = await b.exclusive();
      await c.exclusive({ within: guard }, async () => {
        await expect(c.exclusive({ timeout: 0 })).rejects.toEqual(REFUSED);
        await expect(b.exclusive({ timeout: 0 })).rejects.toEqual(REFUSED);
        await expect(a.exclusive({ timeout: 0 })).rejects.toEqual(REFUSED);
      });
      c.exclusiveSync({ within: guard }, () => {
        expect(() => c.exclusiveSync({ timeout: 0 })).toThrow(REFUSED);
        expect(() => b.exclusiveSync({ timeout: 0 })).toThrow(REFUSED);
        expect(() => a.exclusiveSync({ timeout: 0 })).toThrow(REFUSED);
      });
    });
    [a, b, c].forEach(expectIdle);
  });
});
