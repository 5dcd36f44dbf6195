// A sync wait that only this thread could end, because it holds the lock itself, fails instead; others are waited for.
import { SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { expectIdle, makeLock, name, OWNER_ROWS, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { latch } from './support/until';

const DEADLOCK = withCode('ERR_LOCK_WOULD_DEADLOCK');
const conflicts = OWNER_ROWS.filter(({ held, wanted }) => held === 'exclusive' || wanted === 'exclusive');

/** Calls `then` while this thread holds the lock, and is not the owner of what its sync calls acquire. */
type Holder = (lock: SharedLock, options: { exclusive: boolean }, then: () => void) => Promise<void>;
const holders: Record<string, Holder> = {
  'the guard of an async acquire': async (lock, options, then) => {
    using _guard = await lock.acquire(options);
    then();
  },
  'a callback that runs beside': async (lock, options, then) => {
    const { opened, open } = latch();
    const held = lock.acquire(options, () => opened);
    then();
    open();
    await held;
  },
  'a guard of another copy of the library': async (lock, options, then) => {
    const copy: typeof import('../lib') = require('../dist');
    expect(copy.SharedLock).not.toBe(SharedLock);
    using handle = new copy.SharedLock(name, { namespace: lock.namespace });
    using _guard = handle.acquireSync(options);
    then();
  },
};

describe.each(conflicts)('$className: $held held, $wanted wanted', ({ className, held, wanted }) => {
  test.each(Object.entries(holders))('held by %s: fails at once', async (_, hold) => {
    const lock = makeLock(className);
    // Another handle of the name is the same lock.
    const handle = makeLock(className, lock.namespace);
    await hold(lock, { exclusive: held === 'exclusive' }, () => {
      const before = lock.query();
      expect(before.held).toContainEqual(expect.objectContaining({ mode: held, pid: process.pid }));
      const exclusive = wanted === 'exclusive';
      for (const options of [{ exclusive }, { exclusive, timeout: 20_000 }]) {
        for (const each of [lock, handle]) {
          expect(() => each.acquireSync(options)).toThrow(DEADLOCK);
          expect(() => each.acquireSync(options, () => 'called')).toThrow(DEADLOCK);
        }
      }
      expect(lock.query()).toEqual(before);
      // Who would not wait is told what it asked.
      expect(() => lock.acquireSync({ exclusive, timeout: 0 })).toThrow(withCode('ERR_LOCK_TIMEOUT'));
      expect(lock.tryAcquire({ exclusive })).toBeNull();
      expect(lock.query()).toEqual(before);
    });
  });
});

test.each(['SharedLock', 'SharedRLock'] as const)(
  '%s: shared behind a fair writer, who waits for this thread: fails at once',
  async (className) => {
    const lock = makeLock(className);
    const writer = await startActor('fork', { namespace: lock.namespace });
    using guard = await lock.shared();
    const written = await writer.queue({ name, mode: 'exclusive', fair: true });
    expect(() => lock.sharedSync()).toThrow(DEADLOCK);
    expect(lock.query()).toEqual(state(['shared'], ['exclusive']));
    guard.release();
    await written.promise;
  },
);

test('although another process holds it as well', async () => {
  const lock = makeLock('SharedLock');
  const actor = await startActor('fork', { namespace: lock.namespace });
  await actor.acquire({ name });
  using guard = await lock.shared();
  expect(() => lock.exclusiveSync()).toThrow(DEADLOCK);
  expect(lock.query()).toEqual(state(['shared', 'shared'], []));
  guard.release();
  expect(() => lock.exclusiveSync({ timeout: 1 })).toThrow(withCode('ERR_LOCK_TIMEOUT'));
});

test('behind an asynchronous wait of this very thread, it does not wait for that one', async () => {
  const namespace = testNamespace();
  const actor = await startActor('fork', { namespace });
  const lock = new SharedLock(name, { namespace, fair: true });
  await actor.acquire({ name, mode: 'exclusive' });
  const wait = lock.exclusive();
  actor.begin('run', {
    source: `while (lock({ name: '${name}' }).query().pending.length < 2) await new Promise(setImmediate);
        guards.get('${name}').release();`,
  });
  lock.exclusiveSync({ timeout: 10_000 }).release();
  (await wait).release();
  expectIdle(lock);
});

test('shared beside shared is granted', async () => {
  const lock = makeLock('SharedLock');
  using _guard = await lock.shared();
  lock.sharedSync().release();
  expect(lock.query().held).toHaveLength(1);
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
