// A thread or process that ends, however it ends, leaves nothing behind: what it held is released, its waits are gone,
// and whoever comes after an exclusive hold that was not released is told.
import { Worker } from 'node:worker_threads';
import { SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, type ActorKind, type Ended, startActor } from './support/actor';
import { expectIdle, lockPerTest, MODES, name, state, untilPending } from './support/locks';
import { until } from './support/namespace';
import { DIST } from './support/segment';

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

interface Way {
  way: string;
  kinds: readonly ActorKind[];
  end(actor: Actor): Promise<Ended>;
  ended: Ended;
  /** Can it end while its thread is blocked in a sync wait? */
  fromOutside?: boolean;
}

const WAYS: Way[] = [
  {
    way: 'process.exit()',
    kinds: ACTOR_KINDS,
    end: (actor) => actor.exit(7),
    ended: { code: 7, signal: null },
  },
  {
    way: 'an uncaught exception',
    kinds: ACTOR_KINDS,
    end: (actor) => actor.throw('uncaught on purpose'),
    ended: { code: 1, signal: null },
  },
  {
    way: 'worker.terminate()',
    kinds: ['thread'],
    end: (actor) => actor.terminate(),
    ended: { code: 1, signal: null },
    fromOutside: true,
  },
  {
    way: 'SIGTERM',
    kinds: ['fork', 'cluster'],
    end: (actor) => actor.kill('SIGTERM'),
    ended: { code: null, signal: 'SIGTERM' },
    fromOutside: true,
  },
];
const NATURAL_END: Way = {
  way: 'having nothing more to do',
  kinds: ACTOR_KINDS,
  end: (actor) => {
    actor.begin('unref');
    return actor.ended;
  },
  ended: { code: 0, signal: null },
};

const cases = (ways: Way[]) => ways.flatMap((way) => way.kinds.map((kind) => ({ kind, ...way })));

