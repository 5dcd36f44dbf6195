// `guard.upgrade()` in shared memory, beyond what engines have in common: locks that are not fair, threads, Web Locks, a namespace
// that was removed, and what becomes of an upgrade whose guard, handle, thread or event loop comes to its end.
import { rmSync } from 'node:fs';
import { type LockError, type LockGuard, type LockInfo, LockManager, SharedLock } from '../lib';
import { startActor } from './support/actor';
import { expectIdle, freshLock, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { segmentFile } from './support/segment';
import { until } from './support/until';

/** Begins one that has to wait, and is in the queue. */
function begin(guard: LockGuard, options?: { timeout?: number; signal?: AbortSignal }): Promise<void> {
  const upgraded = guard.upgrade(options);
  void upgraded.catch(() => {});
  return upgraded;
}

/** Whether somebody waits to be upgraded. */
function isBarred(lock: SharedLock): boolean {
  const newcomer = lock.tryShared();
  newcomer?.release();
  return newcomer === null;
}

test('a lock that is not fair bars newcomers at once, also those that would overtake', async () => {
  const lock = freshLock();
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const upgraded = begin(guard);
  for (let n = 0; n < 100; n++) expect([lock.tryShared(), lock.tryExclusive()]).toEqual([null, null]);
  expect(lock.query()).toEqual(state(['shared', 'shared'], []));
  other.release();
  await upgraded;
  expect(guard.mode).toBe('exclusive');
  expect(lock.tryShared()).toBeNull();
  guard.release();
  expectIdle(lock);
  lock.close();
});

test.each(['fork', 'thread'] as const)('it waits for a %s, and outlives its own handle', async (kind) => {
  const lock = freshLock();
  const actor = await startActor(kind, { namespace: lock.namespace });
  await actor.acquire({ name, mode: 'shared' });
  const guard = await lock.shared();
  const upgraded = begin(guard);
  lock.close();
  await actor.release(name);
  await upgraded;
  guard.release();
});

test.each(['fork', 'thread'] as const)('the end of a %s that it waits for lets it through', async (kind) => {
  const lock = freshLock();
  const actor = await startActor(kind, { namespace: lock.namespace });
  await actor.acquire({ name, mode: 'shared' });
  const guard = await lock.shared();
  const upgraded = begin(guard);
  if (kind === 'fork') await actor.kill('SIGKILL');
  else await actor.terminate();
  await upgraded;
  expect(guard.abandoned).toBeNull();
  guard.release();
  lock.close();
});

test('the end of a thread that waits to be upgraded bars nobody', async () => {
  const lock = freshLock();
  const guard = await lock.shared();
  const actor = await startActor('thread', { namespace: lock.namespace });
  await actor.acquire({ name, mode: 'shared' });
  const upgrade = actor.begin('upgrade', { guard: name });
  void upgrade.promise.catch(() => {});
  await until(() => isBarred(lock));
  const waiting = lock.shared();
  await actor.terminate();
  (await waiting).release();
  expect(guard.tryUpgrade()).toBe(true);
  expect(guard.abandoned).toBeNull();
  guard.release();
  expectIdle(lock);
  lock.close();
});

test('tryUpgrade looks whether the others are alive', async () => {
  const lock = freshLock();
  const actor = await startActor('fork', { namespace: lock.namespace });
  await actor.acquire({ name, mode: 'shared' });
  const guard = await lock.shared();
  expect(guard.tryUpgrade()).toBe(false);
  await actor.kill('SIGKILL');
  expect(guard.tryUpgrade()).toBe(true);
  guard.release();
  lock.close();
});

test('of the other guards of a thread one is refused, the other one is waited for', async () => {
  const lock = freshLock();
  const guards = [await lock.shared(), await lock.shared(), await lock.shared()] as const;
  const upgraded = begin(guards[0]);
  await expect(guards[1].upgrade()).rejects.toEqual(withCode('ERR_LOCK_UPGRADE'));
  await expect(guards[1].upgrade({ timeout: 0 })).rejects.toEqual(withCode('ERR_LOCK_UPGRADE'));
  expect(guards[1].tryUpgrade()).toBe(false);
  await expect(guards[0].upgrade()).rejects.toEqual(withCode('ERR_LOCK_UPGRADE'));
  guards[1].release();
  guards[2].release();
  await upgraded;
  guards[0].release();
  expectIdle(lock);
  lock.close();
});

test('one that is granted at once, and released before its promise is heard, is over', async () => {
  using lock = freshLock();
  const guard = await lock.shared();
  const upgraded = guard.upgrade();
  guard.release();
  await expect(upgraded).rejects.toEqual(withCode('ERR_LOCK_NOT_HELD'));
  expect(guard.mode).toBe('shared');
  expectIdle(lock);
});

test('one that is granted at once, and downgraded before its promise is heard, leaves a shared guard', async () => {
  using lock = freshLock();
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const upgraded = guard.upgrade();
  other.release();
  expect(guard.tryUpgrade()).toBe(true);
  guard.downgrade();
  await upgraded;
  expect(guard.mode).toBe('shared');
  expect(lock.query()).toEqual(state(['shared'], []));
  guard.release();
  expectIdle(lock);
});

test('Web Locks queue behind it', async () => {
  const lock = freshLock();
  const locks = new LockManager({ namespace: lock.namespace });
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const upgraded = begin(guard);
  const order: string[] = [];
  expect(await locks.request(name, { mode: 'shared', ifAvailable: true }, (it) => it)).toBeNull();
  const requests = [
    locks.request(name, () => order.push('exclusive')),
    locks.request(name, { mode: 'shared' }, () => order.push('shared')),
  ];
  other.release();
  await upgraded;
  expect((await locks.query()).pending).toHaveLength(2);
  order.push('upgraded');
  guard.release();
  await Promise.all(requests);
  expect(order).toEqual(['upgraded', 'exclusive', 'shared']);
  expectIdle(lock);
  lock.close();
});

test('one that is robbed while it waits is told by both: `lost` and the upgrade', async () => {
  const lock = freshLock();
  const locks = new LockManager({ namespace: lock.namespace });
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const { lost } = guard;
  const upgraded = begin(guard);
  await locks.request(name, { steal: true }, async () => {
    await expect(upgraded).rejects.toEqual(withCode('ERR_LOCK_LOST'));
    await until(() => lost.aborted);
  });
  for (const robbed of [guard, other]) expect(() => robbed.release()).toThrow(withCode('ERR_LOCK_LOST'));
  expectIdle(lock);
  lock.close();
});

test('a hold in a namespace that was removed can not be upgraded: it is lost', async () => {
  const lock = freshLock();
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const upgraded = begin(guard);
  rmSync(segmentFile(lock.namespace));
  const lost = expect.objectContaining({
    code: 'ERR_LOCK_LOST',
    cause: withCode('ERR_LOCK_NAMESPACE_REMOVED'),
  });
  await expect(upgraded).rejects.toEqual(lost);
  guard.release();
  await expect(other.upgrade()).rejects.toEqual(lost);
  expect(() => other.tryUpgrade()).toThrow(lost);
  expect(other.mode).toBe('shared');
  other.release();
  lock.close();
});

test('it keeps its process alive, and a guard that was dropped is upgraded before it is missed', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const guard = await lock.shared();
  const actor = await startActor('fork', { namespace, execArgv: ['--expose-gc'] });
  await actor.acquire({ name, mode: 'shared' });
  await actor.run(`guards.get(args.name).upgrade().then(() => { globalThis.upgraded = true; });`, { name });
  await actor.call('forget', { guard: name });
  await until(() => isBarred(lock));
  await actor.run('for (let n = 0; n < 5; n++) { global.gc(); await new Promise(setImmediate); }');
  expect(lock.query()).toEqual(state(['shared', 'shared'], []));
  guard.release();
  await until(() => actor.run<boolean>('return globalThis.upgraded === true'));
  await until(async () => {
    await actor.run('global.gc(); await new Promise(setImmediate);');
    return lock.query().held.length === 0;
  });
  expectIdle(lock);

  const other = await lock.shared();
  await actor.acquire({ name, mode: 'shared' });
  void actor.begin('upgrade', { guard: name }).promise.catch(() => {});
  await until(() => isBarred(lock));
  await actor.call('unref');
  const alive = await startActor('fork', { namespace });
  for (let n = 0; n < 20; n++) await alive.call('ping');
  expect(actor.hasEnded).toBe(false);
  other.release();
  expect(await actor.ended).toEqual({ code: 0, signal: null });
  lock.close();
});

