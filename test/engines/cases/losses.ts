// A hold that ends while its holder lives: the connection to the engine breaks. And what a waiter makes of that.
import { until } from '../../support/until';
import { type Cases, deferred, errorOf, expectError, MODES, name, type Stage, track } from '../stage';

const why = new Error('the cable was cut');

/** Ends what this process holds, and waits until it knows. */
async function interrupt(stage: Stage, lost: AbortSignal): Promise<void> {
  const aborted = new Promise((resolve) => lost.addEventListener('abort', resolve));
  await stage.interrupt(why);
  if (!lost.aborted) await aborted;
}

/** Interrupts this process, which waits so many times, and waits until all of that is in the queue again, in a new session. */
async function interruptWaits(stage: Stage, count = 1): Promise<void> {
  const clientsOf = async () => Object.values(await stage.query()).flat();
  const known = new Set((await clientsOf()).map(({ clientId }) => clientId));
  await stage.interrupt(why);
  // Nothing is asked of the space meanwhile: it has to do that by itself.
  await until(
    async () => (await clientsOf()).filter(({ clientId }) => !known.has(clientId)).length === count,
  );
}

export const losses: Cases = (property, traits) => {
  if (!traits.breaks) return;

  for (const mode of MODES) {
    property(
      `a ${mode} guard: \`lost\` aborts with ERR_LOCK_LOST and its cause; so does the first release, once`,
      async (stage) => {
        const guard = await stage.lock[mode]();
        const { lost } = guard;
        expect(lost.aborted).toBe(false);
        expect(guard.lost).toBe(lost);
        await interrupt(stage, lost);
        expect(lost.reason).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_LOST' });
        expect(lost.reason.cause).toBeInstanceOf(Error);
        expect(lost.reason.message).toContain(name);
        expect(guard.released).toBe(false);
        expect(await errorOf(() => guard.release())).toBe(lost.reason);
        expect(guard.released).toBe(true);
        await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
        await guard[Symbol.asyncDispose]();
        await stage.lock.exclusive(() => {});
      },
    );

    property(`a ${mode} guard that is lost is disposed in silence`, async (stage) => {
      const guard = await stage.lock[mode]();
      await interrupt(stage, guard.lost);
      await guard[Symbol.asyncDispose]();
      expect(guard.released).toBe(true);
      await guard[Symbol.asyncDispose]();
      await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
      await stage.lock.exclusive(() => {});
    });

    property(
      `a ${mode} callback: the call rejects with ERR_LOCK_LOST, though the function succeeded`,
      async (stage) => {
        const error = await errorOf(() =>
          stage.lock[mode](async (guard) => {
            await interrupt(stage, guard.lost);
            return 'done';
          }),
        );
        expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_LOST', cause: expect.anything() });
        await stage.lock.exclusive(() => {});
      },
    );
  }

  property('`lost` that is first read after the loss is aborted', async (stage) => {
    const guards = [await stage.lock.shared(), await stage.lock.shared()];
    await interrupt(stage, guards[0]!.lost);
    expect(guards[1]!.lost.aborted).toBe(true);
    expect(guards[1]!.lost.reason).toMatchObject({ code: 'ERR_LOCK_LOST' });
    for (const guard of guards) await expectError(() => guard.release(), 'ERR_LOCK_LOST');
  });

  property('`lost` of what was released is not aborted by what comes later', async (stage) => {
    const first = await stage.lock.exclusive();
    const { lost } = first;
    await first.release();
    const second = await stage.lock.exclusive();
    await interrupt(stage, second.lost);
    expect(lost.aborted).toBe(false);
    await second[Symbol.asyncDispose]();
    await stage.lock.exclusive(() => {});
  });

  property('a downgrade, an upgrade of what was lost: ERR_LOCK_LOST', async (stage) => {
    const exclusive = await stage.lock.exclusive();
    const another = await stage.make('SharedLock', 'another').shared();
    await interrupt(stage, exclusive.lost);
    await expectError(() => exclusive.downgrade(), 'ERR_LOCK_LOST');
    if (traits.upgrades) {
      await expectError(() => another.upgrade(), 'ERR_LOCK_LOST');
      await expectError(() => another.tryUpgrade(), 'ERR_LOCK_LOST');
    }
    await expectError(() => exclusive.release(), 'ERR_LOCK_LOST');
    await another[Symbol.asyncDispose]();
    await stage.lock.exclusive(() => {});
  });

  property('each guard of nested acquires says ERR_LOCK_LOST once', async (stage) => {
    const lock = stage.make('SharedRLock');
    const outer = await lock.exclusive();
    const nested = [await lock.shared({ within: outer }), await lock.exclusive({ within: outer })];
    await interrupt(stage, outer.lost);
    for (const guard of [outer, ...nested]) {
      expect(guard.lost.aborted).toBe(true);
      await expectError(() => guard.release(), 'ERR_LOCK_LOST');
      await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
    }
    await lock.exclusive(() => {});
  });

  property('nested callbacks reject with ERR_LOCK_LOST, from the inside out', async (stage) => {
    const lock = stage.make('RLock');
    const inner: unknown[] = [];
    const error = await errorOf(() =>
      lock.acquire(async (outer) => {
        inner.push(await errorOf(() => lock.acquire((guard) => interrupt(stage, guard.lost))));
        expect(outer.lost.aborted).toBe(true);
      }),
    );
    expect(inner).toMatchObject([{ code: 'ERR_LOCK_LOST' }]);
    expect(error).toMatchObject({ code: 'ERR_LOCK_LOST' });
    await lock.acquire(() => {});
  });

  property('what was lost is no owner any more: its callback acquires the lock anew', async (stage) => {
    const lock = stage.make('RLock');
    await expectError(
      () =>
        lock.acquire(async (outer) => {
          await interrupt(stage, outer.lost);
          await lock.acquire(async (guard) => {
            expect(guard.token > outer.token).toBe(true);
            expect(guard.lost.aborted).toBe(false);
            expect((await lock.query()).held).toHaveLength(1);
          });
        }),
      'ERR_LOCK_LOST',
    );
  });

  property('a lost exclusive hold is abandoned for the next holder', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    const waiting = await other.queue('exclusive');
    await interrupt(stage, guard.lost);
    const grant = await waiting.promise;
    expect(grant.abandoned).toMatchObject({ pid: process.pid, token: String(guard.token) });
    expect(BigInt(grant.token) > guard.token).toBe(true);
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    await stage.expectState([[other, 'exclusive']]);
    await other.release();
    expect(await stage.abandoned()).toBeNull();
  });

  property('a lost shared hold is not', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.shared();
    const waiting = await other.queue('exclusive');
    await interrupt(stage, guard.lost);
    expect((await waiting.promise).abandoned).toBeNull();
    await guard[Symbol.asyncDispose]();
    await other.release();
  });

  property('`lost` is aborted before another one can be granted', async (stage) => {
    const other = await stage.other();
    const order: string[] = [];
    const guard = await stage.lock.exclusive();
    guard.lost.addEventListener('abort', () => order.push('lost'));
    const waiting = await other.queue('exclusive');
    void waiting.promise.then(() => order.push('granted'));
    await stage.interrupt(why);
    await waiting.promise;
    expect(order).toEqual(['lost', 'granted']);
    await guard[Symbol.asyncDispose]();
    await other.release();
  });

  property(
    'a waiter whose session ended queues again by itself, behind those who were there',
    async (stage) => {
      const [holder, other] = await stage.twoOthers();
      await holder.acquire('exclusive');
      const mine = await stage.queue(() => stage.lock.exclusive());
      const theirs = await other.queue('exclusive');
      await interruptWaits(stage);
      expect(mine.settled).toBe(false);
      await stage.expectState(
        [[holder, 'exclusive']],
        [
          [other, 'exclusive'],
          [stage, 'exclusive'],
        ],
      );
      await holder.release();
      await theirs.promise;
      expect(mine.settled).toBe(false);
      await other.release();
      const guard = await mine.promise;
      expect(guard.abandoned).toBeNull();
      expect(guard.lost.aborted).toBe(false);
      await guard.release();
    },
  );

  property('its signal and its timeout go on meaning what they meant', async (stage) => {
    const holder = await stage.other();
    await holder.acquire('exclusive');
    const controller = new AbortController();
    const aborted = await stage.queue(() => stage.lock.exclusive({ signal: controller.signal }));
    const late = await stage.queue(() => stage.lock.shared({ timeout: 4000 }));
    await interruptWaits(stage, 2);
    const reason = new Error('changed its mind');
    controller.abort(reason);
    expect(await errorOf(() => aborted.promise)).toBe(reason);
    expect(await errorOf(() => late.promise)).toMatchObject({
      code: 'ERR_LOCK_TIMEOUT',
      holders: [{ mode: 'exclusive' }],
    });
    await stage.expectState([[holder, 'exclusive']]);
    await holder.release();
  });

  property('an upgrade that waits ends with its hold', async (stage) => {
    if (!traits.upgrades) return;
    const other = await stage.other();
    await other.acquire('shared');
    const guard = await stage.lock.shared();
    const upgraded = await stage.queueUpgrade(() => guard.upgrade());
    await interrupt(stage, guard.lost);
    await expectError(() => upgraded.promise, 'ERR_LOCK_LOST');
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    await (await stage.lock.tryShared())!.release(); // nobody is barred
    await other.release();
  });

  property('after a loss everything works as before', async (stage) => {
    for (let round = 0; round < 3; round++) {
      const guard = await stage.lock.exclusive();
      expect(guard.abandoned === null).toBe(round === 0);
      await interrupt(stage, guard.lost);
      await guard[Symbol.asyncDispose]();
    }
    await stage.lock.exclusive(({ abandoned }) => expect(abandoned).not.toBeNull());
    await stage.lock.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
  });

  property(
    'a request of a LockManager whose hold is lost rejects with ERR_LOCK_LOST at once',
    async (stage) => {
      const never = deferred();
      const inside = deferred();
      const request = track(
        stage.manager.request(name, () => {
          inside.resolve();
          return never.promise;
        }),
      );
      await inside.promise;
      await stage.interrupt(why);
      const error = await errorOf(() => request.promise);
      expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_LOST', cause: expect.anything() });
      await stage.manager.request(name, () => {});
      await stage.lock.exclusive(() => {});
    },
  );

  property('a request that waits queues again by itself', async (stage) => {
    const holder = await stage.other();
    await holder.acquire('exclusive');
    const callback = jest.fn(() => 'done');
    const request = await stage.queue(() => stage.manager.request(name, callback));
    await interruptWaits(stage);
    expect(callback).not.toHaveBeenCalled();
    await holder.release();
    expect(await request.promise).toBe('done');
    expect(callback).toHaveBeenCalledTimes(1);
  });
};
