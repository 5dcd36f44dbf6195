// A timeout ends the wait, says who held the lock, and leaves nothing behind.
import { LockError, SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, startActor, startActors } from './support/actor';
import { freshLock, MODES, name, state, untilPending } from './support/locks';
import { testNamespace } from './support/namespace';

const TIMEOUT = 'ERR_LOCK_TIMEOUT';

/** The error of `fn`, thrown or rejected. */
async function failureOf(fn: () => unknown): Promise<LockError> {
  try {
    await fn();
  } catch (error) {
    expect(error).toBeInstanceOf(LockError);
    return error as LockError;
  }
  throw new Error('did not fail');
}

describe.each(ACTOR_KINDS)('while a %s actor holds it', (kind) => {
  let namespace: string;
  let lock: SharedLock;
  let actor: Actor;
  beforeEach(async () => {
    namespace = testNamespace();
    lock = new SharedLock(name, { namespace });
    actor = await startActor(kind, { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
  });

  const ways = {
    async: (timeout: number, exclusive: boolean) => lock.acquire({ timeout, exclusive }),
    sync: (timeout: number, exclusive: boolean) => lock.acquireSync({ timeout, exclusive }),
    callback: (timeout: number, exclusive: boolean) =>
      lock.acquire({ timeout, exclusive }, () => {
        throw new Error('called without the lock');
      }),
  };

  test.each(Object.keys(ways) as Array<keyof typeof ways>)(
    '%s: fails, and nobody is left waiting',
    async (way) => {
      for (const timeout of [0, 30]) {
        for (const mode of MODES) {
          const before = performance.now();
          const error = await failureOf(() => ways[way](timeout, mode === 'exclusive'));
          expect(performance.now() - before).toBeGreaterThanOrEqual(timeout - 1);
          expect(error.code).toBe(TIMEOUT);
          expect(error.message).toContain(`${actor.pid}`);
          expect(error.holders).toEqual(lock.query().held);
          expect(error.holders).toEqual([
            expect.objectContaining({ name, mode: 'exclusive', pid: actor.pid, threadId: actor.threadId }),
          ]);
          expect(lock.query().pending).toEqual([]);
        }
      }
      await actor.release(name);
      (await lock.exclusive()).release();
    },
  );

  test('an actor that waits in vain is told as much, and goes on', async () => {
    const other = await startActor(kind, { namespace });
    for (const command of ['acquire', 'acquireSync'] as const) {
      await expect(other.call(command, { name, timeout: 20 })).rejects.toMatchObject({
        code: TIMEOUT,
        holders: [{ pid: actor.pid, threadId: actor.threadId }],
      });
      expect(lock.query().pending).toEqual([]);
    }
    await actor.release(name);
    await other.acquire({ name, timeout: 10_000 });
  });
});

test('of many whose time is up in one turn of the event loop, each knows the holders, and the lock is looked at once', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  const { binding } = lock.record.ready.native;
  const looks = jest.spyOn(binding, 'query');
  const timeout = 20;
  const failures = Array.from({ length: 100 }, () => failureOf(() => lock.exclusive({ timeout })));
  for (const end = performance.now() + 2 * timeout; performance.now() < end; );
  const errors = await Promise.all(failures);
  expect(looks).toHaveBeenCalledTimes(1);
  looks.mockRestore();
  for (const { code, holders } of errors)
    expect({ code, holders }).toEqual({
      code: TIMEOUT,
      holders: [expect.objectContaining({ pid: process.pid })],
    });
  expect(errors[0]!.holders).not.toBe(errors[1]!.holders);
  guard.release();
  lock.close();
});

test('a timeout of 0 takes a lock that is free', async () => {
  const lock = freshLock();
  (await lock.exclusive({ timeout: 0 })).release();
  lock.exclusiveSync({ timeout: 0 }).release();
  expect(await lock.shared({ timeout: 0 }, () => 'ran')).toBe('ran');
  (await freshLock({ fair: true }).exclusive({ timeout: 0 })).release();
});

test('a lock that comes free in time is granted', async () => {
  const namespace = testNamespace();
  const [holder, waiter] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
  const lock = new SharedLock(name, { namespace });
  for (const command of ['acquire', 'acquireSync'] as const) {
    await holder.acquire({ name, mode: 'exclusive' });
    const granted = waiter.begin(command, { name, timeout: 20_000 });
    await untilPending(lock, 1);
    await holder.release(name);
    await granted.promise;
    await waiter.release(name);
  }
});

test('those who waited behind the one that gave up are granted at once', async () => {
  const namespace = testNamespace();
  const [writer, reader] = (await startActors(['fork', 'cluster'], { namespace })) as [Actor, Actor];
  const lock = new SharedLock(name, { namespace });
  const own = lock.sharedSync();
  const written = await writer.queue({ name, mode: 'exclusive', fair: true, timeout: 1000 });
  const read = await reader.queue({ name, fair: true });
  await expect(written.promise).rejects.toMatchObject({ code: TIMEOUT });
  await read.promise;
  expect(lock.query()).toEqual(state(['shared', 'shared'], []));
  own.release();
});

test('timeouts longer than a timer can count, and endless ones, do not end early', async () => {
  const lock = freshLock();
  const first = await lock.exclusive();
  const waits = [2 ** 31, 1e15, Number.POSITIVE_INFINITY].map((timeout) => lock.shared({ timeout }));
  await Promise.race([...waits, new Promise((resolve) => setTimeout(resolve, 50))]);
  expect(lock.query().pending).toHaveLength(waits.length);
  first.release();
  for (const guard of await Promise.all(waits)) guard.release();
});
