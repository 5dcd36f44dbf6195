// Who owns a hold, and what nested acquires of the same owner do: every row of the table, for each kind of owner.
import { type AcquireOptions, type LockGuard, SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { CLASS_NAMES, expectIdle, MODES, makeLock, name, withCode } from './support/locks';
import { testNamespace } from './support/namespace';

type Mode = (typeof MODES)[number];
type Options = AcquireOptions & { exclusive: boolean };

const wants = (mode: Mode, within?: LockGuard): Options => ({
  exclusive: mode === 'exclusive',
  ...(within && { within }),
});

/** A nested acquire, in all the ways there are. They start in the turn in which they are called. */
const syncWays = {
  acquireSync: async (lock: SharedLock, options: Options) => lock.acquireSync(options).release(),
  'acquireSync(fn)': async (lock: SharedLock, options: Options) => lock.acquireSync(options, () => {}),
};
const allWays = {
  ...syncWays,
  acquire: async (lock: SharedLock, options: Options) => (await lock.acquire(options)).release(),
  'acquire(fn)': async (lock: SharedLock, options: Options) => lock.acquire(options, () => {}),
};

type Nested = (within?: LockGuard) => Promise<void>;

/** Holds the lock and calls `nested` as its owner. */
const owners = {
  'a thread, by a sync guard': {
    ways: syncWays,
    async hold(lock: SharedLock, mode: Mode, nested: Nested) {
      using _guard = lock.acquireSync(wants(mode));
      await nested();
    },
  },
  'a sync callback': {
    ways: allWays,
    hold: (lock: SharedLock, mode: Mode, nested: Nested) => lock.acquireSync(wants(mode), () => nested()),
  },
  'an async callback': {
    ways: allWays,
    hold: (lock: SharedLock, mode: Mode, nested: Nested) => lock.acquire(wants(mode), () => nested()),
  },
  'an async callback, turns later': {
    ways: allWays,
    hold: (lock: SharedLock, mode: Mode, nested: Nested) =>
      lock.acquire(wants(mode), async () => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        await new Promise((resolve) => process.nextTick(resolve));
        await nested();
      }),
  },
  'the guard of an async acquire (within)': {
    ways: allWays,
    async hold(lock: SharedLock, mode: Mode, nested: Nested) {
      using guard = await lock.acquire(wants(mode));
      await nested(guard);
    },
  },
  'the guard of a sync acquire (within)': {
    ways: allWays,
    async hold(lock: SharedLock, mode: Mode, nested: Nested) {
      using guard = lock.acquireSync(wants(mode));
      await nested(guard);
    },
  },
  'the guard of a callback (within)': {
    ways: allWays,
    hold: (lock: SharedLock, mode: Mode, nested: Nested) =>
      lock.acquire(wants(mode), (guard) => nested(guard)),
  },
};

function expected(className: string, held: Mode, wanted: Mode): string | undefined {
  if (held === 'shared' && wanted === 'exclusive') return 'ERR_LOCK_UPGRADE';
  return className.includes('RLock') ? undefined : 'ERR_LOCK_NOT_REENTRANT';
}

const rows = CLASS_NAMES.flatMap((className) => {
  const modes: readonly Mode[] = className.startsWith('Shared') ? MODES : ['exclusive'];
  return modes.flatMap((held) =>
    modes.map((wanted) => ({ className, held, wanted, outcome: expected(className, held, wanted) })),
  );
});

describe.each(rows)(
  '$className: $held held, $wanted wanted: $outcome',
  ({ className, held, wanted, outcome }) => {
    describe.each(Object.entries(owners))('by %s', (_, owner) => {
      test.each(Object.entries(owner.ways))('%s', async (_, way) => {
        const lock = makeLock(className);
        await owner.hold(lock, held, async (within) => {
          const nested = way(lock, wants(wanted, within));
          if (outcome === undefined) await nested;
          else await expect(nested).rejects.toEqual(withCode(outcome));
          if (owner !== owners['a sync callback'])
            expect(lock.query()).toMatchObject({ held: [{ mode: held }], pending: [] });
        });
        expectIdle(lock);
      });
    });
  },
);

test('the upgrade is refused in so many words', async () => {
  const lock = makeLock('SharedLock');
  const text = 'Cannot upgrade a shared lock to an exclusive lock';
  await expect(lock.shared(() => lock.exclusive())).rejects.toThrow(text);
  expectIdle(lock);
});