describe.each(cases([...WAYS, NATURAL_END]))('$kind: the end by $way', ({ kind, end, ended }) => {
  test.each(MODES)('while holding %s', async (mode) => {
    const actor = await startActor(kind, { namespace });
    const held = await actor.acquire({ name, mode });
    const waiter = await startActor('fork', { namespace });
    const pending = await waiter.queue({ name, mode: 'exclusive' });
    expect(await end(actor)).toEqual(ended);
    const grant = await pending.promise;
    expect(grant.abandoned).toEqual(
      mode === 'shared'
        ? null
        : { pid: actor.pid, threadId: actor.threadId, since: expect.any(Number), token: held.token },
    );
    if (mode === 'exclusive') expect(BigInt(grant.token)).toBeGreaterThan(BigInt(held.token));
    await waiter.release(name);
    expectIdle(lock);
  });

  test('while holding a lock that nobody waits for', async () => {
    const actor = await startActor(kind, { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
    await end(actor);
    const guard = lock.tryExclusive();
    expect(guard?.abandoned).toMatchObject({ pid: actor.pid, threadId: actor.threadId });
    guard?.release();
    expectIdle(lock);
  });

  test('after having released', async () => {
    const actor = await startActor(kind, { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
    await actor.release(name);
    expect(await end(actor)).toEqual(ended);
    const guard = lock.tryExclusive();
    expect(guard).not.toBeNull();
    expect(guard?.abandoned).toBeNull();
    guard?.release();
  });
});

describe.each(cases(WAYS))('$kind: the end by $way', ({ kind, end, ended }) => {
  test('while waiting, with others before and behind', async () => {
    const holder = await startActor('fork', { namespace });
    await holder.acquire({ name, mode: 'exclusive' });
    const actor = await startActor(kind, { namespace });
    for (const as of ['one', 'two', 'three']) await actor.queue({ name, as, mode: 'exclusive' });
    const waiter = await startActor('fork', { namespace });
    const pending = await waiter.queue({ name, mode: 'shared' });
    await actor.queue({ name, as: 'four', mode: 'shared' });
    expect(await end(actor)).toEqual(ended);
    await until(() => lock.query().pending.length === 1);
    expect(lock.query()).toEqual(state(['exclusive'], ['shared']));
    await holder.release(name);
    expect((await pending.promise).abandoned).toBeNull();
    await waiter.release(name);
    expectIdle(lock);
  });

  test('while holding one lock and waiting for another', async () => {
    const other = new SharedLock('other', { namespace });
    const guard = other.exclusiveSync();
    const actor = await startActor(kind, { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
    await actor.queue({ name: 'other', mode: 'exclusive' });
    const pending = lock.exclusive();
    expect(await end(actor)).toEqual(ended);
    const next = await pending;
    expect(next.abandoned?.threadId).toBe(actor.threadId);
    next.release();
    await until(() => other.query().pending.length === 0);
    guard.release();
    const left = other.tryExclusive();
    expect(left?.abandoned).toBeNull();
    left?.release();
    other.close();
  });
});

describe.each(cases(WAYS.filter(({ fromOutside }) => fromOutside)))(
  '$kind: the end by $way',
  ({ kind, end, ended }) => {
    test.each(MODES)('while it is blocked in a sync wait (%s)', async (mode) => {
      const guard = lock.exclusiveSync();
      const actor = await startActor(kind, { namespace });
      actor.begin('acquireSync', { name, mode });
      await untilPending(lock, 1);
      const behind = await startActor('fork', { namespace });
      const pending = await behind.queue({ name, mode: 'exclusive' });
      expect(await end(actor)).toEqual(ended);
      await until(() => lock.query().pending.length === 1);
      guard.release();
      expect((await pending.promise).abandoned).toBeNull();
      await behind.release(name);
      expectIdle(lock);
    });
  },
);

test('a waiting process stays alive, and ends when it has released', async () => {
  const guard = lock.exclusiveSync();
  const actor = await startActor('fork', { namespace });
  actor.run(`lock({ name: args }).exclusive(() => { process.exitCode = 9; });`, name);
  await untilPending(lock, 1);
  actor.begin('unref');
  await until(() => lock.query().pending.length === 1);
  guard.release();
  expect(await actor.ended).toEqual({ code: 9, signal: null });
  expectIdle(lock);
});

test('a worker that exits while its parent holds the same lock takes nothing of that with it', async () => {
  const guard = lock.exclusiveSync();
  const actor = await startActor('thread', { namespace });
  expect(await actor.call('tryAcquire', { name, mode: 'exclusive' })).toBeNull();
  await actor.queue({ name, mode: 'exclusive' });
  await actor.terminate();
  const other = await startActor('fork', { namespace });
  expect(await other.call('tryAcquire', { name, mode: 'shared' })).toBeNull();
  guard.release();
  expect((await other.call('tryAcquire', { name, mode: 'shared' }))?.abandoned).toBeNull();
});

test('two hundred workers that wait, hold and release at random are terminated, and nothing is left', async () => {
  const ROUNDS = 200;
  const AT_ONCE = 4;
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { SharedLock } = require(workerData.dist);
    const locks = Array.from({ length: 3 }, (_, n) => new SharedLock('lock ' + n, workerData));
    const any = () => locks[Math.floor(Math.random() * locks.length)];
    const ways = [
      () => any().exclusive(() => new Promise((resolve) => setImmediate(resolve))),
      () => any().shared({ timeout: 1 }).then((guard) => guard.release(), () => {}),
      () => any().exclusive({ signal: AbortSignal.timeout(1) }).then((guard) => guard.release(), () => {}),
      () => { const guard = any().exclusiveSync(); guard.downgrade(); guard.release(); },
      () => any().sharedSync().release(),
      () => any().tryExclusive()?.release(),
      () => { try { any().exclusiveSync({ timeout: 2 }).release(); } catch {} },
    ];
    parentPort.postMessage('running');
    (async () => { for (;;) await ways[Math.floor(Math.random() * ways.length)](); })();`;
  let started = 0;
  const runOne = async (): Promise<void> => {
    while (started < ROUNDS) {
      started++;
      const worker = new Worker(source, { eval: true, workerData: { namespace, dist: DIST } });
      const failed = new Promise<never>((_, reject) => worker.once('error', reject));
      failed.catch(() => undefined);
      await Promise.race([new Promise((resolve) => worker.once('message', resolve)), failed]);
      await Promise.race([new Promise((resolve) => setTimeout(resolve, Math.random() * 20)), failed]);
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, runOne));
  for (const n of [0, 1, 2]) {
    const one = new SharedLock(`lock ${n}`, { namespace });
    expectIdle(one);
    one.exclusiveSync().release();
    one.close();
  }
}, 120_000);
