// The Web Locks API, as far as it meets an engine: modes, order, `ifAvailable`, `steal`, `signal`, `query`, and SharedLocks of
// the same names.
import type { WebLock } from '../../../lib/common/web-locks';
import { until } from '../../support/until';
import { type Cases, deferred, errorOf, expectError, MODES, name, track } from '../stage';

const domException = (errorName: string) => expect.objectContaining({ name: errorName });

export const webLocks: Cases = (property) => {
  property(
    'a request resolves with what the callback returned, or rejects with what it threw',
    async (stage) => {
      const { manager } = stage;
      for (const value of [1, undefined, null, { an: 'object' }]) {
        expect(await manager.request(name, () => value)).toBe(value);
        expect(await manager.request(name, { mode: 'shared' }, async () => value)).toBe(value);
      }
      const failure = new Error('of the callback');
      for (const callback of [
        () => {
          throw failure;
        },
        async () => {
          throw failure;
        },
      ]) {
        expect(await errorOf(() => manager.request(name, callback))).toBe(failure);
        await stage.expectIdle();
      }
    },
  );

  property(
    'the callback is given the lock, and never called before request() has returned',
    async (stage) => {
      let returned = false;
      const requested = stage.manager.request(name, async (lock) => {
        expect(returned).toBe(true);
        expect(lock).toMatchObject({ name, mode: 'exclusive' });
        expect(Object.prototype.toString.call(lock)).toBe('[object Lock]');
        await stage.expectState([[stage, 'exclusive']]);
      });
      returned = true;
      await requested;
      await stage.expectIdle();
    },
  );

  property('shared requests are together, an exclusive one is alone', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const first = await one.holdRequest({ mode: 'shared' });
    const second = await two.holdRequest({ mode: 'shared' });
    const third = await two.queueRequest();
    await stage.expectState(
      [
        [one, 'shared'],
        [two, 'shared'],
      ],
      [[two, 'exclusive']],
    );
    await first.finish();
    await second.finish();
    await third.granted();
    const fourth = await one.queueRequest({ mode: 'shared' });
    await third.finish();
    await fourth.granted();
    await fourth.finish();
  });

  property('requests are granted in the order in which they came', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const first = await one.holdRequest();
    const order = [two, one, two];
    const waits = [];
    for (const who of order) waits.push(await who.queueRequest());
    await first.finish('first');
    for (const [n, request] of waits.entries()) {
      await request.granted();
      await stage.expectState(
        [[order[n]!, 'exclusive']],
        order.slice(n + 1).map((who) => [who, 'exclusive'] as const),
      );
      await request.finish(n);
    }
  });

  property('ifAvailable: the lock at once, or null where it is held or waited for', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const held = await one.holdRequest({ mode: 'shared' });
    const given = (options: object) =>
      stage.manager.request(name, { ifAvailable: true, ...options }, (lock) => lock?.mode ?? null);
    expect(await given({})).toBeNull();
    expect(await given({ mode: 'shared' })).toBe('shared');
    const waiting = await two.queueRequest();
    expect(await given({ mode: 'shared' })).toBeNull();
    await stage.expectState([[one, 'shared']], [[two, 'exclusive']]);
    await held.finish();
    await waiting.granted();
    await waiting.finish();
    expect(await given({})).toBe('exclusive');
  });

  property('a signal ends the wait with its reason, and means nothing after the grant', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const held = await one.holdRequest();
    const waiting = await two.queueRequest({ signal: true });
    await waiting.abort('of the caller');
    expect(await errorOf(() => waiting.outcome.promise)).toMatchObject({ message: 'of the caller' });
    expect(await waiting.called).toBeNull();
    await stage.expectState([[one, 'exclusive']]);
    await held.finish();
    const granted = await two.holdRequest({ signal: true });
    await granted.abort('too late');
    await stage.expectState([[two, 'exclusive']]);
    await granted.finish('done');
    const reason = new Error('before');
    const callback = jest.fn();
    expect(
      await errorOf(() => stage.manager.request(name, { signal: AbortSignal.abort(reason) }, callback)),
    ).toBe(reason);
    expect(callback).not.toHaveBeenCalled();
  });

  property('options that exclude each other, reserved names, wrong arguments', async (stage) => {
    const { manager } = stage;
    const { signal } = new AbortController();
    const callback = jest.fn();
    for (const options of [
      { steal: true, ifAvailable: true },
      { steal: true, mode: 'shared' as const },
      { signal, steal: true },
      { signal, ifAvailable: true },
    ]) {
      expect(await errorOf(() => manager.request(name, options, callback))).toEqual(
        domException('NotSupportedError'),
      );
    }
    for (const reserved of ['-', '-name']) {
      expect(await errorOf(() => manager.request(reserved, callback))).toEqual(
        domException('NotSupportedError'),
      );
    }
    for (const args of [
      [name],
      [name, {}],
      [name, {}, 1],
      [name, { mode: 'other' }, callback],
      [name, 1, callback],
    ]) {
      expect(await errorOf(() => manager.request(...(args as [string, never])))).toBeInstanceOf(TypeError);
    }
    expect(callback).not.toHaveBeenCalled();
    await stage.expectIdle();
  });

  property('query shows what is held and requested, under all names', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const held = [await one.holdRequest({ mode: 'shared' }), await one.holdRequest({ name: 'another' })];
    const waiting = await two.queueRequest();
    const seen = await stage.manager.query();
    expect(seen.held).toHaveLength(2);
    expect(seen.held).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name, mode: 'shared', clientId: await one.clientId() }),
        expect.objectContaining({ name: 'another', mode: 'exclusive', clientId: await one.clientId() }),
      ]),
    );
    expect(seen.pending).toMatchObject([{ name, mode: 'exclusive', clientId: await two.clientId() }]);
    for (const request of [...held, waiting]) {
      await request.granted();
      await request.finish();
    }
  });

  property('SharedLocks of the same names are the same locks', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    const waiting = await other.queueRequest({ mode: 'shared' });
    expect(await stage.manager.request(name, { ifAvailable: true }, (lock) => lock)).toBeNull();
    await guard.release();
    await waiting.granted();
    expect(await stage.lock.tryExclusive()).toBeNull();
    const shared = await stage.lock.shared();
    const writer = await stage.queue(() => stage.lock.exclusive());
    await waiting.finish();
    await shared.release();
    await (await writer.promise).release();
  });

  property('a request has no owner: it waits for a callback around it', async (stage) => {
    await stage.lock.exclusive(async () => {
      expect(await stage.manager.request(name, { ifAvailable: true }, (lock) => lock)).toBeNull();
    });
    await stage.manager.request(name, async () => {
      expect(await stage.manager.request(name, { ifAvailable: true }, (lock) => lock)).toBeNull();
      expect(await stage.lock.tryShared()).toBeNull();
    });
  });

  property('a party that is killed in its callback: the next request is granted', async (stage) => {
    const [dead, other] = await stage.twoOthers();
    await dead.holdRequest();
    await dead.queueRequest({ name, mode: 'shared' });
    const waiting = await other.queueRequest();
    await dead.kill();
    await waiting.granted();
    await waiting.finish();
    expect(await stage.abandoned()).toMatchObject({ pid: dead.pid });
    await stage.lock.exclusive(() => {});
  });
};

