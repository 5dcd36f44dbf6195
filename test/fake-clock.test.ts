// Time-outs are real time, whatever a test library has done to the clocks and timers of the process, before the package is
// loaded or after that.
import { spawnSync } from 'node:child_process';
import type * as Package from '../lib';
import { SharedLock } from '../lib';
import { name, testNamespace } from './support/namespace';
import { DIST } from './support/segment';

/** Stands still, as those of test libraries do: all that such a library replaces. */
const FAKE = `
  performance.now = () => 1;
  process.hrtime = Object.assign(() => [1, 0], { bigint: () => 1n });
  Date = class extends Date { static now() { return 1; } };
  const idle = { ref: () => idle, unref: () => idle, hasRef: () => false, refresh: () => idle };
  for (const target of [globalThis, require('node:timers'), require('node:timers/promises')]) {
    for (const name of ['setTimeout', 'setInterval', 'setImmediate']) target[name] = () => idle;
    for (const name of ['clearTimeout', 'clearInterval', 'clearImmediate']) target[name] = () => {};
  }
  globalThis.queueMicrotask = () => {};
`;

/** Runs in a process of its own while this one holds the lock: what it returns. */
function inFakeTime(when: 'before' | 'after', body: string): unknown {
  const namespace = testNamespace();
  const program = `
    const { writeSync } = require('node:fs');
    const { uptime } = process;
    ${when === 'before' ? FAKE : ''}
    const { SharedLock, LockManager } = require(${JSON.stringify(DIST)});
    const [name, namespace] = ${JSON.stringify([name, namespace])};
    const lock = new SharedLock(name, { namespace });
    ${when === 'after' ? FAKE : ''}
    const from = uptime();
    const refusal = ({ name, code }) => [code ?? name, uptime() - from >= 0.1];
    (async () => { ${body} })().then((value) => writeSync(1, JSON.stringify(value)));`;
  const lock = new SharedLock(name, { namespace });
  const guard = lock.exclusiveSync();
  try {
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
      encoding: 'utf8',
      timeout: 60_000,
      killSignal: 'SIGKILL',
    });
    return JSON.parse(stdout || JSON.stringify(`no answer ${stderr}`));
  } finally {
    guard.release();
    lock.close();
  }
}

describe.each(['before', 'after'] as const)('clocks that were replaced %s the package was loaded', (when) => {
  test('a sync wait ends in time', () => {
    const body = 'try { lock.exclusiveSync({ timeout: 100 }); } catch (error) { return refusal(error); }';
    expect(inFakeTime(when, body)).toEqual(['ERR_LOCK_TIMEOUT', true]);
  });

  test('an asynchronous wait ends in time', () => {
    const body = 'return lock.exclusive({ timeout: 100 }).catch(refusal);';
    expect(inFakeTime(when, body)).toEqual(['ERR_LOCK_TIMEOUT', true]);
  });

  test('who is robbed is told', () => {
    const body = `
      const manager = new LockManager({ namespace });
      const robbed = manager.request('other', () => new Promise(() => {})).catch(({ name }) => name);
      for (let i = 0; i < 10; i++) await null;
      const end = lock.exclusive({ timeout: 100 }).catch(() => manager.request('other', { steal: true }, () => {}));
      return [await robbed, await end];`;
    expect(inFakeTime(when, body)).toEqual(['AbortError', null]);
  });
});

test('the fake timers of jest itself', async () => {
  const { setImmediate: turn } = globalThis;
  jest.useFakeTimers();
  try {
    let late: typeof Package | undefined;
    jest.isolateModules(() => {
      late = require('../lib');
    });
    for (const copy of [{ SharedLock }, late!]) {
      const lock = new copy.SharedLock(name, { namespace: testNamespace() });
      const guard = await lock.exclusive();
      await expect(lock.exclusive({ timeout: 50 })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
      guard.release();
      lock.close();
    }
  } finally {
    jest.useRealTimers();
    await new Promise(turn);
  }
});
