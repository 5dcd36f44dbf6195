// Wrong arguments fail in the words of Node's own API, and leave nothing held or queued.
import { type AcquireOptions, Lock, type LockOptions, SharedLock } from '../lib';
import { expectIdle, freshLock, makeLock, name, withCode } from './support/locks';
import { segmentFiles, testNamespace } from './support/namespace';

const any = (value: unknown) => value as never;
const label = (value: unknown) => `${typeof value} ${String(value)}`;
const labelled = (values: unknown[]) => values.map((value) => [label(value), value] as const);

/** What must fail, with a value of the wrong kind put in. */
function expectArgumentError(
  error: unknown,
  Class: typeof TypeError | typeof RangeError,
  code: string,
): void {
  expect(error).toBeInstanceOf(Class);
  expect(error).toEqual(withCode(code));
}

function thrownBy(fn: () => unknown): unknown {
  try {
    fn();
  } catch (error) {
    return error;
  }
  throw new Error('did not throw');
}

describe('the constructor', () => {
  test.each(labelled([null, 1, true, {}, [], Symbol('name'), () => name]))('name: %s', (_, value) => {
    for (const Class of [SharedLock, Lock]) {
      const namespace = testNamespace();
      const error = thrownBy(() => new Class(any(value), { namespace }));
      expectArgumentError(error, TypeError, 'ERR_INVALID_ARG_TYPE');
      expect(segmentFiles(namespace)).toEqual([]);
      expect((error as Error).message).toContain('"name"');
    }
  });

  test.each(labelled([null, 1, 'options', true]))('options: %s', (_, value) => {
    expectArgumentError(
      thrownBy(() => new SharedLock(name, any(value))),
      TypeError,
      'ERR_INVALID_ARG_TYPE',
    );
  });

  test.each(labelled([null, 1, 'yes', {}]))('options.fair: %s', (_, fair) => {
    const options: LockOptions = { namespace: testNamespace(), fair: any(fair) };
    expectArgumentError(
      thrownBy(() => new SharedLock(name, options)),
      TypeError,
      'ERR_INVALID_ARG_TYPE',
    );
    expect(segmentFiles(options.namespace!)).toEqual([]);
  });

  test.each(['Lock', 'SharedLock'] as const)('%s: a space is for proclock/remote', (kind) => {
    const options = { namespace: testNamespace(), space: {} };
    const error = thrownBy(() => new ({ Lock, SharedLock })[kind](name, options));
    expectArgumentError(error, TypeError, 'ERR_INVALID_ARG_VALUE');
    expect((error as Error).message).toContain('proclock/remote');
    expect(segmentFiles(options.namespace)).toEqual([]);
  });

  test('a group with a NUL is none', () => {
    const options = { namespace: testNamespace(), group: 'root\0x' };
    expectArgumentError(
      thrownBy(() => new SharedLock(name, options)),
      TypeError,
      'ERR_INVALID_ARG_VALUE',
    );
  });

  test('is no function', () => {
    expect(() => (SharedLock as never as () => void)()).toThrow(TypeError);
  });
});

