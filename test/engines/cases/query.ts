// What `query()` shows.
import { type Cases, MODES, name } from '../stage';

const CLOCKS_MS = 1000; // that of the engine may be another one

export const query: Cases = (property, traits) => {
  property('holders and waiters, each with its name, mode, party and time', async (stage) => {
    const other = await stage.other();
    const before = Date.now() - CLOCKS_MS;
    const guard = await stage.lock.exclusive();
    const waiting = await other.queue('shared');
    const after = Date.now() + CLOCKS_MS;
    const { held, pending } = await stage.lock.query();
    const own = { pid: process.pid, threadId: 0, clientId: await stage.clientId() };
    const others = { pid: other.pid, threadId: other.threadId, clientId: expect.any(String) };
    expect(held).toMatchObject([{ name, mode: 'exclusive', ...own, since: expect.any(Date) }]);
    expect(pending).toMatchObject([{ name, mode: 'shared', ...others, since: expect.any(Date) }]);
    expect(pending[0]!.clientId).not.toBe(held[0]!.clientId);
    for (const { since } of [...held, ...pending]) {
      expect(since.getTime()).toBeGreaterThanOrEqual(before);
      expect(since.getTime()).toBeLessThanOrEqual(after);
    }
    if (traits.remote) expect(held[0]!.host).toEqual(expect.any(String));
    await guard.release();
    await waiting.promise;
    await other.release();
  });

  property('every party sees the same', async (stage) => {
    const [one, two] = await stage.twoOthers();
    await one.acquire('shared');
    const waiting = await two.queue('exclusive');
    const own = await stage.lock.query();
    for (const other of [one, two]) {
      const seen = await other.query();
      const plain = (infos: Array<{ since: Date }>) =>
        infos.map(({ since, ...info }) => ({ ...info, since: since.getTime() }));
      for (const side of ['held', 'pending'] as const) {
        expect(plain(own[side])).toMatchObject(seen[side]);
        expect(seen[side]).toHaveLength(1);
      }
    }
    await one.release();
    await waiting.promise;
    await two.release();
  });

  property('a clientId is stable, and another one for each party', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const ids = await Promise.all([stage, one, two].map((party) => party.clientId()));
    expect(new Set(ids).size).toBe(3);
    for (const mode of MODES) {
      const guard = await stage.lock[mode]();
      expect((await stage.lock.query()).held).toMatchObject([{ mode, clientId: ids[0] }]);
      await guard.release();
    }
  });

  property('pending is in the order of the queue', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const guard = await stage.lock.exclusive();
    const waits = [
      await one.queue('shared', { as: 'a' }),
      await two.queue('exclusive', { as: 'b' }),
      await one.queue('exclusive', { as: 'c' }),
      await two.queue('shared', { as: 'd' }),
    ];
    await stage.expectState(
      [[stage, 'exclusive']],
      [
        [one, 'shared'],
        [two, 'exclusive'],
        [one, 'exclusive'],
        [two, 'shared'],
      ],
    );
    await guard.release();
    for (const [n, party] of [one, two, one, two].entries()) {
      await waits[n]!.promise;
      await party.release('abcd'[n]!);
    }
  });

  property('a reentrant hold is shown once, whatever its depth', async (stage) => {
    const lock = stage.make('SharedRLock');
    await lock.exclusive(async (outer) => {
      const nested = [await lock.shared({ within: outer }), await lock.exclusive({ within: outer })];
      await lock.shared(async () => {
        expect((await lock.query()).held).toMatchObject([{ mode: 'exclusive' }]);
      });
      for (const guard of nested) await guard.release();
      expect((await lock.query()).held).toMatchObject([{ mode: 'exclusive' }]);
    });
  });

  property('a downgraded hold is shown shared', async (stage) => {
    const guard = await stage.lock.exclusive();
    await guard.downgrade();
    expect(await stage.lock.query()).toMatchObject({ held: [{ mode: 'shared' }], pending: [] });
    await guard.release();
  });

  property('a lock shows nothing of others; the query of all shows them all', async (stage) => {
    const another = stage.make('SharedLock', 'another');
    const guards = [await stage.lock.shared(), await another.exclusive()];
    expect((await stage.lock.query()).held).toMatchObject([{ name }]);
    expect((await another.query()).held).toMatchObject([{ name: 'another' }]);
    expect((await stage.make('SharedLock', 'free').query()).held).toEqual([]);
    expect((await stage.manager.query()).held.map((info) => info.name).sort()).toEqual(['another', name]);
    for (const guard of guards) await guard.release();
  });
};
