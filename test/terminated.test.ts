// Code that does not come to its end: terminated by a time-out of `vm`, out of stack, or waiting for what never comes. No
// `finally` of ours runs then, and still nothing stays held or queued.
import { setImmediate } from 'node:timers/promises';
import { LockManager, RLock, SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { expectIdle, name } from './support/locks';
import { testNamespace, until } from './support/namespace';

let lock: SharedLock;
let actor: Actor;
beforeEach(async () => {
  lock = new SharedLock(name, { namespace: testNamespace() });
  actor = await startActor('fork', { namespace: lock.namespace, execArgv: ['--expose-gc'] });
});

const TERMINATE = `
  const vm = require('node:vm');
  try {
    vm.runInNewContext(args.source, { lock: lock({ name: args.name }) }, { timeout: args.timeout });
  } catch (error) {
    return error.code;
  }`;

const terminate = (source: string) => actor.run(TERMINATE, { name, source, timeout: 150 });

/** Of the actor: finalizers run in turns of their own. */
const collectUntil = (condition: () => boolean) =>
  until(async () => {
    await actor.run('global.gc(); await new Promise(setImmediate);');
    return condition();
  });

const isFree = () => lock.query().held.length === 0;

test.each(['exclusiveSync', 'sharedSync'])('a blocking wait (%s) leaves the queue', async (call) => {
  const guard = await lock.exclusive();
  expect(await terminate(`lock.${call}()`)).toBe('ERR_SCRIPT_EXECUTION_TIMEOUT');
  await until(() => lock.query().pending.length === 0);
  guard.release();
  expectIdle(lock);
});

test('one that was granted at that moment gives the lock back', async () => {
  const guard = await lock.exclusive();
  // What is called first with the grant is where the code ends.
  const ending = actor.run(
    `const it = lock({ name: args });
    const { holds } = it.record;
    holds.at = () => {
      delete holds.at;
      throw new Error('terminated');
    };
    try { it.exclusiveSync(); } catch ({ message }) { return message; }`,
    name,
  );
  await until(() => lock.query().pending.length === 1);
  guard.release();
  expect(await ending).toBe('terminated');
  await until(isFree);
  expectIdle(lock);
});

test('it does so before the next one of its thread waits, in the same turn of the event loop', async () => {
  const guard = await lock.exclusive();
  const pending = await actor.run(
    `const vm = require('node:vm');
    const it = lock({ name: args });
    const codes = [];
    const attempt = (fn) => { try { fn(); } catch (error) { codes.push(error.code); } };
    attempt(() => vm.runInNewContext('lock.exclusiveSync()', { lock: it }, { timeout: 150 }));
    codes.push(it.query().pending.length);
    attempt(() => it.exclusiveSync({ timeout: 1 }));
    codes.push(it.query().pending.length);
    return codes;`,
    name,
  );
  expect(pending).toEqual(['ERR_SCRIPT_EXECUTION_TIMEOUT', 1, 'ERR_LOCK_TIMEOUT', 0]);
  guard.release();
  expectIdle(lock);
});

test.each([
  ['sync', 'lock.exclusiveSync(() => { for (;;); })'],
  ['async', 'lock.exclusive(() => { for (;;); })'],
])('a callback (%s) leaves its lock to the garbage collection', async (_, source) => {
  expect(await terminate(source)).toBe('ERR_SCRIPT_EXECUTION_TIMEOUT');
  await collectUntil(isFree);
  expectIdle(lock);
});

test('a listener leaves the next ones to be told, and waits to be granted', async () => {
  const other = new SharedLock('other', { namespace: lock.namespace });
  const held = await other.exclusive();
  await actor.acquire({ name, mode: 'exclusive' });
  const terminated = await actor.run(
    `guards.get(args.name).lost.addEventListener('abort', () => { for (;;); });
    await new Promise(setImmediate); // the native part knows who listens
    const manager = new proclock.LockManager({ namespace: args.namespace });
    const rob = () => manager.request(args.name, { steal: true }, () => {});
    try {
      require('node:vm').runInNewContext('rob()', { rob }, { timeout: 150 });
    } catch (error) {
      return error.code;
    }`,
    { name, namespace: lock.namespace },
  );
  expect(terminated).toBe('ERR_SCRIPT_EXECUTION_TIMEOUT');
  const waiting = actor.acquire({ name: 'other', mode: 'exclusive' });
  await until(() => other.query().pending.length === 1);
  held.release();
  await waiting;
  await actor.release('other');
  other.close();
});

test('a callback that waits for what can not come any more leaves its lock to the garbage collection', async () => {
  await actor.run('lock({ name: args }).exclusive(() => new Promise(() => {})); await 0', name);
  expect(isFree()).toBe(false);
  await collectUntil(isFree);
  expectIdle(lock);
});

// Each is called again and again: it is ended anywhere in it.
const FORMS = {
  guard: 'lock.exclusiveSync().release()',
  'guard, with options': 'lock.sharedSync({ timeout: 60_000 }).release()',
  'try..()': 'lock.tryExclusive().release()',
  callback: 'lock.exclusiveSync(() => {})',
};

// What a guard that was not released holds is given back by the garbage collection, all else when the turn is over.
const FREED = `
  const freed = async (lock) => {
    for (let turns = 0; turns < 3; turns++) {
      await new Promise(setImmediate);
      if (lock.query().held.length > 0) global.gc();
    }
  };`;

test.each(Object.entries(FORMS))('tight loops leave nothing held: %s', async (_, source) => {
  const codes = await actor.run<string[]>(
    `${FREED}
    const it = lock({ name: args.name });
    const vm = require('node:vm');
    const codes = [];
    for (let i = 0; i < 60; i++) {
      try { vm.runInNewContext('for (;;) ' + args.source, { lock: it }, { timeout: 3 + (i % 4) }); }
      catch (error) { codes.push(error.code); }
      await freed(it);
      if (it.query().held.length > 0) break;
    }
    return codes;`,
    { name, source },
  );
  await collectUntil(isFree);
  expect(new Set(codes)).toEqual(new Set(['ERR_SCRIPT_EXECUTION_TIMEOUT']));
  expect(codes).toHaveLength(60);
  expectIdle(lock);
});

test.each(Object.entries(FORMS))('a recursion without end leaves nothing held: %s', async (_, source) => {
  const errors = await actor.run<string[]>(
    `${FREED}
    const it = lock({ name: args.name });
    const work = new Function('lock', args.source);
    const errors = [];
    const deep = () => { work(it); deep(); };
    const begin = (frames) => (frames === 0 ? deep() : begin(frames - 1));
    for (let frames = 0; frames < 100; frames++) {
      try { begin(frames); } catch (error) { errors.push(error.name); }
      await freed(it);
    }
    return errors;`,
    { name, source },
  );
  await collectUntil(isFree);
  expect(new Set(errors)).toEqual(new Set(['RangeError']));
  expectIdle(lock);
});

test('a release that did not come to its end is no release, and can be repeated', () => {
  const guard = lock.exclusiveSync();
  const { record } = lock;
  const ending = jest.spyOn(record, 'forgetHold').mockImplementationOnce(() => {
    throw new RangeError('the end of the stack');
  });
  expect(() => guard.release()).toThrow('the end of the stack');
  expect(guard.released).toBe(false);
  expect(isFree()).toBe(false);
  guard.release();
  expect(guard.released).toBe(true);
  expectIdle(lock);
  ending.mockRestore();
});

test('a release that was not told does not speak for the next hold', async () => {
  const guard = lock.exclusiveSync();
  expect(guard.lost.aborted).toBe(false);
  await turns();
  await actor.run(
    `await new proclock.LockManager({ namespace: args.namespace }).request(args.name, { steal: true }, () => {});`,
    { name, namespace: lock.namespace },
  );
  await until(() => guard.lost.aborted);
  const { leak } = guard;
  jest.spyOn(leak!, 'forget').mockImplementationOnce(() => {
    throw new RangeError('the end of the stack');
  });
  expect(() => guard.release()).toThrow('the end of the stack');
  expect(guard.released).toBe(true);
  const next = lock.exclusiveSync();
  expect(next.hold).toBe(guard.hold);
  next.release();
  expectIdle(lock);
  expectCounted();
});

const turns = async () => {
  for (let turn = 0; turn < 4; turn++) await setImmediate();
};

test('a hold has time to come to its guard', async () => {
  const guard = await lock.exclusive({ timeout: 0 });
  await turns();
  expect(isFree()).toBe(false);
  guard.release();
  expectIdle(lock);
});

/** Whoever holds a lock of that name goes on holding it when its handle is closed: it is counted right. */
function expectCounted(): void {
  const handle = new SharedLock(name, { namespace: lock.namespace });
  lock.close();
  const guard = handle.exclusiveSync();
  handle.close();
  expect(guard.lost.aborted).toBe(false);
  guard.release();
  expect(lock.record.space.records.has(name)).toBe(false);
}

describe('what has come to no guard', () => {
  /** The next grant of this lock comes to none. */
  const end = ({ record }: SharedLock) =>
    jest.spyOn(record, 'addHold').mockImplementationOnce(() => {
      throw new RangeError('the end of the stack');
    });

  test('is given back when the turn is over, whatever is nested meanwhile', async () => {
    const tree = new RLock('tree', { namespace: lock.namespace });
    const outer = tree.acquireSync();
    end(lock);
    expect(() => lock.exclusiveSync()).toThrow('the end of the stack');
    tree.acquireSync().release();
    expect(isFree()).toBe(false);
    await turns();
    expectIdle(lock);
    outer.release();
    expectCounted();
  });

  test('is given back in a program that has requests alone', async () => {
    end(lock);
    const manager = new LockManager({ namespace: lock.namespace });
    await expect(manager.request(name, () => {})).rejects.toThrow('the end of the stack');
    await turns();
    expectIdle(lock);
  });

  test('is not what a later request holds, at once or after a wait', async () => {
    const manager = new LockManager({ namespace: lock.namespace });
    const other = new SharedLock('other', { namespace: lock.namespace });
    const ends: Array<() => void> = [];
    const request = () =>
      manager.request(name, async () => {
        await new Promise<void>((resolve) => ends.push(resolve));
      });
    const running: Array<Promise<void>> = [];
    for (let round = 0; round < 5; round++) {
      running.push(request());
      await turns();
      ends[round - 1]?.(); // the one that holds, now that the next one waits
      await turns();
    }
    other.exclusiveSync().release();
    await turns();
    expect(lock.query().held).toHaveLength(1);
    ends.at(-1)?.();
    await Promise.all(running);
    expectIdle(lock);
  });
});

test('a recursion without end, of nested callbacks, leaves nothing held', async () => {
  await actor.run(
    `const tree = new proclock.RLock(args.name, { namespace: args.namespace });
    const nest = () => 1 + tree.acquireSync(nest);
    const begin = (frames) => (frames === 0 ? nest() : begin(frames - 1));
    globalThis.errors = [];
    for (let frames = 0; frames < 50; frames++) {
      try { begin(frames); } catch (error) { errors.push(error.name); }
    }`,
    { name, namespace: lock.namespace },
  );
  expect(new Set(await actor.run<string[]>('return errors'))).toEqual(new Set(['RangeError']));
  await collectUntil(isFree);
  expectIdle(lock);
});
