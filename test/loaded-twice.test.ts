// Two copies of the package in one thread, as with two installed versions, or two test files of a test runner.
import type * as Package from '../lib';
import { name, testNamespace, until } from './support/namespace';

function load(): typeof Package {
  let copy: typeof Package | undefined;
  jest.isolateModules(() => {
    copy = require('../lib');
  });
  return copy!;
}

test('two copies of the package exclude each other and wake each other', async () => {
  const [one, other] = [load(), load()];
  expect(one.SharedLock).not.toBe(other.SharedLock);
  const namespace = testNamespace();
  const [lock, same] = [new one.SharedLock(name, { namespace }), new other.SharedLock(name, { namespace })];

  for (const [mine, theirs] of [
    [lock, same],
    [same, lock],
  ] as const) {
    const guard = await mine.exclusive();
    expect(theirs.tryShared()).toBeNull();
    const waiting = theirs.exclusive();
    await until(() => mine.query().pending.length === 1);
    guard.release();
    (await waiting).release();
  }
  expect(lock.query()).toEqual({ held: [], pending: [] });

  lock.close();
  same.exclusiveSync().release();
});
