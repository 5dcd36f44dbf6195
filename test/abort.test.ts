// An AbortSignal ends a wait with its reason, and nothing else.
import { LockManager, SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, startActors } from './support/actor';
import { expectIdle, freshLock, makeLock, name } from './support/locks';
import { testNamespace } from './support/namespace';

test('aborted before: rejects with the reason, although the lock is free', async () => {
  const lock = freshLock();
  const signal = AbortSignal.abort('no longer wanted');
  await expect(lock.exclusive({ signal })).rejects.toBe('no longer wanted');
  await expect(lock.shared({ signal }, () => 'ran')).rejects.toBe('no longer wanted');
  expect(() => lock.exclusiveSync({ signal })).toThrow('no longer wanted');
  await expect(lock.exclusive({ signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
  expectIdle(lock);
});

test('aborted while it waits: rejects with the reason, and leaves the queue', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  const controller = new AbortController();
  const wait = lock.shared({ signal: controller.signal });
  expect(lock.query().pending).toHaveLength(1);
  const reason = new Error('changed my mind');
  controller.abort(reason);
  expect(lock.query().pending).toEqual([]);
  await expect(wait).rejects.toBe(reason);
  guard.release();
  expectIdle(lock);
});

test('AbortSignal.timeout() and AbortSignal.any() work as in any other API', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  const signal = AbortSignal.timeout(20);
  // Node may collect the sources of any(), and never abort, unless somebody else keeps them.
  const sources = [new AbortController().signal, AbortSignal.timeout(20)];
  for (const each of [signal, AbortSignal.any(sources)])
    await expect(lock.exclusive({ signal: each })).rejects.toMatchObject({ name: 'TimeoutError' });
  expect(sources.map(({ aborted }) => aborted)).toEqual([false, true]);
  expect(lock.query().pending).toEqual([]);
  guard.release();
  expectIdle(lock);
});

test('a signal of a library, which has less than one of Node, does as well', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  const controller = Object.assign(new EventTarget(), { aborted: false });
  const signal = controller as unknown as AbortSignal;
  const abort = () => {
    controller.aborted = true;
    controller.dispatchEvent(new Event('abort'));
  };
  const wait = lock.shared({ signal });
  const request = new LockManager({ namespace: lock.namespace }).request(name, { signal }, () => {});
  abort();
  for (const each of [wait, request, lock.shared({ signal })])
    await expect(each).rejects.toMatchObject({ name: 'AbortError' });
  expect(() => lock.sharedSync({ signal })).toThrow(expect.objectContaining({ name: 'AbortError' }));
  guard.release();
  expectIdle(lock);
});

test('whatever a signal of a library does when it is listened to, nothing is held or queued', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  const signalOf = (methods: object) => ({ aborted: false, ...methods }) as never;
  const dontListen = new Error('not now');
  const throws = signalOf({
    addEventListener: () => {
      throw dontListen;
    },
  });
  await expect(lock.shared({ signal: throws })).rejects.toBe(dontListen);
  const calls = signalOf({ reason: 'at once', addEventListener: (_: string, call: () => void) => call() });
  await expect(lock.shared({ signal: calls })).rejects.toBe('at once');
  expect(lock.query().pending).toEqual([]);
  // Without removeEventListener.
  const wait = lock.exclusive({ signal: signalOf({ addEventListener: () => {} }) });
  guard.release();
  (await wait).release();
  expectIdle(lock);
});

test('a signal of a library that calls us when nobody listens any more changes nothing', async () => {
  const lock = freshLock();
  const other = new SharedLock('other', { namespace: lock.namespace });
  await (await other.exclusive()).release();
  const guard = await lock.exclusive();
  let abort = (): void => {};
  const signalWith = (removeEventListener: () => void) =>
    ({
      aborted: false,
      reason: 'given up',
      addEventListener: (_: string, listener: () => void) => {
        abort = listener;
      },
      removeEventListener,
    }) as never;
  // It gives back the very lock that is waited for no more.
  const wait = lock.exclusive({ signal: signalWith(() => guard.release()) });
  abort();
  await expect(wait).rejects.toBe('given up');
  expectIdle(lock);
  // It takes another lock, in the middle of a grant.
  const holder = await lock.exclusive();
  const taken: bigint[] = [];
  const signal = signalWith(() => {
    const inside = other.tryExclusive()!;
    taken.push(inside.token);
    inside.release();
  });
  const granted = lock.exclusive({ signal });
  holder.release();
  const next = await granted;
  expect(taken).toHaveLength(1);
  expect(next.token).toBe(holder.token + 1n);
  next.release();
  expectIdle(lock);
  other.close();
});

