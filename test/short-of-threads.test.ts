// Where threads or descriptors are short, a wait ends as it should all the same, or with a LockError; nothing leaks, nothing
// spins, and with enough of them again everything is as it was.
import { rmSync } from 'node:fs';
import { LockError, LockManager, type SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import {
  descriptorsOf,
  EXHAUST,
  expectLoadBelow,
  LIMITED_DESCRIPTORS,
  needsCompiler,
  refusing,
  testWith,
  timeOf,
} from './support/disturb';
import { expectIdle, lockPerTest, name, untilPending } from './support/locks';
import { IS_PORTABLE, segmentFile } from './support/segment';
import { until } from './support/until';

const GRANTED_MS_MAX = 2000;
const DEATH_MS_MAX = 3000;
const LOAD_MAX = 20; // percent
/** The descriptors of one. The shim's kqueue is a pipe. */
const WATCHER = IS_PORTABLE ? 2 : 1;

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

/** The pool of libuv aborts where it can not have its threads: they are made first. */
const WARM = `await Promise.all(Array.from({ length: 8 }, () => require('node:fs').promises.readFile('/proc/self/stat')));`;

async function startWithout(...calls: string[]): Promise<Actor> {
  const actor = await startActor('fork', { namespace, env: refusing() });
  await actor.run(
    `${WARM} lock({ name: args }); process.env.REFUSE = ${JSON.stringify(calls.join(' '))};`,
    name,
  );
  return actor;
}

async function expectDeathNoticed(waiter: Actor): Promise<void> {
  const dead = await startActor('fork', { namespace });
  await dead.acquire({ name, mode: 'exclusive' });
  const waiting = await waiter.queue({ name, mode: 'exclusive' });
  await dead.kill('SIGKILL');
  expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
  expect((await waiting.promise).abandoned).toMatchObject({ pid: dead.pid });
  await waiter.release(name);
}

describe('when no thread can be made', () => {
  const testIt = testWith(needsCompiler);

  testIt.each(['acquire', 'acquireSync'] as const)(
    'the first wait (%s) is granted at the release',
    async (way) => {
      const guard = lock.exclusiveSync();
      const waiter = await startWithout('pthread_create');
      const waiting = waiter.begin(way, { name, mode: 'exclusive' });
      await untilPending(lock, 1);
      guard.release();
      expect(await timeOf(waiting.promise)).toBeLessThan(GRANTED_MS_MAX);
      await waiter.release(name);
      expectIdle(lock);
    },
  );

  testIt('one that waits for nothing is told of a theft', async () => {
    const holder = await startWithout('pthread_create');
    const told = holder.run<string>(
      `globalThis.guard = lock({ name: args }).exclusiveSync();
      return new Promise((resolve) => guard.lost.addEventListener('abort', () => resolve(guard.lost.reason.code)));`,
      name,
    );
    await until(() => lock.query().held.length === 1);
    await holder.run('await new Promise((resolve) => setTimeout(resolve, 50));'); // the native part knows who listens
    await new LockManager({ namespace }).request(name, { steal: true }, () => {});
    expect(await told).toBe('ERR_LOCK_LOST');
  });

  testIt('waits in many namespaces are granted, and deaths are noticed', async () => {
    const waiter = await startWithout('pthread_create');
    const others = ['-b', '-c'].map((suffix) => namespace + suffix);
    const holder = await startActor('fork', { namespace });
    for (const other of others)
      await holder.acquire({ name, namespace: other, mode: 'exclusive', as: other });
    const waits = [];
    for (const other of others) waits.push(await waiter.queue({ name, namespace: other, as: other }));
    await holder.release(others[1]!);
    expect(await timeOf(waits[1]!.promise)).toBeLessThan(GRANTED_MS_MAX);
    expect(waits[0]!.settled).toBe(false);
    await holder.kill('SIGKILL');
    expect(await timeOf(waits[0]!.promise)).toBeLessThan(DEATH_MS_MAX);
    await expectDeathNoticed(waiter);
    for (const other of others) rmSync(segmentFile(other));
  });

  testIt(
    'twenty waits that time out leave no descriptor behind, and a process that waits does not spin',
    async () => {
      const guard = lock.exclusiveSync();
      const waiter = await startWithout('pthread_create');
      const before = await descriptorsOf(waiter);
      const codes = await waiter.run<string[]>(
        `const codes = [];
       for (let n = 0; n < 20; n++) await lock({ name: args }).exclusive({ timeout: 5 }).catch(({ code }) => codes.push(code));
       return codes;`,
        name,
      );
      expect(codes).toEqual(Array(20).fill('ERR_LOCK_TIMEOUT'));
      expect((await descriptorsOf(waiter)) - before).toBeLessThanOrEqual(WATCHER);
      const waiting = await waiter.queue({ name, mode: 'shared' });
      await expectLoadBelow(LOAD_MAX, waiter);
      guard.release();
      await waiting.promise;
      await waiter.release(name);
      await expectLoadBelow(LOAD_MAX, waiter);
    },
  );

  testIt('and there are enough again, deaths are noticed as always', async () => {
    const guard = lock.exclusiveSync();
    const waiter = await startWithout('pthread_create');
    await expect(waiter.acquire({ name, timeout: 20 })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
    await waiter.run(`process.env.REFUSE = '';`);
    guard.release();
    await expectDeathNoticed(waiter);
  });
});

describe('when no descriptor is left', () => {
  const start = () => startActor('fork', { namespace, via: LIMITED_DESCRIPTORS });

  test.each(['acquire', 'acquireSync'] as const)(
    'the first wait (%s) is granted at the release; a later death is noticed; nothing spins',
    async (way) => {
      const guard = lock.exclusiveSync();
      const waiter = await start();
      await waiter.run(`lock({ name: args }); ${EXHAUST}`, name);
      const waiting = waiter.begin(way, { name, mode: 'exclusive' });
      await untilPending(lock, 1);
      guard.release();
      expect(await timeOf(waiting.promise)).toBeLessThan(GRANTED_MS_MAX);
      await waiter.release(name);
      await expectDeathNoticed(waiter);
      await waiter.run('globalThis.giveBack();');
      await expectLoadBelow(LOAD_MAX, waiter);
      await expectDeathNoticed(waiter);
      await expectLoadBelow(LOAD_MAX, waiter);
      expectIdle(lock);
    },
  );

  test('a name in a new namespace is a LockError, and opens when there are some again', async () => {
    const waiter = await start();
    await waiter.run(EXHAUST);
    const open = () => waiter.call('tryAcquire', { name, mode: 'exclusive' });
    await expect(open()).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_LOCK_/),
      name: LockError.name,
    });
    await waiter.run('globalThis.giveBack();');
    expect(await open()).not.toBeNull();
  });
});