describe('a reentrant hold', () => {
  test('is shown once, and lasts until the last guard is released, in whichever order', async () => {
    const lock = makeLock('SharedRLock');
    const other = makeLock('SharedLock', lock.namespace);
    const outer = await lock.exclusive();
    const inner = [await lock.shared({ within: outer }), lock.exclusiveSync({ within: outer })];
    for (const guard of [outer, ...inner]) {
      expect(lock.query()).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [] });
      expect(other.tryShared()).toBeNull();
      guard.release();
    }
    expectIdle(lock);
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

  test('is granted ahead of a waiting writer, who could only wait for it', async () => {
    const namespace = testNamespace();
    const writer = await startActor('fork', { namespace });
    const lock = makeLock('SharedRLock', namespace);
    await lock.shared(async (guard) => {
      const written = await writer.queue({ name, mode: 'exclusive', fair: true });
      for (const way of Object.values(allWays)) {
        await way(lock, { exclusive: false, timeout: 0 });
        await way(lock, { exclusive: false, timeout: 0, within: guard });
      }
      expect(written.settled).toBe(false);
    });
    await writer.call('ping');
  });

  test('Promise.all of nested acquires: all are granted, the lock is released once', async () => {
    const lock = makeLock('RLock');
    const done = await lock.acquire(() =>
      Promise.all(
        [1, 2, 3].map((i) =>
          lock.acquire(async () => {
            await new Promise(setImmediate);
            expect(lock.query().held).toHaveLength(1);
            return i;
          }),
        ),
      ),
    );
    expect(done).toEqual([1, 2, 3]);
    expectIdle(lock);
  });

  test('a nested guard that outlives the callback keeps the lock, but not the callback’s context as its owner', async () => {
    const lock = makeLock('RLock');
    let go = () => {};
    const gone = new Promise<void>((resolve) => (go = resolve));
    let detached: Promise<LockGuard> | undefined;
    const kept = await lock.acquire(() => {
      detached = gone.then(() => lock.acquire({ timeout: 0 }));
      return lock.acquire();
    });
    expect(lock.query().held).toHaveLength(1);
    go();
    await expect(detached).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    kept.release();
    expectIdle(lock);
  });
});

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

describe.each(['SharedLock', 'SharedRLock', 'RLock'] as const)('%s: different owners', (className) => {
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

describe('a sync wait that only this thread could end', () => {
  const DEADLOCK = withCode('ERR_LOCK_WOULD_DEADLOCK');

  test.each([
    { held: 'exclusive', wanted: 'exclusive' },
    { held: 'exclusive', wanted: 'shared' },
    { held: 'shared', wanted: 'exclusive' },
  ] as const)('$held held by an async guard, $wanted wanted: fails at once', async ({ held, wanted }) => {
    for (const className of ['SharedLock', 'SharedRLock'] as const) {
      const lock = makeLock(className);
      using _guard = await lock[held]();
      for (const options of [{}, { timeout: 1000 }]) {
        expect(() => lock[`${wanted}Sync`](options)).toThrow(DEADLOCK);
        expect(() => lock[`${wanted}Sync`](options, () => 'called')).toThrow(DEADLOCK);
        // Another handle of the name is the same lock.
        const handle = makeLock(className, lock.namespace);
        expect(() => handle[`${wanted}Sync`](options)).toThrow(DEADLOCK);
      }
      expect(lock.query()).toMatchObject({ held: [{ mode: held }], pending: [] });
    }
  });

  test('shared beside shared is granted', async () => {
    const lock = makeLock('SharedLock');
    using _guard = await lock.shared();
    lock.sharedSync().release();
    expect(lock.query().held).toHaveLength(1);
  });

  test('held by a callback that runs beside: fails at once', async () => {
    const lock = makeLock('RLock');
    let end = () => {};
    const held = lock.acquire(() => new Promise<void>((resolve) => (end = resolve)));
    expect(() => lock.acquireSync()).toThrow(DEADLOCK);
    end();
    await held;
    expectIdle(lock);
  });

  test.each(['fork', 'thread'] as const)('held by a %s actor: waits, and gets it', async (kind) => {
    const namespace = testNamespace();
    const actor: Actor = await startActor(kind, { namespace });
    const lock = makeLock('SharedLock', namespace);
    await actor.acquire({ name, mode: 'exclusive' });
    actor.begin('run', {
      source: `while (lock({ name: '${name}' }).query().pending.length === 0) await new Promise(setImmediate);
        guards.get('${name}').release();`,
    });
    lock.exclusiveSync({ timeout: 10_000 }).release();
    expectIdle(lock);
  });
});
