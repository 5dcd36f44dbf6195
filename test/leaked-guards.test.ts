// A guard that is garbage-collected unreleased releases its lock, and says so.
import { LockManager, SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { expectIdle, name } from './support/locks';
import { testNamespace, until } from './support/namespace';

const WARNINGS = `globalThis.warnings = [];
  process.on('warning', ({ code, message }) => globalThis.warnings.push({ code, message }));`;

interface Warning {
  code: string;
  message: string;
}
const warningsOf = (actor: Actor) => actor.run<Warning[]>('return globalThis.warnings');

async function setUp() {
  const namespace = testNamespace();
  const actor = await startActor('fork', { namespace, execArgv: ['--expose-gc'] });
  await actor.run(WARNINGS);
  return { actor, lock: new SharedLock(name, { namespace }) };
}

/** Collects garbage until the condition holds; finalizers run in turns of their own. */
const collectUntil = (actor: Actor, condition: () => boolean | Promise<boolean>) =>
  until(async () => {
    await actor.run('global.gc(); await new Promise(setImmediate);');
    return condition();
  });

describe.each(['acquire', 'acquireSync', 'tryAcquire'] as const)('a guard from %s', (command) => {
  test.each(['shared', 'exclusive'] as const)('%s: its lock is released, with a warning', async (mode) => {
    const { actor, lock } = await setUp();
    await actor.call(command, { name, mode });
    expect(lock.query().held).toMatchObject([{ pid: actor.pid, mode }]);
    await actor.call('forget', { guard: name });
    await collectUntil(actor, () => lock.query().held.length === 0);
    await until(async () => (await warningsOf(actor)).length > 0);
    expect(await warningsOf(actor)).toEqual([
      { code: 'PROCLOCK_LEAKED_GUARD', message: expect.stringContaining(name) },
    ]);
    // The lock is as good as before, in both processes.
    (await lock.exclusive()).release();
    await actor.acquire({ name, mode: 'exclusive' });
    await actor.release(name);
    expectIdle(lock);
  });
});

test('a guard that was robbed before has nothing to release, and does no harm', async () => {
  const { actor, lock } = await setUp();
  const manager = new LockManager({ namespace: lock.namespace });
  for (const mode of ['shared', 'exclusive'] as const) {
    await actor.call('acquire', { name, mode, as: mode });
    await manager.request(name, { steal: true }, () => {});
    await actor.call('forget', { guard: mode });
    await collectUntil(actor, async () =>
      (await warningsOf(actor)).some(({ message }) => message.includes(mode)),
    );
  }
  await actor.acquire({ name, mode: 'exclusive' });
  await actor.release(name);
  expectIdle(lock);
});

test('it is told as it was held last', async () => {
  const { actor, lock } = await setUp();
  await actor.acquire({ name });
  await actor.run('await new Promise(setImmediate); await guards.get(args).upgrade(); guards.clear()', name);
  await collectUntil(actor, () => lock.query().held.length === 0);
  await until(async () => (await warningsOf(actor)).length > 0);
  expect(await warningsOf(actor)).toMatchObject([{ message: expect.stringContaining('(exclusive)') }]);
});

test('a host that throws where it is warned keeps no lock', async () => {
  const { actor, lock } = await setUp();
  await actor.run(`process.emitWarning = () => { throw new Error('no warnings'); };
    process.on('uncaughtException', () => {});`);
  await actor.acquire({ name });
  await actor.run('guards.clear()');
  await collectUntil(actor, () => lock.query().held.length === 0);
});

test('a frozen guard is not missed, and does no harm', async () => {
  const { actor } = await setUp();
  await actor.run(
    `globalThis.kept = Object.freeze(await lock({ name: args }).shared());
    for (let turns = 0; turns < 3; turns++) await new Promise(setImmediate);`,
    name,
  );
  expect(await actor.run('return kept.mode')).toBe('shared');
  await actor.run('kept.release();');
  expect(await actor.run('return kept.released')).toBe(true);
});

test('many at once, and those who waited for them are granted', async () => {
  const { actor, lock } = await setUp();
  for (let i = 0; i < 100; i++) await actor.acquire({ name, as: `${i}` });
  const writer = lock.exclusive();
  expect(lock.query()).toMatchObject({ pending: [{ mode: 'exclusive' }] });
  await actor.run('guards.clear()');
  await collectUntil(actor, () => lock.query().pending.length === 0);
  (await writer).release();
  await until(async () => (await warningsOf(actor)).length === 100);
});

test('a guard that is still in use, or was released in whichever way, is no leak', async () => {
  const { actor, lock } = await setUp();
  await actor.run(
    `const it = lock({ name: args });
     globalThis.kept = await it.shared();
     for (let i = 0; i < 200; i++) {
       (await it.shared()).release();
       await it.shared(() => {});
       it.tryShared()[Symbol.dispose]();
     }`,
    name,
  );
  await actor.run(`let rounds = 0;
    while (rounds++ < 20) { global.gc(); await new Promise((resolve) => setTimeout(resolve, 10)); }`);
  expect(await warningsOf(actor)).toEqual([]);
  expect(lock.query().held).toHaveLength(1);
  await actor.run('globalThis.kept.release()');
  expectIdle(lock);
});

test('the last use of a guard is its release: a handle that is forgotten meanwhile changes nothing', async () => {
  const { actor, lock } = await setUp();
  await actor.run(
    `const { SharedLock } = proclock;
    globalThis.kept = await new SharedLock(args.name, { namespace: args.namespace }).exclusive();`,
    {
      name,
      namespace: lock.namespace,
    },
  );
  await actor.run('for (let i = 0; i < 20; i++) { global.gc(); await new Promise(setImmediate); }');
  expect(lock.tryShared()).toBeNull();
  await actor.run('globalThis.kept.release()');
  expectIdle(lock);
  expect(await warningsOf(actor)).toEqual([]);
});
