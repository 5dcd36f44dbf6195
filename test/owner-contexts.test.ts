// All that a callback form causes to run of the user's runs as its owner, until it has settled; and a context that has ended
// costs nothing: neither memory, nor time to find an owner.
import { EventEmitter, once } from 'node:events';
import { queryObjects } from 'node:v8';
import { RLock, SharedRLock } from '../lib';
import { HoldSet, OWNER } from '../lib/common/owner';
import { expectIdle } from './support/locks';
import { name, testNamespace } from './support/namespace';

type Resolve = (value: unknown) => void;
type Then = (resolve: Resolve, reject: Resolve) => unknown;

const FORMS = ['RLock acquire', 'SharedRLock exclusive', 'SharedRLock shared'] as const;

function setUp(form: (typeof FORMS)[number] = 'RLock acquire') {
  const options = { namespace: testNamespace() };
  const lock = form === 'RLock acquire' ? new RLock(name, options) : new SharedRLock(name, options);
  const method = form.split(' ')[1] as 'acquire';
  const run = (fn: () => unknown): Promise<unknown> => (lock as RLock)[method](fn);
  /** Nests, or says why not. */
  const nested = (value: unknown): Promise<unknown> =>
    (lock as RLock)[method]({ timeout: 50 }, () => value).catch(({ code }) => code);
  return { lock, run, nested };
}

const thenable = (then: Then) => ({ then });

describe.each(FORMS)('%s: what a callback returns', (form) => {
  test('a query that begins in then() is inside of it', async () => {
    const { lock, run, nested } = setUp(form);
    expect(await run(() => thenable((resolve) => nested('rows').then(resolve)))).toBe('rows');
    expect(lock.query().held).toEqual([]);
  });

  test('also where it had to wait for the lock', async () => {
    const { lock, run, nested } = setUp(form);
    const guard = lock.acquireSync({ exclusive: true } as object);
    const answer = run(() => thenable((resolve) => nested('rows').then(resolve)));
    guard.release();
    expect(await answer).toBe('rows');
  });

  test('a getter `then` is inside of it', async () => {
    const { run, nested } = setUp(form);
    const inside: Array<Promise<unknown>> = [];
    const value = {
      // biome-ignore lint/suspicious/noThenProperty: it is what the test is about.
      get then() {
        inside.push(nested('yes'));
        return undefined;
      },
    };
    await run(() => value);
    expect(await inside[0]).toBe('yes');
  });

  test('a query that resolves with a query, outside of it: both are inside', async () => {
    const { run, nested } = setUp(form);
    const pool = new EventEmitter();
    const emitter = once(pool, 'query').then(() => pool.emit('answer')); // in a context of its own
    const inner = thenable((resolve) => nested('rows').then(resolve));
    const outer = thenable((resolve) => {
      pool.once('answer', () => resolve(inner));
      pool.emit('query');
    });
    expect(await run(() => outer)).toBe('rows');
    await emitter;
  });

  test('a promise with a then() of its own is inside of it', async () => {
    const { run, nested } = setUp(form);
    class Query<T> extends Promise<T> {
      static override get [Symbol.species]() {
        return Promise;
      }
      // biome-ignore lint/suspicious/noThenProperty: it is what the test is about.
      override then<A = T, B = never>(
        resolve?: ((value: T) => A | PromiseLike<A>) | null,
        reject?: ((reason: unknown) => B | PromiseLike<B>) | null,
      ): Promise<A | B> {
        return nested('rows')
          .then((rows) => super.then(() => rows as T))
          .then(resolve, reject);
      }
    }
    expect(await run(() => new Query<unknown>((resolve) => resolve(1)))).toBe('rows');
  });
});