describe('options of an acquire', () => {
  const wrong: Array<[keyof AcquireOptions | 'exclusive' | 'options', unknown, 'type' | 'range' | 'value']> =
    [
      ['options', null, 'type'],
      ['options', 1, 'type'],
      ['options', 'exclusive', 'type'],
      ['timeout', null, 'type'],
      ['timeout', '10', 'type'],
      ['timeout', 10n, 'type'],
      ['timeout', -1, 'range'],
      ['timeout', Number.NaN, 'range'],
      ['timeout', Number.NEGATIVE_INFINITY, 'range'],
      ['signal', null, 'type'],
      ['signal', 'abort', 'type'],
      ['signal', {}, 'type'],
      ['signal', new AbortController(), 'type'],
      ['within', null, 'type'],
      ['within', {}, 'type'],
      ['within', 1, 'type'],
      ['exclusive', null, 'type'],
      ['exclusive', 'yes', 'type'],
      ['deadlock', null, 'value'],
      ['deadlock', true, 'value'],
      ['deadlock', 'ignore', 'value'],
    ];
  const errors = {
    type: [TypeError, 'ERR_INVALID_ARG_TYPE'],
    range: [RangeError, 'ERR_OUT_OF_RANGE'],
    value: [TypeError, 'ERR_INVALID_ARG_VALUE'],
  } as const;

  test.each(wrong.map(([key, value, kind]) => [key, label(value), value, kind] as const))(
    '%s: %s',
    async (key, _, value, kind) => {
      const options = any(key === 'options' ? value : { [key]: value });
      const [Class, code] = errors[kind];
      const lock = freshLock();
      const fn = () => {
        throw new Error('called');
      };
      const asyncCalls = [
        lock.shared,
        lock.exclusive,
        lock.acquire,
        makeLock('Lock', lock.namespace).acquire,
      ];
      const syncCalls = [lock.sharedSync, lock.exclusiveSync, lock.acquireSync];
      for (const call of asyncCalls) {
        for (const args of [[options], [options, fn]]) {
          const error = await (call as (...args: unknown[]) => Promise<unknown>)
            .apply(lock, args)
            .catch((error) => error);
          expectArgumentError(error, Class, code);
        }
      }
      for (const call of syncCalls) {
        for (const args of [[options], [options, fn]]) {
          const error = thrownBy(() => (call as (...args: unknown[]) => unknown).apply(lock, args));
          expectArgumentError(error, Class, code);
        }
      }
      expectIdle(lock);
    },
  );

  test.each(labelled([null, 1, 'fn', {}]))('the function: %s', async (_, fn) => {
    const lock = freshLock();
    const error = await lock.exclusive({}, any(fn)).catch((error) => error);
    expectArgumentError(error, TypeError, 'ERR_INVALID_ARG_TYPE');
    expectArgumentError(
      thrownBy(() => lock.exclusiveSync({}, any(fn))),
      TypeError,
      'ERR_INVALID_ARG_TYPE',
    );
    expectIdle(lock);
  });

  test('the function before the options', async () => {
    const lock = freshLock();
    const fn = jest.fn();
    const error = await lock.exclusive(any(fn), any({ timeout: 0 })).catch((error) => error);
    expectArgumentError(error, TypeError, 'ERR_INVALID_ARG_TYPE');
    expectArgumentError(
      thrownBy(() => lock.exclusiveSync(any(fn), any({ timeout: 0 }))),
      TypeError,
      'ERR_INVALID_ARG_TYPE',
    );
    expect(fn).not.toHaveBeenCalled();
    expectIdle(lock);
  });

  test.each(labelled([null, 1, 'exclusive']))('tryAcquire: %s', (_, options) => {
    const lock = freshLock();
    expectArgumentError(
      thrownBy(() => lock.tryAcquire(any(options))),
      TypeError,
      'ERR_INVALID_ARG_TYPE',
    );
    const error = thrownBy(() => lock.tryAcquire({ exclusive: any(options) }));
    expectArgumentError(error, TypeError, 'ERR_INVALID_ARG_TYPE');
    expectIdle(lock);
  });

  test('undefined stands for the default, everywhere', async () => {
    const lock = new SharedLock(name, {
      namespace: testNamespace(),
      fair: undefined,
      group: undefined,
    } as never);
    const options = {
      timeout: undefined,
      signal: undefined,
      within: undefined,
      exclusive: undefined,
    } as never;
    expect(await lock.acquire(undefined, ({ mode }) => mode)).toBe('shared');
    expect(await lock.acquire(options, ({ mode }) => mode)).toBe('shared');
    expect(lock.exclusiveSync(options, ({ mode }) => mode)).toBe('exclusive');
    expectIdle(lock);
  });
});

test('a guard that was released is no owner: `within` says so', async () => {
  const lock = freshLock();
  const guard = await lock.shared();
  guard.release();
  await expect(lock.shared({ within: guard })).rejects.toEqual(withCode('ERR_LOCK_NOT_HELD'));
  expect(() => lock.sharedSync({ within: guard })).toThrow(withCode('ERR_LOCK_NOT_HELD'));
  expectIdle(lock);
});
