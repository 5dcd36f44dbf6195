// The channels of locks in shared memory, where they are more than those of all engines (test/engines/cases/watching.ts): blocking
// acquires, the order of Node's own tracing, what runs inside of it, guards that were dropped.
import { AsyncLocalStorage } from 'node:async_hooks';
import { channel, tracingChannel } from 'node:diagnostics_channel';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import {
  channels,
  type LockError,
  LockManager,
  type ReleaseEvent,
  RLock,
  SharedLock,
  SharedRLock,
} from '../lib';
import { channels as remoteChannels } from '../lib/remote';
import { startActor } from './support/actor';
import { eventsOf, publishedBy } from './support/channels';
import { expectIdle, freshLock, name, state } from './support/locks';
import { testNamespace, until } from './support/namespace';

test('the names are part of the interface, and the same for remote locks', () => {
  expect(channels).toEqual({
    acquire: 'proclock:acquire',
    release: 'proclock:release',
    abandoned: 'proclock:abandoned',
    lost: 'proclock:lost',
    leak: 'proclock:leak',
    deadlock: 'proclock:deadlock',
  });
  expect(remoteChannels).toBe(channels);
});

/** The events of Node's own functions, for something that fails or not. */
async function nodeOrder(sync: boolean, fails: boolean): Promise<string[]> {
  const traced = tracingChannel('proclock-test');
  const events: string[] = [];
  const note = (event: string) => () => void events.push(event);
  const all = Object.fromEntries(
    ['start', 'end', 'asyncStart', 'asyncEnd', 'error'].map((e) => [e, note(e)]),
  );
  traced.subscribe(all as never);
  const work = (): void => {
    if (fails) throw new Error('of the work');
  };
  try {
    if (sync) traced.traceSync(work);
    else await traced.tracePromise(async () => work());
  } catch {
    // It is about the order.
  } finally {
    traced.unsubscribe(all as never);
  }
  return events;
}

test.each([
  { sync: true, fails: false },
  { sync: true, fails: true },
  { sync: false, fails: false },
  { sync: false, fails: true },
])('the order is that of Node: %o', async ({ sync, fails }) => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const actor = await startActor('thread', { namespace });
  if (fails) await actor.acquire({ name, mode: 'exclusive' });
  const published = await publishedBy(namespace, async () => {
    try {
      const guard = sync ? lock.sharedSync({ timeout: 10 }) : await lock.shared({ timeout: 10 });
      guard.release();
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
    }
  });
  const events = eventsOf(published).filter((event) => event !== 'release');
  expect(events).toEqual(await nodeOrder(sync, fails));
  expect(new Set(published.slice(0, events.length).map(({ context }) => context)).size).toBe(1);
  expect(published[0]!.context).toMatchObject({ sync, contended: fails });
  if (fails) expect((published[0]!.context.error as LockError).code).toBe('ERR_LOCK_TIMEOUT');
});

test('a blocking callback: its acquire is over before it is called', async () => {
  const lock = freshLock();
  let before: string[] = [];
  const published = await publishedBy(lock.namespace, (soFar) => {
    lock.exclusiveSync(() => {
      before = eventsOf(soFar);
    });
  });
  expect(before).toEqual(['start', 'end']);
  expect(eventsOf(published)).toEqual(['start', 'end', 'release']);
});

test('a nested acquire is one; its hold is released once', async () => {
  const lock = new SharedRLock(name, { namespace: testNamespace() });
  const published = await publishedBy(lock.namespace, () => {
    lock.exclusiveSync(() => lock.sharedSync(() => {}));
  });
  expect(eventsOf(published)).toEqual(['start', 'end', 'start', 'end', 'release']);
  expect(published[2]!.context).toMatchObject({ mode: 'shared', contended: false });
  expect(published[4]!.context).toMatchObject({ mode: 'exclusive' });
});

test('a hold that began before anybody listened has a time, too', async () => {
  const lock = freshLock();
  const guard = await lock.exclusive();
  await until(() => Date.now() - lock.query().held[0]!.since.getTime() > 30);
  const published = await publishedBy(lock.namespace, () => guard.release(), ['release']);
  expect(published[0]!.context.holdMs).toBeGreaterThan(20);
  expect(published[0]!.context.holdMs).toBeLessThan(60_000);
});

test('a listener to one event alone is told, and nobody after it is gone', async () => {
  const lock = freshLock();
  for (const event of ['start', 'end', 'asyncStart', 'asyncEnd']) {
    expect(eventsOf(await publishedBy(lock.namespace, () => lock.shared(() => {}), [event]))).toEqual([
      event,
    ]);
  }
  const events: unknown[] = [];
  const listener = (): void => void events.push(0);
  const started = channel('tracing:proclock:acquire:start');
  started.subscribe(listener);
  started.unsubscribe(listener);
  (await lock.shared()).release();
  expect(events).toEqual([]);
});