test('a thenable that fails, in whatever way, releases the lock and rejects', async () => {
  const { lock, run } = setUp();
  const error = new Error('failed');
  const fails: Then[] = [
    (_, reject) => reject(error),
    () => {
      throw error;
    },
    (resolve) =>
      resolve(
        thenable((_, reject) => {
          reject(error);
          resolve(1); // once is enough
        }),
      ),
    (resolve) => resolve(Promise.reject(error)),
  ];
  for (const then of fails) {
    await expect(run(() => thenable(then))).rejects.toBe(error);
    expect(lock.query().held).toEqual([]);
  }
  const getter = () =>
    Object.defineProperty({}, 'then', {
      get() {
        throw error;
      },
    });
  await expect(run(getter)).rejects.toBe(error);
  await expect(run(() => thenable((resolve) => resolve(getter())))).rejects.toBe(error);
  const twice: Then = (resolve) => {
    resolve('first');
    throw error;
  };
  expect(await run(() => thenable(twice))).toBe('first');
  expect(lock.query().held).toEqual([]);
});

test('a promise that can not be waited for leaves nothing held', async () => {
  const { lock, run } = setUp();
  const promise = Promise.resolve();
  Reflect.set(promise, 'then', undefined);
  await run(() => promise);
  expectIdle(lock);
});

test('a thenable that was answered is no owner any more', async () => {
  const { lock, run } = setUp();
  let late: Promise<unknown> | undefined;
  await run(() =>
    thenable((resolve) => {
      late = new Promise(setImmediate).then(() => lock.tryAcquire());
      resolve(1);
    }),
  );
  const guard = await lock.acquire();
  expect(await late).toBeNull();
  guard.release();
});

test('jobs that start the next one from inside leave no context behind', async () => {
  const { lock } = setUp();
  const chain = (jobs: number, done: () => void): Promise<unknown> =>
    lock.acquire(async () => {
      if (jobs === 0) done();
      else setImmediate(chain, jobs - 1, done);
    });
  await new Promise<void>((resolve) => chain(500, resolve));
  expect(queryObjects(HoldSet)).toBeLessThan(20);
});

test('the same with contexts around them that go on', async () => {
  const { lock, nested } = setUp();
  const other = new RLock('other', { namespace: lock.namespace });
  await lock.acquire(async () => {
    const chain = (jobs: number, done: (value: unknown) => void): Promise<unknown> =>
      other.acquire(async () => {
        if (jobs === 0) done(await nested('still inside'));
        else setImmediate(chain, jobs - 1, done);
      });
    expect(await new Promise((resolve) => chain(500, resolve))).toBe('still inside');
    expect(queryObjects(HoldSet)).toBeLessThan(20);
  });
});

test('a guard that is kept knows nothing of what was acquired within it and released', async () => {
  const { lock } = setUp();
  const other = new RLock('other', { namespace: lock.namespace });
  const guard = await lock.acquire();
  const kept = await other.acquire({ within: guard });
  for (let i = 0; i < 100; i++) {
    const names = new RLock(`name ${i}`, { namespace: lock.namespace });
    (await names.acquire({ within: guard })).release();
    names.close();
  }
  const owner = (guard as unknown as Record<typeof OWNER, () => { more: Map<unknown, unknown> }>)[OWNER]();
  expect(owner.more.size).toBe(1);
  kept.release();
  expect(owner.more.size).toBe(0);
  guard.release();
});

test('two holds of one lock within one guard: each is known until it ends', async () => {
  const { lock } = setUp();
  const other = new SharedRLock('other', { namespace: lock.namespace });
  const guard = await lock.acquire();
  const writer = await other.exclusive();
  const both = Promise.all([other.shared({ within: guard }), other.shared({ within: guard })]);
  writer.release();
  const [one, two] = await both;
  one.release();
  await expect(other.exclusive({ within: guard })).rejects.toMatchObject({ code: 'ERR_LOCK_UPGRADE' });
  two.release();
  (await other.exclusive({ within: guard })).release();
  guard.release();
});

test('a process in which no callback has been running for a while has contexts again when one runs', async () => {
  const { lock, run, nested } = setUp();
  for (let i = 0; i < 2; i++) {
    expect(await run(() => nested('inside'))).toBe('inside');
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  expect(lock.query().held).toEqual([]);
});
