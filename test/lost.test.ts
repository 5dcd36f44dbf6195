// `guard.lost`: whoever asks is told when a hold ends without its holder, at once and not on the next use.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { rmSync } from 'node:fs';
import { channels, type LockGuard, LockManager, RLock, SharedLock, SharedRLock } from '../lib';
import { type ActorKind, startActor } from './support/actor';
import { expectIdle, freshLock, name, withCode } from './support/locks';
import { testNamespace, until } from './support/namespace';
import { segmentFile } from './support/segment';

const LOST = withCode('ERR_LOCK_LOST');

/** Steals the lock, and keeps it until told. */
async function steal({ namespace }: SharedLock): Promise<() => void> {
  return new Promise((stolen) => {
    const end = new LockManager({ namespace }).request(
      name,
      { steal: true },
      () => new Promise<void>(stolen),
    );
    void end;
  });
}

function errorOf(fn: () => unknown): unknown {
  try {
    return fn();
  } catch (error) {
    return error;
  }
}

const aborted = (signal: AbortSignal) =>
  signal.aborted
    ? Promise.resolve()
    : new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

describe('a theft', () => {
  test('of more holds than the stack is deep reaches them all, and those who wait for other locks', async () => {
    const lock = freshLock();
    const { namespace } = lock;
    const holder = await startActor('fork', { namespace });
    await holder.acquire({ name: 'other', mode: 'exclusive' });
    const other = new SharedLock('other', { namespace });
    const waits = Array.from({ length: 10 }, () => other.shared());
    const guards = await Promise.all(Array.from({ length: 2000 }, () => lock.shared()));
    let told = 0;
    for (const guard of guards) guard.lost.addEventListener('abort', () => told++);
    const upgraded = guards[0]!.upgrade();
    await new Promise(setImmediate); // the native part knows who listens
    await holder.call('release', { guard: 'other' });
    const end = await steal(lock);
    await expect(upgraded).rejects.toEqual(LOST);
    await until(() => told === guards.length);
    for (const wait of waits) (await wait).release();
    end();
    lock.close();
    other.close();
  });

  for (const mode of ['shared', 'exclusive'] as const) {
    for (const kind of ['fork', 'thread'] as ActorKind[]) {
      test(`by a ${kind} aborts the signal of a ${mode} guard, and the reason says who it was`, async () => {
        const lock = freshLock();
        const guard = await lock[mode]();
        const { lost } = guard;
        expect(lost.aborted).toBe(false);
        expect(guard.lost).toBe(lost);
        const thief = await startActor(kind, { namespace: lock.namespace });
        const { namespace } = lock;
        const request = { namespace, name, as: 'theft', options: { steal: true } };
        const ended = thief.call('request', request);
        await aborted(lost);
        expect(lost.reason).toMatchObject({
          name: 'LockError',
          code: 'ERR_LOCK_LOST',
          cause: expect.any(Error),
        });
        expect(lost.reason.cause.message).toContain(`pid ${thief.pid} thread ${thief.threadId}`);
        let thrown: unknown;
        try {
          guard.release();
        } catch (error) {
          thrown = error;
        }
        expect(thrown).toBe(lost.reason);
        expect(() => guard.release()).toThrow(withCode('ERR_LOCK_NOT_HELD'));
        await thief.call('fulfil', { request: 'theft' });
        await ended;
        lock.close();
      });
    }
  }

  test('aborts each guard of a reentrant hold, and each says so when it is released', async () => {
    const lock = new SharedRLock(name, { namespace: testNamespace() });
    const outer = lock.exclusiveSync();
    const inner = lock.sharedSync();
    const signals = [outer.lost, inner.lost];
    const end = await steal(lock);
    await Promise.all(signals.map(aborted));
    expect(errorOf(() => inner.release())).toBe(outer.lost.reason);
    expect(errorOf(() => outer.release())).toBe(outer.lost.reason);
    end();
    await until(() => lock.query().held.length === 0);
    lock.close();
  });

  test('is told once, and with the same error, to guards that nest and were not asked, in whatever order', async () => {
    for (const first of [0, 1, 2]) {
      const lock = new SharedRLock(name, { namespace: testNamespace() });
      const told = jest.fn();
      subscribe(channels.lost, told);
      const guards = [lock.exclusiveSync(), lock.sharedSync(), lock.exclusiveSync()];
      guards.unshift(...guards.splice(first, 1));
      const end = await steal(lock);
      const errors = guards.map((guard) => errorOf(() => guard.release()));
      expect(errors[0]).toEqual(LOST);
      expect(errors).toEqual([errors[0], errors[0], errors[0]]);
      for (const guard of guards) {
        expect(guard.lost.reason).toBe(errors[0]);
        expect(() => guard.release()).toThrow(withCode('ERR_LOCK_NOT_HELD'));
      }
      unsubscribe(channels.lost, told);
      expect(told).toHaveBeenCalledTimes(1);
      end();
      await until(() => lock.query().held.length === 0);
      lock.acquireSync().release();
      expectIdle(lock);
      lock.close();
    }
  });

  test('of a reentrant hold: the ends of its blocks are silent', async () => {
    const lock = new SharedRLock(name, { namespace: testNamespace() });
    {
      using _outer = lock.exclusiveSync();
      using inner = lock.sharedSync();
      const end = await steal(lock);
      end();
      inner[Symbol.dispose]();
      expect(inner.lost.aborted).toBe(true);
    }
    await until(() => lock.query().held.length === 0);
    expectIdle(lock);
    lock.close();
  });

  test('rejects each of the callback forms that nest, though their callbacks succeeded', async () => {
    const lock = new SharedRLock(name, { namespace: testNamespace() });
    const inner: unknown[] = [];
    const outer = lock.exclusive(async () => {
      const waiting = lock.shared(async () => {
        const end = await steal(lock);
        end();
      });
      inner.push(await waiting.catch((error) => error));
    });
    await expect(outer).rejects.toEqual(LOST);
    expect(inner).toEqual([LOST]);
    await until(() => lock.query().held.length === 0);
    expectIdle(lock);
    lock.close();
  });

  test('before the first look is seen at the first look', async () => {
    const lock = freshLock();
    const guard = await lock.exclusive();
    const end = await steal(lock);
    expect(guard.lost.aborted).toBe(true);
    expect(() => guard.release()).toThrow(LOST);
    end();
    await until(() => lock.query().held.length === 0);
    lock.close();
  });

  test('while the event loop is blocked is seen at the first look after it', async () => {
    const lock = freshLock();
    const guard = await lock.exclusive();
    const { lost } = guard;
    const thief = await startActor('fork', { namespace: lock.namespace });
    await new Promise(setImmediate); // by now it listens
    const request = { namespace: lock.namespace, name, as: 'theft', options: { steal: true } };
    const ended = thief.call('request', request);
    const isHeldByThief = () => lock.query().held.some(({ pid }) => pid === thief.pid);
    while (!isHeldByThief()); // without a turn of the event loop
    expect(lost.aborted || guard.lost.aborted).toBe(true);
    expect(() => guard.release()).toThrow(LOST);
    await thief.call('fulfil', { request: 'theft' });
    await ended;
    lock.close();
  });

  test('rejects a callback form, even if the callback succeeded', async () => {
    const lock = freshLock();
    const done = lock.exclusive(async ({ lost }) => {
      const end = await steal(lock);
      await aborted(lost);
      end();
      return 'done';
    });
    await expect(done).rejects.toEqual(LOST);
    lock.close();
  });
});