test('a store that is bound to `start` is there while the lock is taken, and not in the callback', async () => {
  const store = new AsyncLocalStorage<unknown>();
  const started = channel('tracing:proclock:acquire:start');
  started.bindStore(store, (context) => context);
  const lock = freshLock();
  try {
    let atEnd: unknown;
    let inside: unknown = 'not called';
    const ended = channel('tracing:proclock:acquire:end');
    const note = (): void => {
      atEnd = store.getStore();
    };
    ended.subscribe(note);
    lock.exclusiveSync(() => {
      inside = store.getStore();
    });
    ended.unsubscribe(note);
    expect(atEnd).toMatchObject({ name, sync: true });
    expect(inside).toBeUndefined();
  } finally {
    started.unbindStore(store);
  }
});

/** Calls something at an event, once. */
function onceAt(event: string, call: () => void): void {
  const found = channel(event);
  const listener = (): void => {
    found.unsubscribe(listener);
    call();
  };
  found.subscribe(listener);
}

test('a subscriber may release what a nested acquire is to nest in', async () => {
  const tree = new RLock(name, { namespace: testNamespace() });
  const refused = expect.objectContaining({ code: 'ERR_LOCK_NOT_HELD' });
  const outer = tree.acquireSync();
  onceAt('tracing:proclock:acquire:end', () => outer.release());
  expect(() => tree.acquireSync()).toThrow(refused);
  expectIdle(tree);
  await tree.acquire(async (guard) => {
    onceAt('tracing:proclock:acquire:end', () => guard.release());
    await expect(tree.acquire(() => {})).rejects.toEqual(refused);
  });
  expectIdle(tree);
});

test('a subscriber may downgrade what a nested acquire is to nest in', () => {
  const tree = new SharedRLock(name, { namespace: testNamespace() });
  const outer = tree.exclusiveSync();
  onceAt('tracing:proclock:acquire:end', () => outer.downgrade());
  expect(() => tree.exclusiveSync()).toThrow(expect.objectContaining({ code: 'ERR_LOCK_NOT_HELD' }));
  expect(tree.query()).toEqual(state(['shared'], []));
  outer.release();
  expectIdle(tree);
});

test('for how long a request has held, beside an older one', async () => {
  const namespace = testNamespace();
  const manager = new LockManager({ namespace });
  const held: number[] = [];
  const listener = (event: unknown): void => void held.push((event as ReleaseEvent).holdMs);
  channel('proclock:release').subscribe(listener);
  try {
    let end: () => void;
    const older = manager.request(
      name,
      { mode: 'shared' },
      () => new Promise<void>((resolve) => (end = resolve)),
    );
    await sleep(200);
    const begun = performance.now();
    await manager.request(name, { mode: 'shared' }, () => {});
    const tookMs = performance.now() - begun;
    end!();
    await older;
    expect(held).toHaveLength(2);
    expect(held[0]).toBeLessThanOrEqual(tookMs);
    expect(held[1]).toBeGreaterThanOrEqual(199);
  } finally {
    channel('proclock:release').unsubscribe(listener);
  }
});

describe('a subscriber that acquires on the way from a grant to its holder', () => {
  const lock = () => new SharedLock(name, { namespace });
  let namespace: string;
  beforeEach(async () => {
    namespace = testNamespace();
    const actor = await startActor('fork', { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
    await actor.kill();
    const other = new SharedLock('other', { namespace });
    onceAt('proclock:abandoned', () => other.tryExclusive()?.release());
  });
  const turns = async () => {
    for (let i = 0; i < 3; i++) await setImmediate();
  };

  test('takes nothing from a guard', async () => {
    await until(() => lock().query().held.length === 0);
    const guard = await lock().exclusive();
    await turns();
    expect(guard.abandoned).not.toBeNull();
    expect(lock().query().held).toHaveLength(1);
    guard.release();
  });

  test('takes nothing from a request', async () => {
    const manager = new LockManager({ namespace });
    await until(() => lock().query().held.length === 0);
    await manager.request(name, async () => {
      await turns();
      expect(lock().query().held).toHaveLength(1);
    });
    expectIdle(lock());
  });
});

test('a guard that was dropped', async () => {
  const namespace = testNamespace();
  const actor = await startActor('fork', { namespace, execArgv: ['--expose-gc'] });
  await actor.run(`globalThis.leaks = [];
    require('node:diagnostics_channel').subscribe('proclock:leak', (leak) => globalThis.leaks.push(leak));`);
  await actor.acquire({ name, mode: 'shared' });
  await actor.call('forget', { guard: name });
  const leaks = () => actor.run<unknown[]>('return globalThis.leaks');
  await until(async () => {
    await actor.run('global.gc(); await new Promise(setImmediate);');
    return (await leaks()).length > 0;
  });
  expect(await leaks()).toEqual([{ name, namespace, mode: 'shared' }]);
});