export const steals: Cases = (property, traits) => {
  property('a theft takes the lock from its holders, and not from those who wait', async (stage) => {
    const [robbed, waiter, thief] = await stage.threeOthers();
    const held = await robbed.holdRequest();
    const waiting = await waiter.queueRequest({ mode: 'shared' });
    const stolen = await thief.holdRequest({ steal: true });
    expect(await errorOf(() => held.outcome.promise)).toEqual(domException('AbortError'));
    await stage.expectState([[thief, 'exclusive']], [[waiter, 'shared']]);
    await held.fulfil(); // its callback runs on, and nobody cares
    await stage.expectState([[thief, 'exclusive']], [[waiter, 'shared']]);
    await stolen.finish('mine');
    await waiting.granted();
    await waiting.finish();
  });

  property('a theft takes the lock from all shared holders', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const held = [await one.holdRequest({ mode: 'shared' }), await two.holdRequest({ mode: 'shared' })];
    await stage.manager.request(name, { steal: true }, async () => {
      await stage.expectState([[stage, 'exclusive']]);
      for (const { outcome } of held) {
        expect(await errorOf(() => outcome.promise)).toEqual(domException('AbortError'));
      }
    });
  });

  property('a theft of what nobody holds is an acquire; a thief can be robbed', async (stage) => {
    const other = await stage.other();
    const first = await other.holdRequest({ steal: true });
    await stage.manager.request(name, { steal: true }, async () => {
      expect(await errorOf(() => first.outcome.promise)).toEqual(domException('AbortError'));
    });
  });

  for (const mode of MODES) {
    property(
      `a robbed ${mode} guard: the release says ERR_LOCK_LOST, and then ERR_LOCK_NOT_HELD`,
      async (stage) => {
        const other = await stage.other();
        const guard = await stage.lock[mode]();
        const stolen = await other.holdRequest({ steal: true });
        const error = await errorOf(() => guard.release());
        expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_LOST' });
        if (traits.tellsLoss) expect((error.cause as Error).message).toContain(String(other.pid));
        expect(guard.released).toBe(true);
        await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
        await stage.expectState([[other, 'exclusive']]);
        await stolen.finish();
      },
    );

    property(`a robbed ${mode} guard is disposed in silence`, async (stage) => {
      const guard = await stage.lock[mode]();
      await stage.manager.request(name, { steal: true }, async () => {
        await guard[Symbol.asyncDispose]();
        await guard[Symbol.asyncDispose]();
        await stage.expectState([[stage, 'exclusive']]);
      });
    });

    property(
      `a ${mode} callback that was robbed: the call rejects with ERR_LOCK_LOST, though the function succeeded`,
      async (stage) => {
        const other = await stage.other();
        const error = await errorOf(() =>
          stage.lock[mode](async () => {
            await (await other.holdRequest({ steal: true })).finish();
            return 'done';
          }),
        );
        expect(error).toMatchObject({ code: 'ERR_LOCK_LOST', cause: expect.any(Object) });
      },
    );
  }

  property('a robbed guard of a peer says so as well', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    await stage.manager.request(name, { steal: true }, async () => {
      expect(await errorOf(() => other.release())).toMatchObject({ code: 'ERR_LOCK_LOST' });
    });
  });

  property(
    'a robbed guard is no owner any more: what is acquired within it, or in its callback, has to wait',
    async (stage) => {
      const lock = stage.make('RLock');
      await errorOf(() =>
        lock.acquire(async () => {
          await stage.manager.request(name, { steal: true }, async () => {
            expect(await lock.tryAcquire()).toBeNull();
          });
          const guard = await lock.acquire();
          expect((await stage.query()).held).toHaveLength(1);
          await guard.release();
        }),
      );
      const guard = await lock.acquire();
      await stage.manager.request(name, { steal: true }, async () => {
        await expectError(() => lock.acquire({ within: guard, timeout: 0 }), 'ERR_LOCK_TIMEOUT');
      });
      await guard[Symbol.asyncDispose]();
    },
  );

  property('who waits behind a theft is granted when the thief has finished', async (stage) => {
    const [other, thief] = await stage.twoOthers();
    const guard = await stage.lock.exclusive();
    const waiting = await other.queue('exclusive');
    const stolen = await thief.holdRequest({ steal: true });
    expect(waiting.settled).toBe(false);
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    expect(waiting.settled).toBe(false);
    await stolen.finish();
    await waiting.promise;
    await other.release();
  });

  property('a theft marks nothing as abandoned, and has a greater token', async (stage) => {
    const other = await stage.other();
    const held = await other.acquire('exclusive');
    await stage.manager.request(name, { steal: true }, () => {});
    const guard = await stage.lock.exclusive();
    expect(guard.token > BigInt(held.token)).toBe(true);
    await guard.release();
  });

  property('a robbed callback that never ends settles its request all the same', async (stage) => {
    const never = deferred<WebLock | null>();
    const request = track(stage.manager.request(name, () => never.promise));
    const other = await stage.other();
    await until(async () => (await stage.query()).held.length === 1);
    await (await other.holdRequest({ steal: true })).finish();
    expect(await errorOf(() => request.promise)).toEqual(domException('AbortError'));
  });

  if (!traits.tellsLoss) return;

  property('`lost` of a robbed guard aborts at once, and its reason says who it was', async (stage) => {
    const other = await stage.other();
    for (const mode of MODES) {
      const guard = await stage.lock[mode]();
      const { lost } = guard;
      expect(lost.aborted).toBe(false);
      const aborted = new Promise((resolve) => lost.addEventListener('abort', resolve));
      const stolen = await other.holdRequest({ steal: true });
      await aborted;
      expect(lost.reason).toMatchObject({
        code: 'ERR_LOCK_LOST',
        cause: { name: 'Theft', message: expect.stringContaining(String(other.pid)) },
      });
      expect(lost.reason.cause).toBeInstanceOf(Error);
      expect(await errorOf(() => guard.release())).toBe(lost.reason);
      await stolen.finish();
    }
  });
};