describe('a namespace that is removed', () => {
  test('aborts the signals of its guards, and the cause says so', async () => {
    const lock = freshLock();
    const guards = [await lock.shared(), await lock.shared()] as [LockGuard, LockGuard];
    const signals = guards.map(({ lost }) => lost);
    rmSync(segmentFile(lock.namespace));
    await Promise.all(signals.map(aborted));
    for (const { reason } of signals)
      expect(reason).toMatchObject({
        code: 'ERR_LOCK_LOST',
        cause: { code: 'ERR_LOCK_NAMESPACE_REMOVED' },
      });
    expect(() => guards[0].release()).toThrow(LOST);
    expect(() => guards[1][Symbol.dispose]()).not.toThrow();
    lock.close();
  });
});

describe('the thief', () => {
  test('is named while he holds the lock, and whoever came after him is not', async () => {
    const lock = freshLock();
    const [robbed, later] = [await lock.shared(), await lock.shared()];
    const end = await steal(lock);
    const named = expect.objectContaining({
      cause: expect.objectContaining({ message: `it was stolen by pid ${process.pid} thread 0` }),
    });
    expect(() => robbed.release()).toThrow(named);
    end();
    await until(() => lock.query().held.length === 0);
    const innocent = await startActor('fork', { namespace: lock.namespace });
    await innocent.acquire({ name, mode: 'exclusive' });
    expect(() => later.release()).toThrow(
      expect.objectContaining({ cause: expect.objectContaining({ message: 'it was stolen' }) }),
    );
    await innocent.release(name);
    lock.close();
  });
});

describe('a guard that is not lost', () => {
  test('has a signal that never aborts, also after it was released', async () => {
    const lock = freshLock();
    const asked = await lock.exclusive();
    const { lost } = asked;
    asked.release();
    const notAsked = await lock.exclusive();
    notAsked.release();
    const end = await steal(lock);
    await new Promise(setImmediate);
    expect([lost.aborted, asked.lost.aborted, notAsked.lost.aborted]).toEqual([false, false, false]);
    expect(asked.lost).toBe(lost);
    end();
    await until(() => lock.query().held.length === 0);
    lock.close();
  });

  test('hands nothing on to the next hold of its native index', async () => {
    const lock = freshLock();
    const first = await lock.exclusive();
    void first.lost;
    first.release();
    const second = await lock.exclusive();
    const end = await steal(lock);
    await aborted(second.lost);
    expect(first.lost.aborted).toBe(false);
    expect(() => second.release()).toThrow(LOST);
    end();
    await until(() => lock.query().held.length === 0);
    lock.close();
  });
});

