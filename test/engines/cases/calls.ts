// How locks are called: the callback forms, arguments, names, handles.
import type { AcquireCall, NamedLock, SharedLock } from '../infrastructure';
import { type Cases, deferred, errorOf, expectError, name } from '../stage';

/** Every call that acquires, whatever the class. */
function callsOf(lock: SharedLock): AcquireCall[] {
  return [
    (...args: []) => lock.shared(...args),
    (...args: []) => lock.exclusive(...args),
    (...args: []) => lock.acquire(...args),
  ] as AcquireCall[];
}

export const callbacks: Cases = (property) => {
  property('the call resolves with what the function returned, and the lock is free then', async (stage) => {
    const other = await stage.other();
    for (const call of callsOf(stage.lock)) {
      for (const value of [1, undefined, null, 'text', { an: 'object' }]) {
        expect(await call(() => value)).toBe(value);
        expect(await call({ timeout: 1000 }, async () => value)).toBe(value);
        expect(await call(undefined, () => value)).toBe(value);
        expect(await other.try('exclusive')).not.toBeNull();
        await other.release();
      }
    }
  });

  property(
    'the function is called once, while the lock is held, with a guard that is released then',
    async (stage) => {
      const other = await stage.other();
      for (const call of callsOf(stage.lock)) {
        let calls = 0;
        const guard = await call(async (inner) => {
          calls++;
          expect(inner.released).toBe(false);
          expect(await other.try('exclusive')).toBeNull();
          return inner;
        });
        expect(calls).toBe(1);
        expect(guard.released).toBe(true);
        await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
      }
    },
  );

  property(
    'what the function throws, at once or later, is what the call rejects with; the lock is free',
    async (stage) => {
      const failure = new Error('of the callback');
      for (const call of callsOf(stage.lock)) {
        const throwing = () => {
          throw failure;
        };
        for (const fn of [throwing, async () => throwing(), () => Promise.reject(failure)]) {
          expect(await errorOf(() => call(fn))).toBe(failure);
          await stage.expectIdle();
        }
      }
    },
  );

  property(
    'the lock is held until what the function returned has settled, be it a promise or a thenable',
    async (stage) => {
      const other = await stage.other();
      const { lock } = stage;
      for (const wrap of [
        (promise: Promise<string>) => promise,
        // biome-ignore lint/suspicious/noThenProperty: what is no promise of the language is what it is about
        (promise: Promise<string>) => ({ then: promise.then.bind(promise) }) as PromiseLike<string>,
      ]) {
        const inside = deferred();
        const end = deferred<string>();
        const result = lock.exclusive(() => {
          inside.resolve();
          return wrap(end.promise);
        });
        await inside.promise;
        expect(await other.try('shared')).toBeNull();
        end.resolve('done');
        expect(await result).toBe('done');
        await stage.expectIdle();
      }
    },
  );

  property('a function that released its guard itself is no error', async (stage) => {
    expect(
      await stage.lock.exclusive(async (guard) => {
        await guard.release();
        await stage.expectIdle();
        return 'done';
      }),
    ).toBe('done');
  });

  property('a function whose lock is not granted is not called', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    const fn = jest.fn();
    await expectError(() => stage.lock.shared({ timeout: 0 }, fn), 'ERR_LOCK_TIMEOUT');
    const gone = new Error('gone');
    expect(await errorOf(() => stage.lock.shared({ signal: AbortSignal.abort(gone) }, fn))).toBe(gone);
    expect(fn).not.toHaveBeenCalled();
    await other.release();
  });
};

