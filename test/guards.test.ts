// What a guard promises: released once, disposed as often as you like, downgraded without a gap, numbered for ever.
import { LockManager, SharedLock, SharedRLock } from '../lib';
import { ACTOR_KINDS, type Actor, startActor, startActors } from './support/actor';
import { as, expectIdle, freshLock, MODES, name, who, withCode } from './support/locks';
import { testNamespace, until } from './support/namespace';

const NOT_HELD = withCode('ERR_LOCK_NOT_HELD');

describe.each(MODES)('a %s guard', (mode) => {
  const ways = {
    async: (lock: SharedLock) => lock[mode](),
    sync: async (lock: SharedLock) => lock[`${mode}Sync`](),
    try: async (lock: SharedLock) => lock.tryAcquire({ exclusive: mode === 'exclusive' })!,
  };

  describe.each(Object.entries(ways))('acquired %s', (_, acquire) => {
    test('knows its lock and mode, and whether it was released; a second release throws', async () => {
      const lock = freshLock();
      const guard = await acquire(lock);
      expect(guard.lock).toBe(lock);
      expect(guard).toMatchObject({ mode, released: false, abandoned: null });
      guard.release();
      expect(guard.released).toBe(true);
      expect(() => guard.release()).toThrow(NOT_HELD);
      expect(() => guard.downgrade()).toThrow(NOT_HELD);
      expectIdle(lock);
    });

    test('a second release takes nothing from whoever holds it now', async () => {
      const lock = freshLock();
      const first = await acquire(lock);
      first.release();
      const second = await acquire(lock);
      expect(() => first.release()).toThrow(NOT_HELD);
      first[Symbol.dispose]();
      await first[Symbol.asyncDispose]();
      expect(second.released).toBe(false);
      expect(lock.query().held).toHaveLength(1);
      second.release();
      expectIdle(lock);
    });

    test('is disposed as often as you like, also after a release', async () => {
      const lock = freshLock();
      for (const released of [false, true]) {
        const guard = await acquire(lock);
        if (released) guard.release();
        guard[Symbol.dispose]();
        expect(guard.released).toBe(true);
        guard[Symbol.dispose]();
        expect(await guard[Symbol.asyncDispose]()).toBeUndefined();
        expectIdle(lock);
        const other = await acquire(lock);
        await other[Symbol.asyncDispose]();
        await other[Symbol.asyncDispose]();
        other[Symbol.dispose]();
        expectIdle(lock);
      }
    });
  });
});

test('`using` and `await using` release at the end of the block, and when it throws', async () => {
  const lock = freshLock();
  {
    using _guard = lock.exclusiveSync();
    expect(lock.query().held).toHaveLength(1);
  }
  expectIdle(lock);
  {
    await using _guard = await lock.exclusive();
    expect(lock.query().held).toHaveLength(1);
  }
  expectIdle(lock);
  const failing = async () => {
    using _guard = await lock.exclusive();
    throw new Error('in the block');
  };
  await expect(failing()).rejects.toThrow('in the block');
  expectIdle(lock);
});

test('the end of a block is silent about a lock that was stolen meanwhile, and leaves it to the thief', async () => {
  const lock = freshLock();
  const manager = new LockManager(lock);
  const steal = () =>
    new Promise<() => void>((stolen) => {
      void manager.request(lock.name, { steal: true }, () => new Promise<void>((end) => stolen(end)));
    });
  let endTheft: () => void;
  {
    using _guard = await lock.exclusive();
    endTheft = await steal();
  }
  expect(lock.query().held).toHaveLength(1);
  endTheft();
  {
    await using _guard = await lock.exclusive();
    endTheft = await steal();
  }
  expect(lock.query().held).toHaveLength(1);
  endTheft();
  await until(() => lock.query().held.length === 0);
});