test.each(['exclusive', 'upgrade'] as const)(
  'one signal (of %s) lets in nobody that it ends as well',
  async (first) => {
    const lock = new SharedLock(name, { namespace: testNamespace(), fair: true });
    const guards = [await lock.shared(), await lock.shared()] as const;
    const controller = new AbortController();
    const { signal } = controller;
    const ran = jest.fn();
    const begun = first === 'exclusive' ? lock.exclusive({ signal }) : guards[0].upgrade({ signal });
    const waits = [begun, lock.shared({ signal }, ran), lock.shared({ signal })];
    controller.abort('all of you');
    for (const outcome of await Promise.allSettled(waits))
      expect(outcome).toEqual({ status: 'rejected', reason: 'all of you' });
    expect(ran).not.toHaveBeenCalled();
    for (const guard of guards) guard.release();
    expectIdle(lock);
  },
);

test('one signal may end many waits, of many locks', async () => {
  const namespace = testNamespace();
  const locks = ['a', 'b'].map((name) => new SharedLock(name, { namespace }));
  const guards = await Promise.all(locks.map((lock) => lock.exclusive()));
  const controller = new AbortController();
  const { signal } = controller;
  const waits = locks.flatMap((lock) => [lock.shared({ signal }), lock.exclusive({ signal })]);
  controller.abort('all of you');
  for (const wait of waits) await expect(wait).rejects.toBe('all of you');
  for (const guard of guards) guard.release();
  locks.forEach(expectIdle);
});

test('aborted after the grant: changes nothing', async () => {
  const lock = freshLock();
  const controller = new AbortController();
  const { signal } = controller;
  const first = await lock.exclusive({ signal });
  const wait = lock.exclusive({ signal });
  first.release();
  const second = await wait;
  controller.abort();
  expect(second.released).toBe(false);
  expect(lock.query()).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [] });
  second.release();
  await lock.exclusive({ signal: new AbortController().signal }, async (guard) => {
    controller.abort();
    expect(guard.released).toBe(false);
  });
  expectIdle(lock);
});

test('an abort in the turn in which the lock came free settles one way: granted, or aborted and free', async () => {
  const lock = freshLock();
  for (let round = 0; round < 50; round++) {
    const controller = new AbortController();
    const guard = await lock.exclusive();
    const wait = lock.exclusive({ signal: controller.signal });
    guard.release();
    controller.abort('late');
    const outcome = await wait.catch((reason) => reason);
    if (outcome !== 'late') outcome.release();
    expectIdle(lock);
  }
});

describe.each(ACTOR_KINDS)('a waiting %s actor that aborts', (kind) => {
  test('lets those behind it in', async () => {
    const namespace = testNamespace();
    const [writer, ...readers] = (await startActors([kind, ...ACTOR_KINDS], { namespace })) as [
      Actor,
      ...Actor[],
    ];
    const lock = new SharedLock(name, { namespace });
    const own = await lock.shared();
    const written = await writer.queue({ name, mode: 'exclusive', fair: true });
    const reads = await Promise.all(readers.map((reader) => reader.queue({ name, fair: true })));
    expect(lock.query().pending).toHaveLength(1 + reads.length);
    await writer.call('abort', { guard: name, reason: 'enough' });
    await expect(written.promise).rejects.toThrow('enough');
    expect(lock.query().pending).not.toContainEqual(expect.objectContaining({ mode: 'exclusive' }));
    await Promise.all(reads.map((read) => read.promise));
    expect(lock.query()).toMatchObject({
      held: [own, ...reads].map(() => ({ mode: 'shared' })),
      pending: [],
    });
    own.release();
  });
});

test('aborted before: rejects also where the owner holds it already, and would be granted', async () => {
  const lock = makeLock('SharedRLock');
  const signal = AbortSignal.abort('no longer wanted');
  await lock.shared(async (within) => {
    const before = lock.query();
    for (const options of [{ signal }, { signal, within }]) {
      await expect(lock.shared(options)).rejects.toBe('no longer wanted');
      expect(() => lock.sharedSync(options)).toThrow('no longer wanted');
      expect(lock.query()).toEqual(before);
    }
  });
  expectIdle(lock);
});