describe('what is told in the middle of a release', () => {
  const told = (channel: string, tell: () => void) => {
    const once = (): void => {
      unsubscribe(channel, once);
      tell();
    };
    subscribe(channel, once);
  };

  test('finds no owner any more: whoever hears that the hold was stolen acquires anew', async () => {
    const lock = new RLock(name, { namespace: testNamespace() });
    const guard = lock.acquireSync();
    await new LockManager({ namespace: lock.namespace }).request(name, { steal: true }, () => {});
    const repairs: LockGuard[] = [];
    told(channels.lost, () => repairs.push(lock.acquireSync()));
    expect(() => guard.release()).toThrow(LOST);
    expect(lock.query().held).toHaveLength(1);
    for (const repair of repairs) repair.release();
    expectIdle(lock);
    lock.close();
  });

  test('finds no owner any more: whoever hears of a mark does not share what another one has alone', async () => {
    const lock = new SharedRLock(name, { namespace: testNamespace() });
    const dead = await startActor('fork', { namespace: lock.namespace });
    await dead.acquire({ name, mode: 'exclusive' });
    await dead.kill('SIGKILL');
    const guard = lock.sharedSync();
    const next = lock.exclusive();
    const tries: unknown[] = [];
    told(channels.abandoned, () => tries.push(lock.tryShared()));
    guard.release();
    const exclusive = await next;
    expect(tries).toEqual([null]);
    expect(exclusive.abandoned).toMatchObject({ pid: dead.pid });
    exclusive.release();
    expectIdle(lock);
    lock.close();
  });

  test('aborts the signal that was read, though nobody has heard of the theft before', async () => {
    const lock = freshLock();
    const guard = await lock.exclusive();
    const { lost } = guard;
    const thief = await startActor('fork', { namespace: lock.namespace });
    thief.begin('request', { name, namespace: lock.namespace, as: 'theft', options: { steal: true } });
    for (const end = performance.now() + 10_000; !guard.hold.wasLost() && performance.now() < end; );
    let error: unknown;
    try {
      guard.release();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'ERR_LOCK_LOST' });
    expect(lost).toMatchObject({ aborted: true, reason: error });
    expect(guard.lost).toBe(lost);
    await thief.call('fulfil', { request: 'theft' });
    lock.close();
  });
});

test('a guard whose signal was read is missed like every other when it is dropped', async () => {
  const lock = new SharedLock(name, { namespace: testNamespace() });
  const actor = await startActor('fork', { namespace: lock.namespace, execArgv: ['--expose-gc'] });
  await actor.acquire({ name, mode: 'exclusive' });
  await actor.run('void guards.get(args).lost; await new Promise(setImmediate)', name);
  await actor.call('forget', { guard: name });
  const next = lock.exclusive();
  await until(async () => {
    await actor.run('gc(); await new Promise(setImmediate)');
    return lock.query().pending.length === 0;
  });
  (await next).release();
  expect(actor.stderr).toContain('PROCLOCK_LEAKED_GUARD');
  lock.close();
});

describe('a guard of a lost hold', () => {
  test('that was released in its callback: the callback form rejects all the same', async () => {
    const lock = freshLock();
    const called = lock.exclusive(async (guard) => {
      const end = await steal(lock);
      expect(() => guard.release()).toThrow(LOST);
      end();
      return 'fine';
    });
    await expect(called).rejects.toEqual(LOST);
    lock.close();
  });

  test('has an aborted signal also if it is asked for the first time after its release', async () => {
    const lock = freshLock();
    const guard = await lock.exclusive();
    const end = await steal(lock);
    expect(() => guard.release()).toThrow(LOST);
    expect(guard.lost.aborted).toBe(true);
    expect(guard.lost.reason).toEqual(LOST);
    end();
    lock.close();
  });
});

describe('a namespace that was removed', () => {
  const REMOVED = expect.objectContaining({
    code: 'ERR_LOCK_LOST',
    cause: withCode('ERR_LOCK_NAMESPACE_REMOVED'),
  });

  test('is what each guard of a reentrant hold says, once one of them has asked', async () => {
    const lock = new RLock(name, { namespace: testNamespace() });
    const [outer, inner] = [lock.acquireSync(), lock.acquireSync()];
    rmSync(segmentFile(lock.namespace));
    const { reason } = outer.lost;
    expect(reason).toEqual(REMOVED);
    expect(errorOf(() => inner.release())).toBe(reason);
    expect(errorOf(() => outer.release())).toBe(reason);
    lock.close();
  });

  test('aborts the signal of whoever asks for it only then', async () => {
    const lock = freshLock();
    const guard = await lock.exclusive();
    rmSync(segmentFile(lock.namespace));
    expect(guard.lost.reason).toEqual(REMOVED);
    expect(() => guard.release()).toThrow(REMOVED);
    lock.close();
  });
});