describe('downgrade', () => {
  test('lets waiting readers in, and no writer', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    const [holder, ...readers] = (await startActors(['fork', ...ACTOR_KINDS], { namespace })) as [
      Actor,
      ...Actor[],
    ];
    await holder.acquire({ name, mode: 'exclusive' });
    const reads = await Promise.all(readers.map((reader) => reader.queue({ name })));
    await holder.call('downgrade', { guard: name });
    await Promise.all(reads.map((read) => read.promise));
    const labels = [holder, ...readers].map((actor) => as(actor, 'shared')).sort();
    expect(who(lock.query().held as never).sort()).toEqual(labels);
    expect(lock.tryExclusive()).toBeNull();
    for (const actor of [holder, ...readers]) await actor.release(name);
    expectIdle(lock);
  });

  test('goes to nobody in between, not even to the writer at the front of a fair queue', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace, fair: true });
    const writers = await startActors(ACTOR_KINDS, { namespace });
    const guard = await lock.exclusive();
    const { token } = guard;
    const writes = [];
    for (const writer of writers) writes.push(await writer.queue({ name, mode: 'exclusive', fair: true }));
    guard.downgrade();
    expect(guard.mode).toBe('shared');
    expect(guard.token).toBe(token);
    for (const writer of writers) await writer.call('ping');
    expect(writes.map(({ settled }) => settled)).toEqual(writes.map(() => false));
    expect(lock.query()).toMatchObject({ held: [{ mode: 'shared', pid: process.pid }] });
    guard.release();
    for (const [i, writer] of writers.entries()) {
      const { token: next } = await writes[i]!.promise;
      expect(BigInt(next)).toBeGreaterThan(token);
      await writer.release(name);
    }
    expectIdle(lock);
  });

  test('against processes that hammer the lock: no exclusive grant comes before the release', async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    const writers = await startActors(['fork', 'fork'], { namespace });
    const runs = writers.map((writer) =>
      writer.run(`const it = lock({ name: '${name}' });
        while (!globalThis.stopped) { await it.exclusive(() => {}); await new Promise(setImmediate); }`),
    );
    for (let round = 0; round < 100; round++) {
      const guard = await lock.exclusive();
      guard.downgrade();
      // A shared guard has the token of the last exclusive grant.
      const reader = lock.tryShared();
      if (reader !== null) expect(reader.token).toBe(guard.token);
      reader?.release();
      expect(lock.query().held.filter(({ mode }) => mode === 'exclusive')).toEqual([]);
      guard.release();
    }
    await Promise.all(writers.map((writer) => writer.run('globalThis.stopped = true')));
    await Promise.all(runs);
    expectIdle(lock);
  });

  test('happens once, and only from exclusive mode', async () => {
    const lock = freshLock();
    const shared = await lock.shared();
    expect(() => shared.downgrade()).toThrow(NOT_HELD);
    shared.release();
    const guard = await lock.exclusive();
    guard.downgrade();
    expect(() => guard.downgrade()).toThrow(NOT_HELD);
    guard.release();
    expect(() => guard.downgrade()).toThrow(NOT_HELD);
    expectIdle(lock);
  });

  test('not as long as guards of nested acquires count on exclusive mode, and the error says so', () => {
    const lock = new SharedRLock(name, { namespace: testNamespace() });
    const outer = lock.exclusiveSync();
    const inner = lock.exclusiveSync();
    for (const guard of [outer, inner]) {
      const refused = expect.objectContaining({
        code: 'ERR_LOCK_NOT_REENTRANT',
        message: expect.stringMatching(/^Cannot downgrade .*nested/),
      });
      expect(() => guard.downgrade()).toThrow(refused);
    }
    inner.release();
    outer.downgrade();
    expect(outer.mode).toBe('shared');
    outer.release();
    expectIdle(lock);
  });
});

describe('the fencing token', () => {
  test('grows with every exclusive grant, in whichever process or thread', async () => {
    const namespace = testNamespace();
    const actors = await startActors([...ACTOR_KINDS, ...ACTOR_KINDS], { namespace });
    const lock = new SharedLock(name, { namespace });
    let last = 0n;
    for (const actor of actors) {
      for (const command of ['acquire', 'acquireSync', 'tryAcquire'] as const) {
        const { token } = (await actor.call(command, { name, mode: 'exclusive' }))!;
        expect(BigInt(token)).toBeGreaterThan(last);
        last = BigInt(token);
        await actor.release(name);
        const shared = await lock.shared();
        expect(shared.token).toBe(last);
        shared.release();
      }
    }
  });

  test('does not go back when nobody has the lock open any more, nor when its process has ended', async () => {
    const namespace = testNamespace();
    let last = 0n;
    for (let round = 0; round < 3; round++) {
      const actor = await startActor('fork', { namespace });
      for (let i = 0; i < 3; i++) {
        const { token } = await actor.acquire({ name, mode: 'exclusive', handle: `${i}` });
        await actor.release(name);
        await actor.call('close', { name, handle: `${i}` });
        expect(BigInt(token)).toBeGreaterThan(last);
        last = BigInt(token);
      }
      expect(await actor.exit(0)).toEqual({ code: 0, signal: null });
    }
  });

  test('does not go back when the entry of the name was used for thousands of others', async () => {
    const namespace = testNamespace();
    const takeToken = (lock: SharedLock) => {
      using handle = lock;
      using guard = handle.exclusiveSync();
      return guard.token;
    };
    const before = takeToken(new SharedLock(name, { namespace }));
    for (let i = 0; i < 3000; i++) new SharedLock(`other ${i}`, { namespace }).close();
    expect(takeToken(new SharedLock(name, { namespace }))).toBeGreaterThan(before);
  });
});
