// What the channels tell of locks. Peers of some engines are in this process: what they do is told before, or of other modes.
import { eventsOf, publishedBy } from '../../support/channels';
import { until } from '../../support/until';
import { type Cases, errorOf, name } from '../stage';

const ACQUIRED = ['start', 'end', 'asyncStart', 'asyncEnd'];
const FAILED = ['start', 'end', 'error', 'asyncStart', 'asyncEnd'];

export const watching: Cases = (property, { remote }) => {
  property('an acquire: one context in all of its events, then a release', async (stage) => {
    const { namespace } = stage.world;
    let token: bigint | undefined;
    const published = await publishedBy(namespace, async () => {
      const guard = await stage.lock.exclusive();
      token = guard.token;
      await guard.downgrade();
      await guard.release();
    });
    expect(eventsOf(published)).toEqual([...ACQUIRED, 'release']);
    const context = published[0]!.context;
    expect(published.slice(0, 4).every((one) => one.context === context)).toBe(true);
    const expected = { name, namespace, mode: 'exclusive', sync: false, contended: false, token };
    expect(context).toEqual({ ...expected, waitMs: expect.any(Number) });
    expect(context.waitMs).toBeGreaterThanOrEqual(0);
    const { holdMs } = published[4]!.context as { holdMs: number };
    expect(published[4]!.context).toEqual({ name, namespace, mode: 'shared', holdMs });
    expect(holdMs).toBeGreaterThanOrEqual(0);
    expect(holdMs).toBeLessThan(60_000);
  });

  property('a callback: the events of its acquire come before it is called', async (stage) => {
    let before: string[] = [];
    const published = await publishedBy(stage.world.namespace, (soFar) =>
      stage.lock.shared(() => {
        before = eventsOf(soFar);
      }),
    );
    expect(before).toEqual(ACQUIRED);
    expect(eventsOf(published)).toEqual([...ACQUIRED, 'release']);
  });

  property('one that had to wait says so, and for how long', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    const published = await publishedBy(stage.world.namespace, async (soFar) => {
      const began = performance.now();
      const waiting = await stage.queue(() => stage.lock.shared());
      const waited = performance.now() - began;
      expect(eventsOf(soFar.filter(({ context }) => context.mode === 'shared'))).toEqual(['start', 'end']);
      await other.release();
      await (await waiting.promise).release();
      const { context } = soFar.find(({ event }) => event === 'asyncEnd')!;
      expect(context).toMatchObject({ contended: true, mode: 'shared', token: expect.any(BigInt) });
      expect(context.waitMs).toBeGreaterThan(0);
      expect(context.waitMs).toBeLessThan(waited + 60_000);
    });
    const ours = published.filter(({ context }) => context.mode === 'shared');
    expect(eventsOf(ours)).toEqual([...ACQUIRED, 'release']);
  });

  property('one that fails tells why, and has no token', async (stage) => {
    const other = await stage.other();
    await other.acquire('shared');
    let error: Error | undefined;
    const published = await publishedBy(stage.world.namespace, async () => {
      error = await errorOf(() => stage.lock.exclusive({ timeout: 20 }));
    });
    const ours = published.filter(({ context }) => context.mode === 'exclusive');
    expect(eventsOf(ours)).toEqual(FAILED);
    expect(ours[0]!.context).toMatchObject({ contended: true, token: undefined });
    expect(ours[0]!.context.error).toBe(error);
    await other.release();
  });

  property('what is refused at once is told as well', async (stage) => {
    let error: Error | undefined;
    const published = await publishedBy(stage.world.namespace, () =>
      stage.lock.shared(async () => {
        error = await errorOf(() => stage.lock.shared());
      }),
    );
    expect(eventsOf(published)).toEqual([...ACQUIRED, ...FAILED, 'release']);
    expect(published[4]!.context).toMatchObject({ error, contended: false });
    expect(error).toMatchObject({ code: 'ERR_LOCK_NOT_REENTRANT' });
  });

  property('a try never waits, and has a token or none', async (stage) => {
    const events = remote ? ACQUIRED : ['start', 'end'];
    const published = await publishedBy(stage.world.namespace, async () => {
      const guard = await stage.lock.tryShared();
      expect(await stage.lock.tryExclusive()).toBeNull();
      await guard!.release();
    });
    expect(eventsOf(published)).toEqual([...events, ...events, 'release']);
    expect(published[0]!.context).toMatchObject({ sync: !remote, mode: 'shared', token: expect.any(BigInt) });
    const refused = { sync: !remote, mode: 'exclusive', contended: false, token: undefined };
    expect(published[events.length]!.context).toMatchObject(refused);
  });

  property('a request of a LockManager is an acquire', async (stage) => {
    const published = await publishedBy(stage.world.namespace, async () => {
      await stage.manager.request(name, { mode: 'shared' }, () => {});
    });
    expect(eventsOf(published)).toEqual([...ACQUIRED, 'release']);
    expect(published[0]!.context).toMatchObject({ name, mode: 'shared', contended: false, sync: false });
  });

  property('who is told of a dead holder, and who it was', async (stage) => {
    const dead = await stage.other();
    await dead.acquire('exclusive');
    const waiting = await stage.queue(() => stage.lock.shared());
    const { namespace } = stage.world;
    const published = await publishedBy(namespace, async () => {
      await dead.kill();
      const guard = await waiting.promise;
      expect(guard.abandoned).not.toBeNull();
      await guard.release();
      await stage.lock.exclusive(() => {});
      await stage.lock.exclusive(() => {});
    }, ['abandoned']);
    const abandoned = expect.objectContaining({ pid: dead.pid, since: expect.any(Date) });
    expect(published.map(({ context }) => context)).toEqual([
      { name, namespace, mode: 'shared', abandoned },
      { name, namespace, mode: 'exclusive', abandoned },
    ]);
  });

  property('a hold that was stolen: once, whether somebody has asked for it or not', async (stage) => {
    const other = await stage.other();
    const { namespace } = stage.world;
    for (const asks of [true, false]) {
      const guard = await stage.lock.exclusive();
      if (asks) void guard.lost;
      let error: Error | undefined;
      const published = await publishedBy(
        namespace,
        async (soFar) => {
          const thief = await other.holdRequest({ steal: true });
          if (asks) await until(() => soFar.length > 0);
          error = await errorOf(() => guard.release());
          await thief.finish();
        },
        ['lost'],
      );
      expect(published).toEqual([{ event: 'lost', context: { name, namespace, mode: 'exclusive', error } }]);
      expect(error).toMatchObject({ code: 'ERR_LOCK_LOST' });
    }
  });
};
