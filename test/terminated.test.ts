// Code that does not come to its end: terminated by a time-out of `vm`, out of stack, or waiting for what never comes. No
// `finally` of ours runs then, and still nothing stays held or queued.
import { SharedLock } from '../lib';
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
