// What is printed of locks, guards, managers and spaces, and what the error of a timeout says. None of it asks or waits.
import { inspect } from 'node:util';
import * as local from '../lib';
import { memory } from '../lib/memory';
import * as remote from '../lib/remote';
import { startActor } from './support/actor';
import { name, untilPending } from './support/locks';
import { testNamespace, until } from './support/namespace';

const CLASSES = ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const;

describe.each(['local', 'remote'] as const)('%s', (where) => {
  const namespace = testNamespace();
  const space = memory({ namespace });
  // They are called alike.
  const classes = (where === 'local' ? local : remote) as unknown as typeof local;
  const options = (where === 'local' ? { namespace } : { space }) as never;
  afterAll(() => space.close());

  test.each(CLASSES)('a %s, closed or not, alone or inside of something', (className) => {
    const lock = new classes[className](name, options);
    const printed = `${className} 'ledger' { namespace: '${namespace}' }`;
    for (const close of [false, true]) {
      if (close) lock.close();
      expect(inspect(lock)).toBe(printed);
      expect(inspect({ lock }, { breakLength: Number.POSITIVE_INFINITY })).toBe(`{ lock: ${printed} }`);
      expect(JSON.parse(JSON.stringify(lock))).toEqual({ name, namespace });
    }
  });

  test('a name with anything in it stays one word', () => {
    const lock = new classes.SharedLock("it's\n\u001b[31m", options);
    expect(inspect(lock)).toBe(`SharedLock "it's\\n\\x1B[31m" { namespace: '${namespace}' }`);
    lock.close();
  });

  test('a guard, released or not', async () => {
    const lock = new classes.SharedLock(name, options);
    const guard = await lock.exclusive();
    const printed = `LockGuard 'ledger' (exclusive, token ${guard.token}n)`;
    const data = { name, namespace, mode: 'exclusive', token: `${guard.token}`, abandoned: null };
    for (const release of [false, true]) {
      if (release) await guard.release();
      expect(inspect(guard)).toBe(printed);
      expect(JSON.parse(JSON.stringify(guard))).toEqual(data);
    }
    lock.close();
  });

  test('several locks at once', async () => {
    const lock = new classes.SharedLock(name, options);
    const all = await classes.acquireAll([lock]);
    expect(inspect(all)).toBe(
      `MultiGuard [ LockGuard 'ledger' (exclusive, token ${all.guards[0]!.token}n) ]`,
    );
    expect(JSON.parse(JSON.stringify(all))).toMatchObject({ guards: [{ name, mode: 'exclusive' }] });
    await all.release();
    lock.close();
  });

  test('a manager', () => {
    const manager = new classes.LockManager(options);
    expect(inspect(manager)).toBe(`LockManager { namespace: '${namespace}' }`);
    expect(JSON.parse(JSON.stringify(manager))).toEqual({ namespace });
  });
});

test('a space, open or closed', async () => {
  const space = memory();
  for (const close of [false, true]) {
    if (close) await space.close();
    expect(inspect(space)).toBe("Space 'memory' { namespace: 'default' }");
    expect(JSON.parse(JSON.stringify(space))).toEqual({ kind: 'memory', namespace: 'default' });
  }
});

test('the mark of a dead holder is plain data', async () => {
  const namespace = testNamespace();
  const lock = new local.SharedLock(name, { namespace });
  const actor = await startActor('fork', { namespace });
  await actor.acquire({ name, mode: 'exclusive' });
  const waiting = lock.shared();
  await actor.kill();
  const guard = await waiting;
  const { since, token } = guard.abandoned!;
  const abandoned = { pid: actor.pid, threadId: 0, since: since.toISOString(), token: `${token}` };
  expect(JSON.parse(JSON.stringify(guard))).toMatchObject({ abandoned });
  guard.release();
});

describe('query({ processes: true })', () => {
  test('tells of the command lines and whether they stand still; nothing of it without being asked', async () => {
    const namespace = testNamespace();
    const lock = new local.SharedLock(name, { namespace });
    const actor = await startActor('fork', { namespace });
    await actor.acquire({ name, mode: 'shared' });
    const guard = await lock.shared();
    const seen = (pid: number) => lock.query({ processes: true }).held.find((info) => info.pid === pid)!;
    expect(seen(process.pid)).toMatchObject({ stopped: false, command: expect.stringContaining('node') });
    expect(seen(actor.pid)).toMatchObject({ stopped: false, command: expect.stringContaining('actor') });
    expect(seen(actor.pid).command!.length).toBeLessThanOrEqual(200);
    process.kill(actor.pid, 'SIGSTOP');
    await until(() => seen(actor.pid).stopped === true);
    process.kill(actor.pid, 'SIGCONT');
    await until(() => seen(actor.pid).stopped === false);
    for (const options of [undefined, {}, { processes: false }]) {
      for (const info of lock.query(options).held) {
        expect(info).not.toHaveProperty('command');
        expect(info).not.toHaveProperty('stopped');
      }
    }
    guard.release();
    await actor.release(name);
  });

  test('takes no other arguments', () => {
    const lock = new local.SharedLock(name, { namespace: testNamespace() });
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' });
    expect(() => lock.query(true as never)).toThrow(invalid);
    expect(() => lock.query({ processes: 1 } as never)).toThrow(invalid);
  });
});

describe('the error of a timeout', () => {
  test('names the holder, its age, whether it stands still, and our place; never a command line', async () => {
    const namespace = testNamespace();
    const lock = new local.SharedLock(name, { namespace });
    const actor = await startActor('fork', { namespace });
    const thread = await startActor('thread', { namespace });
    await actor.acquire({ name, mode: 'exclusive' });
    const ended = new AbortController();
    const others = [lock.exclusive({ signal: ended.signal }), lock.shared({ signal: ended.signal })];
    await untilPending(lock, 2);
    const message = async (): Promise<string> =>
      (await lock.shared({ timeout: 20 }).catch((error: Error) => error.message)) as string;
    const holder = `pid ${actor.pid} thread 0 \\(exclusive, for \\d+\\.\\d s\\)`;
    expect(await message()).toMatch(
      new RegExp(
        `^Could not acquire "ledger" \\(shared\\) within 20 ms: held by ${holder}; number 3 in the queue$`,
      ),
    );
    const ofThread = await thread
      .call('acquireSync', { name, mode: 'exclusive', timeout: 20 })
      .catch((error: Error) => error.message);
    expect(ofThread).toMatch(/; number 3 in the queue$/);
    process.kill(actor.pid, 'SIGSTOP');
    await until(async () => (await message()).includes('s, stopped)'));
    expect(await message()).not.toContain('node');
    process.kill(actor.pid, 'SIGCONT');
    ended.abort();
    await Promise.allSettled(others);
    await actor.release(name);
  });

  test('does not name more holders than one can read, but has them all', async () => {
    const lock = new local.SharedLock(name, { namespace: testNamespace() });
    const guards = await Promise.all(Array.from({ length: 10 }, () => lock.shared()));
    const error = await lock.exclusive({ timeout: 0 }).catch((error: local.LockError) => error);
    expect((error as local.LockError).holders).toHaveLength(10);
    expect((error as Error).message).toMatch(/(pid .*){4}, 6 more$/);
    for (const guard of guards) guard.release();
  });
});

test('an error names a lock without what a terminal takes for an order', () => {
  using lock = new local.SharedLock('a\u009b31m\u202eb\u007f', { namespace: testNamespace() });
  const guard = lock.exclusiveSync();
  guard.release();
  expect(() => guard.release()).toThrow('"a\\u009b31m\\u202eb\\u007f"');
});
