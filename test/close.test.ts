// close() gives a handle back: its waits end, its guards do not, and other handles of the name know nothing of it.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { expectIdle, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';

const CLOSED = withCode('ERR_LOCK_CLOSED');

/** Two handles of one name. */
function handles() {
  const namespace = testNamespace();
  return [new SharedLock(name, { namespace }), new SharedLock(name, { namespace })] as const;
}

test('every method of a closed handle says so', async () => {
  const [lock, other] = handles();
  lock.close();
  for (const options of [{}, { timeout: 0 }]) {
    for (const call of [
      () => lock.shared(options),
      () => lock.exclusive(options),
      () => lock.acquire(options),
    ])
      await expect(call()).rejects.toEqual(CLOSED);
    for (const call of [() => lock.sharedSync(options), () => lock.exclusiveSync(options)])
      expect(call).toThrow(CLOSED);
    expect(() => lock.acquireSync(options)).toThrow(CLOSED);
  }
  const never = () => {
    throw new Error('called');
  };
  await expect(lock.exclusive(never)).rejects.toEqual(CLOSED);
  expect(() => lock.exclusiveSync(never)).toThrow(CLOSED);
  expect(() => lock.tryShared()).toThrow(CLOSED);
  expect(() => lock.tryExclusive()).toThrow(CLOSED);
  expect(() => lock.tryAcquire()).toThrow(CLOSED);
  expect(() => lock.query()).toThrow(CLOSED);
  expectIdle(other);
});

test('it may be closed as often as you like, by either name', () => {
  const [lock, other] = handles();
  lock.close();
  lock.close();
  lock[Symbol.dispose]();
  {
    using third = new SharedLock(name, { namespace: lock.namespace });
    third.exclusiveSync().release();
  }
  expectIdle(other);
});

test('pending acquires of the handle reject, and leave the queue; those of another handle stay', async () => {
  const [lock, other] = handles();
  const guard = await other.exclusive();
  const waits = [lock.shared(), lock.exclusive(), lock.exclusive(() => 'called')];
  const staying = other.shared();
  expect(other.query().pending).toHaveLength(4);
  lock.close();
  for (const wait of waits) await expect(wait).rejects.toEqual(CLOSED);
  expect(other.query().pending).toHaveLength(1);
  guard.release();
  (await staying).release();
  expectIdle(other);
});

test('open guards stay valid until they are released', async () => {
  const [lock, other] = handles();
  const guard = await lock.exclusive();
  lock.close();
  expect(guard.released).toBe(false);
  expect(guard.token).toBeGreaterThan(0n);
  expect(other.tryShared()).toBeNull();
  guard.downgrade();
  other.tryShared()!.release();
  expect(other.tryExclusive()).toBeNull();
  guard.release();
  expect(guard.released).toBe(true);
  expectIdle(other);
});

test('a callback whose handle is closed goes on, and releases', async () => {
  const [lock, other] = handles();
  await lock.exclusive(async () => {
    lock.close();
    await new Promise(setImmediate);
    expect(other.query().held).toHaveLength(1);
  });
  lock.close();
  expectIdle(other);
});

test('a guard of a handle that was closed long ago, with many opened and closed since, is still its own', async () => {
  const [lock, other] = handles();
  const guard = await lock.exclusive();
  lock.close();
  for (let i = 0; i < 200; i++) {
    using handle = new SharedLock(i % 2 ? name : `other ${i}`, { namespace: lock.namespace });
    const found = handle.tryShared();
    expect(found === null).toBe(i % 2 === 1);
    found?.release();
  }
  guard.release();
  expectIdle(other);
});

describe.each(ACTOR_KINDS)('a %s actor', (kind) => {
  test('that closes while it waits is told, and those behind it are granted', async () => {
    const namespace = testNamespace();
    const actor = await startActor(kind, { namespace });
    const lock = new SharedLock(name, { namespace });
    const own = await lock.shared();
    const written = await actor.queue({ name, mode: 'exclusive', handle: 'closing' });
    const behind = lock.shared();
    await actor.call('close', { name, handle: 'closing' });
    await expect(written.promise).rejects.toMatchObject({ code: 'ERR_LOCK_CLOSED' });
    (await behind).release();
    expect(lock.query()).toEqual(state(['shared'], []));
    own.release();
    expectIdle(lock);
  });
});