const TYPE = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
const VALUE = { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' };
const RANGE = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' };

export const args: Cases = (property) => {
  property(
    'a wrong argument is a TypeError or RangeError with the code of it, and changes nothing',
    async (stage) => {
      const wrong: Array<[unknown, object]> = [
        [null, TYPE],
        [1, TYPE],
        ['text', TYPE],
        [{ timeout: '1' }, TYPE],
        [{ timeout: null }, TYPE],
        [{ timeout: -1 }, RANGE],
        [{ timeout: Number.NaN }, RANGE],
        [{ signal: {} }, TYPE],
        [{ signal: null }, TYPE],
        [{ within: {} }, TYPE],
        [{ within: null }, TYPE],
        [{ deadlock: 'ignore' }, VALUE],
        [{ deadlock: true }, VALUE],
        [{ deadlock: null }, VALUE],
      ];
      for (const call of callsOf(stage.lock)) {
        for (const [options, error] of wrong) {
          expect(await errorOf(() => call(options as never))).toMatchObject(error);
          expect(await errorOf(() => call(options as never, () => {}))).toMatchObject(error);
        }
        for (const fn of [null, 1, {}])
          expect(await errorOf(() => call({}, fn as never))).toMatchObject(TYPE);
        // The other way round: the options would be lost.
        expect(await errorOf(() => call((() => {}) as never, {} as never))).toMatchObject(TYPE);
      }
      for (const options of [null, 1, { exclusive: 1 }, { exclusive: null }]) {
        expect(await errorOf(() => stage.lock.acquire(options as never))).toMatchObject(TYPE);
        expect(await errorOf(() => stage.lock.tryAcquire(options as never))).toMatchObject(TYPE);
      }
      await stage.expectIdle();
    },
  );

  property('a name is a string', async (stage) => {
    const { options } = stage.world;
    for (const className of ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const) {
      for (const wrong of [null, 1, {}, Symbol('name')]) {
        const make = () => new stage.world.classes[className](wrong as never, options);
        expect(await errorOf(make)).toMatchObject(TYPE);
      }
      for (const wrong of [null, 1, 'text']) {
        const make = () => new stage.world.classes[className](name, wrong as never);
        expect(await errorOf(make)).toMatchObject(TYPE);
      }
    }
  });

  property('`within` takes a guard that is open, and no other', async (stage) => {
    const guard = await stage.lock.exclusive();
    await guard.release();
    await expectError(() => stage.lock.exclusive({ within: guard }), 'ERR_LOCK_NOT_HELD');
    await stage.expectIdle();
  });
};

const LONG = 'x'.repeat(10_000);
const NAMES = [
  '',
  ' ',
  'a',
  'A',
  '-',
  LONG,
  `${LONG.slice(1)}y`,
  'nul\0',
  'nul\0nul',
  'nul',
  '😀',
  '\ud83d',
  '\ude00',
  '\udd12',
  '\ude00\ud83d',
  '\ufffd',
  'e\u0301',
  '\u00e9',
  '\\',
  "'; drop table",
  '"; drop schema proclock; --',
  '%',
  'undefined',
  'a/b',
  '../b',
];

export const names: Cases = (property) => {
  property('any string is a name, and two different strings are two locks', async (stage) => {
    const other = await stage.other();
    const locks = NAMES.map((one) => stage.make('SharedLock', one));
    const guards = [];
    for (const [n, lock] of locks.entries()) {
      expect(lock.name).toBe(NAMES[n]);
      const guard = await lock.tryExclusive();
      expect(guard).not.toBeNull();
      guards.push(guard!);
      expect((await lock.query()).held).toMatchObject([{ name: NAMES[n], mode: 'exclusive' }]);
    }
    expect((await stage.query()).held.map((info) => info.name).sort()).toEqual([...NAMES].sort());
    for (const one of NAMES) expect(await other.try('shared', { name: one })).toBeNull();
    for (const [n, guard] of guards.entries()) {
      expect(await locks[n]!.tryShared()).toBeNull();
      await guard.release();
    }
  });

  property('a lock without a name has one of its own, which another party can use', async (stage) => {
    const other = await stage.other();
    const [one, two] = [1, 2].map(() => stage.makeAs<SharedLock>('SharedLock', undefined));
    const lock = stage.makeAs<NamedLock>('Lock', undefined);
    expect(new Set([one!.name, two!.name, lock.name]).size).toBe(3);
    const guard = await one!.exclusive();
    const beside = await two!.tryExclusive();
    expect(await other.try('shared', { name: one!.name })).toBeNull();
    await guard.release();
    expect(await other.try('shared', { name: one!.name })).not.toBeNull();
    await other.release(one!.name);
    await beside!.release();
  });

  property('a lock knows its name and namespace', async (stage) => {
    for (const className of ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const)
      expect(stage.make(className)).toMatchObject({ name, namespace: stage.world.namespace });
  });
};

export const handles: Cases = (property) => {
  property('two handles of one name are one lock, and closing one leaves the other', async (stage) => {
    const second = stage.make('SharedLock');
    const guard = await stage.lock.exclusive();
    expect(await second.tryShared()).toBeNull();
    stage.lock.close();
    expect(await second.tryShared()).toBeNull();
    const waiting = await stage.queue(() => second.shared());
    await guard.release();
    await (await waiting.promise).release();
  });

  property('a closed handle says ERR_LOCK_CLOSED to every call, and may be closed again', async (stage) => {
    const { lock } = stage;
    lock.close();
    lock.close();
    for (const call of [
      () => lock.shared(),
      () => lock.exclusive(() => {}),
      () => lock.acquire({ timeout: 0 }),
      () => lock.tryShared(),
      () => lock.tryExclusive(),
      () => lock.tryAcquire(),
      () => lock.query(),
    ])
      await expectError(call, 'ERR_LOCK_CLOSED');
    await stage.expectIdle();
  });

  property('close ends what waits through this handle, and nobody else', async (stage) => {
    const [holder, reader] = await stage.twoOthers();
    await holder.acquire('shared');
    const closed = stage.make('SharedLock');
    const fn = jest.fn();
    const waiting = [
      await stage.queue(() => closed.exclusive()),
      await stage.queue(() => closed.exclusive(fn)),
      await stage.queue(() => closed.shared({ timeout: 1e6 })),
    ];
    const staying = await stage.queue(() => stage.lock.exclusive());
    const behind = await reader.queue('shared');
    closed.close();
    for (const { promise } of waiting) await expectError(() => promise, 'ERR_LOCK_CLOSED');
    // Who was told so is out of the queue.
    expect((await stage.lock.query()).pending).toHaveLength(2);
    expect(fn).not.toHaveBeenCalled();
    expect([staying.settled, behind.settled]).toEqual([false, false]);
    await stage.expectState(
      [[holder, 'shared']],
      [
        [stage, 'exclusive'],
        [reader, 'shared'],
      ],
    );
    await holder.release();
    await (await staying.promise).release();
    await behind.promise;
    await reader.release();
  });

  property('a writer whose handle is closed lets in the readers behind it', async (stage) => {
    const [holder, reader] = await stage.twoOthers();
    await holder.acquire('shared');
    const writer = await stage.queue(() => stage.lock.exclusive());
    const behind = await reader.queue('shared');
    stage.lock.close();
    await expectError(() => writer.promise, 'ERR_LOCK_CLOSED');
    await behind.promise;
    await holder.release();
    await reader.release();
  });

  property('open guards stay valid when their handle is closed', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    await stage.lock.exclusive({ timeout: 0 }).catch(() => {});
    stage.lock.close();
    expect(guard.released).toBe(false);
    expect(await other.try('shared')).toBeNull();
    await guard.downgrade();
    expect(await other.try('shared')).not.toBeNull();
    await other.release();
    await guard.release();

    const callback = stage.make('SharedLock');
    expect(
      await callback.exclusive(async () => {
        callback.close();
        expect(await other.try('shared')).toBeNull();
        return 'done';
      }),
    ).toBe('done');
  });
};