test('a second upgrade by the same guard is refused, and says that there is one already', async () => {
  const lock = freshLock();
  const [guard, other] = [await lock.shared(), await lock.shared()];
  const upgraded = begin(guard);
  await expect(guard.upgrade()).rejects.toMatchObject({
    code: 'ERR_LOCK_UPGRADE',
    message: expect.stringContaining('being upgraded already'),
  });
  other.release();
  await upgraded;
  guard.release();
  lock.close();
});

describe('a circle of waits', () => {
  const pair = () => {
    const namespace = testNamespace();
    return ['one', 'other'].map((lockName) => new SharedLock(lockName, { namespace })) as [
      SharedLock,
      SharedLock,
    ];
  };
  const shownIn = (cycle: LockInfo[] | undefined) => cycle?.map((info) => `${info.name} ${info.mode}`);

  test('goes through an upgrade: who waits for what its owner holds, and holds what it waits for', async () => {
    const [one, other] = pair();
    const upgraded = other.exclusive(async () => {
      const guard = await one.shared();
      await until(() => other.query().pending.length === 1);
      await guard.upgrade();
      guard.release();
    });
    const failed = one.shared(() => other.exclusive({ deadlock: 'throw' }, () => {}));
    const error = (await failed.catch((reason: unknown) => reason)) as LockError;
    expect(error).toMatchObject({ code: 'ERR_LOCK_DEADLOCK' });
    expect(shownIn(error.cycle)).toEqual(['other exclusive', 'one exclusive', 'other exclusive']);
    await upgraded;
    for (const lock of [one, other]) lock.close();
  });

  test('goes through a reader that an upgrade keeps out', async () => {
    const [one, other] = pair();
    const failed = one.shared(async () => {
      await until(() => other.query().held.length === 1);
      await other.exclusive({ deadlock: 'throw' }, () => {});
    });
    const guard = await one.shared();
    const upgraded = guard.upgrade();
    const barred = other.exclusive(() => one.shared(() => {}));
    const error = (await failed.catch((reason: unknown) => reason)) as LockError;
    expect(error).toMatchObject({ code: 'ERR_LOCK_DEADLOCK' });
    expect(shownIn(error.cycle)).toEqual([
      'other exclusive',
      'one shared',
      'one exclusive',
      'other exclusive',
    ]);
    await upgraded;
    guard.release();
    await barred;
    for (const lock of [one, other]) lock.close();
  });
});
