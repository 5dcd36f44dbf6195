// The package in one process: what the README shows.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as proclock from '../lib';
import { Lock, LockError, SharedLock, SharedRLock } from '../lib';
import { CLASS_NAMES, expectIdle, freshLock, makeLock, name } from './support/locks';
import { testNamespace } from './support/namespace';

const ROOT = join(__dirname, '..');

test('the package exports the classes of the contract', () => {
  for (const className of [...CLASS_NAMES, 'LockError', 'LockManager', 'locks', 'Local'])
    expect(proclock).toHaveProperty(className);
  expect(SharedRLock.prototype).toBeInstanceOf(SharedLock);
  expect(proclock.RLock.prototype).toBeInstanceOf(Lock);
});

test.each(CLASS_NAMES)(
  '%s: each way to acquire gives a guard, and the release gives the lock back',
  async (className) => {
    const lock = makeLock(className);
    const ways = [() => lock.acquire(), async () => lock.acquireSync(), async () => lock.tryAcquire()!];
    for (const acquire of ways) {
      const guard = await acquire();
      expect(guard.lock).toBe(lock);
      expect(guard.mode).toBe(className.startsWith('Shared') ? 'shared' : 'exclusive');
      expect(lock.query().held).toHaveLength(1);
      guard.release();
      expectIdle(lock);
    }
    expect(await lock.acquire(() => 1)).toBe(1);
    expect(await lock.acquire({ timeout: 10 }, async () => 2)).toBe(2);
    expect(lock.acquireSync(() => 3)).toBe(3);
    expect(lock.acquireSync({ timeout: 10 }, () => 4)).toBe(4);
    expectIdle(lock);
  },
);

test('acquire, acquireSync and tryAcquire are shared unless `exclusive` says otherwise', async () => {
  const lock = freshLock();
  for (const [options, mode] of [
    [{}, 'shared'],
    [{ exclusive: false }, 'shared'],
    [{ exclusive: true }, 'exclusive'],
  ] as const) {
    for (const guard of [await lock.acquire(options)]) {
      expect(guard.mode).toBe(mode);
      guard.release();
    }
    expect(lock.acquireSync(options, (guard) => guard.mode)).toBe(mode);
    const guard = lock.tryAcquire(options)!;
    expect(guard.mode).toBe(mode);
    expect(lock.query()).toMatchObject({ held: [{ mode }] });
    guard.release();
  }
});

test('the four classes of one name are the same lock', async () => {
  const namespace = testNamespace();
  const locks = CLASS_NAMES.map((className) => makeLock(className, namespace));
  for (const holder of locks) {
    const guard = await holder.acquire({ exclusive: true });
    for (const lock of locks) expect(lock.tryAcquire()).toBeNull();
    guard.release();
  }
});

test('an error is an Error with a code, and says what was wanted, of which lock', async () => {
  const lock = new SharedLock(name, { namespace: testNamespace() });
  using _guard = await lock.exclusive();
  const error: unknown = await lock.shared({ timeout: 0 }).catch((error) => error);
  expect(error).toBeInstanceOf(LockError);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_TIMEOUT' });
  expect((error as Error).message).toContain(JSON.stringify(name));
  expect((error as Error).message).toContain('shared');
});

test('many waits of one thread are granted one after the other', async () => {
  const lock = freshLock();
  const order: number[] = [];
  const guard = await lock.exclusive();
  const waits = Array.from({ length: 100 }, (_, i) => lock.exclusive(() => order.push(i)));
  expect(lock.query().pending).toHaveLength(100);
  guard.release();
  await Promise.all(waits);
  expect(order).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expectIdle(lock);
});

test('the built package works by require() and by import, and both are the same locks', () => {
  expect(existsSync(join(ROOT, 'dist/index.js'))).toBe(true);
  const namespace = testNamespace();
  const script = `
    const { createRequire } = await import('node:module');
    const required = createRequire('${ROOT}/').call(null, '${ROOT}/dist/index.js');
    const imported = await import('${ROOT}/dist/index.mjs');
    const options = { namespace: '${namespace}' };
    const guard = new required.SharedLock('x', options).exclusiveSync();
    console.log(new imported.SharedLock('x', options).tryShared() === null, imported.LockError === required.LockError);
    guard.release();`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(output.trim()).toBe('true true');
});
