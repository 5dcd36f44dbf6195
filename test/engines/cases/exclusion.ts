// Who can have the lock beside whom, and that a try never waits.
import { type Cases, expectError, MODES, name } from '../stage';

export const exclusion: Cases = (property) => {
  property('an exclusive holder is alone', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    for (const mode of MODES) {
      expect(await other.try(mode)).toBeNull();
      expect(await stage.lock.tryAcquire({ exclusive: mode === 'exclusive' })).toBeNull();
    }
    await stage.expectState([[stage, 'exclusive']]);
    await guard.release();
    await other.acquire('exclusive');
    expect(await stage.lock.tryShared()).toBeNull();
    expect(await stage.lock.tryExclusive()).toBeNull();
    await other.release();
  });

  property(
    'shared holders are many, and keep an exclusive one out until the last has released',
    async (stage) => {
      const [one, two] = await stage.twoOthers();
      const guard = await stage.lock.shared();
      await one.acquire('shared');
      await two.acquire('shared');
      await stage.expectState([
        [stage, 'shared'],
        [one, 'shared'],
        [two, 'shared'],
      ]);
      await guard.release();
      await one.release();
      expect(await stage.lock.tryExclusive()).toBeNull();
      const writer = await stage.queue(() => stage.lock.exclusive());
      await two.release();
      await (await writer.promise).release();
    },
  );

  property('a try has the lock at once, or null, and leaves nobody in the queue', async (stage) => {
    const other = await stage.other();
    const shared = await stage.lock.tryShared();
    expect(await other.try('exclusive')).toBeNull();
    expect(await other.try('shared')).toMatchObject({ mode: 'shared' });
    expect(await stage.lock.tryExclusive()).toBeNull();
    await stage.expectState([
      [stage, 'shared'],
      [other, 'shared'],
    ]);
    await shared!.release();
    await other.release();
    const exclusive = await stage.lock.tryExclusive();
    expect(exclusive).toMatchObject({ mode: 'exclusive' });
    expect(await other.try('shared')).toBeNull();
    await exclusive!.release();
  });

  property('a try does not pass whoever waits', async (stage) => {
    const [holder, writer] = await stage.twoOthers();
    await holder.acquire('shared');
    const waiting = await writer.queue('exclusive');
    expect(await stage.lock.tryShared()).toBeNull();
    expect(waiting.settled).toBe(false);
    await holder.release();
    await waiting.promise;
    await writer.release();
  });

  property(
    'an acquire is shared, unless it is asked to be exclusive; that of Lock and RLock always is',
    async (stage) => {
      for (const className of ['SharedLock', 'SharedRLock'] as const) {
        const lock = stage.make(className);
        for (const options of [undefined, {}, { exclusive: false }]) {
          const guard = await lock.acquire(options);
          expect(guard.mode).toBe('shared');
          await guard.release();
        }
        const guards = [await lock.acquire({ exclusive: true })];
        expect(guards[0]!.mode).toBe('exclusive');
        await guards[0]!.release();
        guards.push((await lock.tryAcquire())!);
        expect(guards[1]!.mode).toBe('shared');
        await guards[1]!.release();
      }
      for (const className of ['Lock', 'RLock'] as const) {
        const lock = stage.make(className);
        for (const call of [() => lock.acquire(), () => lock.tryAcquire()]) {
          const guard = (await call())!;
          expect(guard.mode).toBe('exclusive');
          expect(await stage.lock.tryShared()).toBeNull();
          await guard.release();
        }
      }
    },
  );

  property('locks of all classes with one name are one lock', async (stage) => {
    const other = await stage.other();
    for (const className of ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const) {
      const guard = await stage.make(className).acquire({ exclusive: true });
      for (const another of ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const)
        expect(await other.try('exclusive', { class: another })).toBeNull();
      await guard.release();
    }
  });

  property('locks of two names have nothing to do with each other', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    expect(await other.try('exclusive', { name: `${name} 2` })).not.toBeNull();
    await stage.expectState([
      [stage, 'exclusive'],
      [other, 'exclusive'],
    ]);
    await other.release(`${name} 2`);
    await guard.release();
  });

  property('two calls of one process that nest in nothing exclude each other', async (stage) => {
    const lock = stage.make('RLock');
    const first = await lock.acquire();
    expect(await lock.tryAcquire()).toBeNull();
    await expectError(() => lock.acquire({ timeout: 0 }), 'ERR_LOCK_TIMEOUT');
    const second = await stage.queue(() => lock.acquire());
    await first.release();
    await (await second.promise).release();
  });
};
