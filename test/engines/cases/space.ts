// What belongs to locks in a space alone: that it can be closed, and that no call blocks.
import { type Cases, errorOf, expectError, name } from '../stage';

export const spaces: Cases = (property, traits) => {
  if (!traits.remote) return;

  property('close ends what waits, and releases what is held: nothing is abandoned', async (stage) => {
    const [holder, next] = await stage.twoOthers();
    await holder.acquire('exclusive', { name: 'another' });
    const guard = await stage.lock.exclusive();
    const waiting = await stage.queue(() => stage.make('SharedLock', 'another').exclusive());
    const request = await stage.queue(() => stage.manager.request('another', () => {}));
    const theirs = await next.queue('exclusive');
    await stage.world.closeSpace!();
    await expectError(() => waiting.promise, 'ERR_LOCK_CLOSED');
    await expectError(() => request.promise, 'ERR_LOCK_CLOSED');
    expect((await theirs.promise).abandoned).toBeNull();
    await stage.expectState([
      [next, 'exclusive'],
      [holder, 'exclusive'],
    ]);
    expect(guard.lost.aborted).toBe(true);
    await next.release();
    await holder.release('another');
  });

  property('every later call says ERR_LOCK_CLOSED; a second close does nothing', async (stage) => {
    await stage.lock.exclusive(() => {});
    await stage.world.closeSpace!();
    await stage.world.closeSpace!();
    const fresh = stage.make('SharedLock', 'fresh');
    for (const lock of [stage.lock, fresh]) {
      for (const call of [
        () => lock.shared(),
        () => lock.exclusive(() => {}),
        () => lock.acquire({ timeout: 0 }),
        () => lock.tryShared(),
        () => lock.tryExclusive(),
        () => lock.query(),
      ]) {
        await expectError(call, 'ERR_LOCK_CLOSED');
      }
    }
    await expectError(() => stage.manager.request(name, () => {}), 'ERR_LOCK_CLOSED');
    await expectError(() => stage.manager.query(), 'ERR_LOCK_CLOSED');
  });

  property('a space that nothing was asked of can be closed', async (stage) => {
    await stage.world.closeSpace!();
    await expectError(() => stage.lock.shared(), 'ERR_LOCK_CLOSED');
  });

  property('close during the first call', async (stage) => {
    const first = stage.lock.exclusive();
    const second = stage.lock.exclusive();
    const outcomes = Promise.allSettled([first, second]);
    await stage.world.closeSpace!();
    for (const outcome of await outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'ERR_LOCK_CLOSED' });
    }
  });

  property('a callback whose space is closed rejects with an error of the loss', async (stage) => {
    const error = await errorOf(() =>
      stage.lock.exclusive(async () => {
        await stage.world.closeSpace!();
        return 'done';
      }),
    );
    expect(error).toMatchObject({ code: 'ERR_LOCK_LOST', cause: { code: 'ERR_LOCK_CLOSED' } });
  });

  property('the peers of a space that was closed go on', async (stage) => {
    const [one, two] = await stage.twoOthers();
    await one.acquire('exclusive');
    const waiting = await two.queue('shared');
    await stage.world.closeSpace!();
    await one.release();
    await waiting.promise;
    await two.release();
  });

  property(
    'there is no call that blocks, and no Symbol.dispose: ERR_LOCK_UNSUPPORTED says what to use',
    async (stage) => {
      type Untyped = Record<string | symbol, (...args: unknown[]) => unknown>;
      const shared = ['sharedSync', 'exclusiveSync', 'acquireSync', Symbol.dispose];
      const calls: Array<[object, Array<string | symbol>]> = [
        [stage.make('SharedLock'), shared],
        [stage.make('SharedRLock'), shared],
        [stage.make('Lock'), ['acquireSync', Symbol.dispose]],
        [stage.make('RLock'), ['acquireSync', Symbol.dispose]],
      ];
      for (const [lock, methods] of calls) {
        for (const method of methods) {
          const error = await errorOf(() => (lock as Untyped)[method]!());
          expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_UNSUPPORTED' });
          expect(error.message).toMatch(/use .*(\(\)|await using)/);
        }
      }
      // Whoever wrote `using` had no other way to release it.
      const guard = await stage.lock.exclusive();
      await expectError(() => (guard as unknown as Untyped)[Symbol.dispose]!(), 'ERR_LOCK_UNSUPPORTED');
      await (await stage.lock.exclusive()).release();
    },
  );

  property('a lock without a space, or with something that is none, is a TypeError', async (stage) => {
    const wrong = [
      undefined,
      null,
      {},
      { space: undefined },
      { space: {} },
      { space: null },
      { namespace: 'x' },
    ];
    for (const className of ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const) {
      for (const options of wrong) {
        const make = () => new stage.world.classes[className](name, options as never);
        expect(await errorOf(make)).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
      }
    }
    for (const options of wrong) {
      const make = () => new stage.world.classes.LockManager(options as never);
      expect(await errorOf(make)).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
    }
  });

  property(
    'options that would name another lock are refused, and those that name this one are not',
    async (stage) => {
      const { classes, namespace, options: own } = stage.world;
      const makers = [
        ...(['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const).map(
          (className) => (options: object) => new classes[className](name, options as never),
        ),
        (options: object) => new classes.LockManager(options as never),
      ];
      for (const make of makers) {
        for (const [key, value] of Object.entries({ namespace: `${namespace}-other`, group: 'staff' })) {
          expect(await errorOf(() => make({ ...own, [key]: value }))).toMatchObject({
            name: 'TypeError',
            code: 'ERR_INVALID_ARG_VALUE',
            message: expect.stringContaining(`options.${key}`),
          });
        }
        expect(() => make({ ...own, namespace, fair: true, group: undefined })).not.toThrow();
      }
    },
  );
};
