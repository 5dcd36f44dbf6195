// `guard.upgrade()` and `guard.tryUpgrade()`: from shared to exclusive without ever having let go.
import { atOnce, type Cases, errorOf, expectError, name, track } from '../stage';

export const upgrades: Cases = (property, traits) => {
  if (!traits.upgrades) return;

  property('a sole holder is exclusive at once, with a new token', async (stage) => {
    const other = await stage.other();
    for (const how of ['upgrade', 'tryUpgrade'] as const) {
      const guard = await stage.lock.shared();
      const before = guard.token;
      expect(await guard[how]()).toBe(how === 'upgrade' ? undefined : true);
      expect(guard).toMatchObject({ mode: 'exclusive', released: false, abandoned: null });
      expect(guard.token > before).toBe(true);
      expect(await other.try('shared')).toBeNull();
      await stage.expectState([[stage, 'exclusive']]);
      const { token } = guard;
      await guard.release();
      expect(BigInt((await other.acquire('exclusive')).token) > token).toBe(true);
      await other.release();
    }
  });

  property('exclusive already: nothing happens, with the same token', async (stage) => {
    const guard = await stage.lock.exclusive();
    const { token } = guard;
    await guard.upgrade();
    expect(await guard.tryUpgrade()).toBe(true);
    expect(guard).toMatchObject({ mode: 'exclusive', token });
    await guard.downgrade();
    await guard.upgrade();
    expect(guard.token > token).toBe(true);
    await guard.release();
  });

  property('it waits for the other readers, ahead of the whole queue', async (stage) => {
    const [reader, writer, late] = await stage.threeOthers();
    const guard = await stage.lock.shared();
    await reader.acquire('shared');
    const write = await writer.queue('exclusive');
    const upgraded = track(guard.upgrade());
    const read = await late.queue('shared');
    expect(upgraded.settled).toBe(false);
    expect(guard.mode).toBe('shared');
    await reader.release();
    await upgraded.promise;
    expect([write.settled, read.settled]).toEqual([false, false]);
    await stage.expectState(
      [[stage, 'exclusive']],
      [
        [writer, 'exclusive'],
        [late, 'shared'],
      ],
    );
    await guard.release();
    expect(BigInt((await write.promise).token) > guard.token).toBe(true);
    await writer.release();
    await read.promise;
    await late.release();
  });

  property(
    'while it waits newcomers are barred, and query shows it among the holders, shared',
    async (stage) => {
      const [reader, newcomer] = await stage.twoOthers();
      const guard = await stage.lock.shared();
      await reader.acquire('shared');
      const upgraded = await stage.queueUpgrade(() => guard.upgrade());
      for (const mode of ['shared', 'exclusive'] as const) expect(await newcomer.try(mode)).toBeNull();
      await expectError(() => stage.lock.shared({ timeout: 0 }), 'ERR_LOCK_TIMEOUT');
      await stage.expectState([
        [stage, 'shared'],
        [reader, 'shared'],
      ]);
      const waiting = await newcomer.queue('shared');
      await reader.release();
      await upgraded.promise;
      expect(waiting.settled).toBe(false);
      await guard.downgrade();
      await waiting.promise;
      await newcomer.release();
      await guard.release();
    },
  );

  property('the upgrade of a peer waits for us as well', async (stage) => {
    const other = await stage.other();
    const shared = await other.acquire('shared');
    const guard = await stage.lock.shared();
    const upgraded = await stage.queueUpgrade(() => other.upgrade());
    await guard.release();
    const grant = await upgraded.promise;
    expect(grant).toMatchObject({ mode: 'exclusive', abandoned: null });
    expect(BigInt(grant.token) > BigInt(shared.token)).toBe(true);
    await stage.expectState([[other, 'exclusive']]);
    await other.release();
  });

  property(
    'a second one is refused at once, stays shared, and can let the first one through',
    async (stage) => {
      const other = await stage.other();
      const guard = await stage.lock.shared();
      const { token } = guard;
      await other.acquire('shared');
      const upgraded = await stage.queueUpgrade(() => other.upgrade());
      await expectError(() => guard.upgrade(), 'ERR_LOCK_UPGRADE');
      await expectError(() => guard.upgrade({ timeout: 1e6 }), 'ERR_LOCK_UPGRADE');
      expect(await guard.tryUpgrade()).toBe(false);
      expect(guard).toMatchObject({ mode: 'shared', token, released: false });
      expect(upgraded.settled).toBe(false);
      await guard.release();
      await upgraded.promise;
      await other.release();
    },
  );

  property('it ends with its guard, also where another one of the same owner stays', async (stage) => {
    const other = await stage.other();
    const lock = stage.make('SharedRLock');
    await other.acquire('shared');
    const guard = await lock.shared();
    const upgraded = await stage.queueUpgrade(() => guard.upgrade());
    const nested = await lock.shared({ within: guard });
    const released = guard.release();
    await expectError(() => upgraded.promise, 'ERR_LOCK_NOT_HELD');
    await released;
    await (await stage.lock.shared()).release(); // nobody is barred any more
    await other.release();
    expect([guard.mode, nested.mode]).toEqual(['shared', 'shared']);
    await stage.expectState([[stage, 'shared']]);
    await nested.release();
  });

  property('so is a second one of the same process, by another guard', async (stage) => {
    const guards = [await stage.lock.shared(), await stage.lock.shared()];
    const upgraded = await stage.queueUpgrade(() => guards[0]!.upgrade());
    await expectError(() => guards[1]!.upgrade(), 'ERR_LOCK_UPGRADE');
    await guards[1]!.release();
    await upgraded.promise;
    await guards[0]!.release();
  });

  property('tryUpgrade is false where there is another holder, and changes nothing', async (stage) => {
    const [reader, writer] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    const { token } = guard;
    await reader.acquire('shared');
    expect(await guard.tryUpgrade()).toBe(false);
    expect(guard).toMatchObject({ mode: 'shared', token, released: false });
    expect(await writer.try('shared')).not.toBeNull(); // nobody is barred
    await writer.release();
    await reader.release();
    const write = await writer.queue('exclusive');
    expect(await guard.tryUpgrade()).toBe(true); // ahead of the queue
    expect(write.settled).toBe(false);
    await guard.release();
    await write.promise;
    await writer.release();
  });

  property('a timeout leaves it shared, tells the holders, and leaves no barrier behind', async (stage) => {
    const [reader, newcomer] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    const { token } = guard;
    await reader.acquire('shared');
    for (const timeout of [0, 20]) {
      const error = await errorOf(() => guard.upgrade({ timeout }));
      expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_TIMEOUT' });
      const { holders } = error as unknown as { holders: unknown[] };
      expect(holders).toEqual(
        expect.arrayContaining([expect.objectContaining({ clientId: await reader.clientId() })]),
      );
      expect(guard).toMatchObject({ mode: 'shared', token, released: false });
      expect(await newcomer.try('shared')).not.toBeNull();
      await newcomer.release();
    }
    await reader.release();
    expect(await guard.tryUpgrade()).toBe(true);
    await guard.release();
  });

  property('an abort leaves it shared, and lets in whom it barred', async (stage) => {
    const [reader, newcomer] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    const { token } = guard;
    await reader.acquire('shared');
    const controller = new AbortController();
    const { signal } = controller;
    const upgraded = await stage.queueUpgrade(() => guard.upgrade({ signal }));
    const waiting = await newcomer.queue('shared');
    const reason = new Error('changed its mind');
    controller.abort(reason);
    expect(await errorOf(() => upgraded.promise)).toBe(reason);
    await waiting.promise;
    expect(guard).toMatchObject({ mode: 'shared', token, released: false });
    expect(await errorOf(() => guard.upgrade({ signal }))).toBe(reason); // before the call
    await newcomer.release();
    await reader.release();
    await guard.upgrade();
    await guard.release();
  });

  property('with nested guards of the hold it is refused at once, for each of them', async (stage) => {
    const lock = stage.make('SharedRLock');
    await lock.shared(async (outer) => {
      await lock.shared(async (nested) => {
        for (const guard of [outer, nested]) {
          expect(await atOnce(errorOf(() => guard.upgrade()))).toMatchObject({ code: 'ERR_LOCK_UPGRADE' });
          expect(await guard.tryUpgrade()).toBe(false);
          expect(guard.mode).toBe('shared');
        }
      });
      await outer.upgrade();
      await stage.expectState([[stage, 'exclusive']]);
    });
  });

  property('after it, its owner holds exclusively: of a reentrant class more of it nests', async (stage) => {
    const lock = stage.make('SharedRLock');
    await lock.shared(async (guard) => {
      await expectError(() => lock.exclusive(), 'ERR_LOCK_UPGRADE');
      await guard.upgrade();
      await lock.exclusive(({ token }) => expect(token).toBe(guard.token));
      await lock.shared(() => {});
    });
  });

  property(
    'what was released can not be upgraded; what is released meanwhile ends the upgrade',
    async (stage) => {
      const other = await stage.other();
      const guard = await stage.lock.shared();
      await guard.release();
      await expectError(() => guard.upgrade(), 'ERR_LOCK_NOT_HELD');
      await expectError(() => guard.tryUpgrade(), 'ERR_LOCK_NOT_HELD');
      await other.acquire('shared');
      const second = await stage.lock.shared();
      const upgraded = await stage.queueUpgrade(() => second.upgrade());
      await second.release();
      await expectError(() => upgraded.promise, 'ERR_LOCK_NOT_HELD');
      const newcomer = await stage.lock.tryShared();
      await stage.expectState([
        [other, 'shared'],
        [stage, 'shared'],
      ]);
      await newcomer!.release();
      await other.release();
    },
  );

  property('wrong options are refused', async (stage) => {
    const guard = await stage.lock.shared();
    for (const options of [null, 1, { timeout: 'x' }, { signal: {} }]) {
      expect(await errorOf(() => guard.upgrade(options as never))).toMatchObject({
        code: 'ERR_INVALID_ARG_TYPE',
      });
    }
    expect(await errorOf(() => guard.upgrade({ timeout: -1 }))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(guard.mode).toBe('shared');
    await guard.release();
  });

  property('when the readers it waits for die, it is exclusive', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    await one.acquire('shared');
    await two.acquire('shared');
    const upgraded = await stage.queueUpgrade(() => guard.upgrade());
    await one.kill();
    await two.kill();
    await upgraded.promise;
    expect(guard).toMatchObject({ mode: 'exclusive', abandoned: null });
    await guard.release();
  });

  property(
    'when an upgrader dies while it waits, nobody is barred, and nothing is abandoned',
    async (stage) => {
      const [dead, newcomer] = await stage.twoOthers();
      const guard = await stage.lock.shared();
      await dead.acquire('shared');
      await stage.queueUpgrade(() => dead.upgrade());
      const waiting = await newcomer.queue('shared');
      await dead.kill();
      expect((await waiting.promise).abandoned).toBeNull();
      await newcomer.release();
      await guard.upgrade();
      expect(guard.abandoned).toBeNull();
      await guard.release();
    },
  );

  property('when one dies that has upgraded, the next one is told', async (stage) => {
    const dead = await stage.other();
    await dead.acquire('shared');
    const grant = await dead.upgrade();
    const waiting = await stage.queue(() => stage.lock.shared());
    await dead.kill();
    const guard = await waiting.promise;
    expect(guard.abandoned).toMatchObject({ pid: dead.pid, token: BigInt(grant.token) });
    await guard.upgrade();
    expect(guard.abandoned).toMatchObject({ token: BigInt(grant.token) });
    await guard.release(); // exclusive, and told: it has repaired
    expect(await stage.abandoned()).toBeNull();
  });

  property('what it is told of the mark is as it is at that moment', async (stage) => {
    const dead = await stage.other();
    await dead.acquire('exclusive');
    const waiting = await stage.queue(() => stage.lock.exclusive());
    await dead.kill();
    const guard = await waiting.promise;
    expect(guard.abandoned).not.toBeNull();
    await guard.downgrade(); // it has repaired
    await guard.upgrade();
    expect(guard).toMatchObject({ mode: 'exclusive', abandoned: null });
    await guard.release();
  });

  property('a theft ends it, and lets all readers in that came behind', async (stage) => {
    const [other, late] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    await other.acquire('shared');
    const upgraded = await stage.queueUpgrade(() => guard.upgrade());
    const waits = [await late.queue('shared'), await late.queue('shared', { as: 'second' })];
    await stage.manager.request(name, { steal: true }, async () => {
      await expectError(() => upgraded.promise, 'ERR_LOCK_LOST');
      await expectError(() => guard.tryUpgrade(), 'ERR_LOCK_LOST');
      await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    });
    await expectError(() => other.release(), 'ERR_LOCK_LOST');
    await Promise.all(waits.map(({ promise }) => promise));
    await stage.expectState([
      [late, 'shared'],
      [late, 'shared'],
    ]);
    await late.release();
    await late.release('second');
  });
};
