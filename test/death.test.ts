// A process that is killed, in whatever role, takes nothing with it: whoever waits gets the lock, in the order of the
// queue, and is told when the dead one may have been in the middle of a change.
import { type AcquireOptions, SharedLock } from '../lib';
import {
  ACTOR_KINDS,
  type Actor,
  type Grant,
  type Pending,
  PROCESS_KINDS,
  startActor,
  startActors,
} from './support/actor';
import { expectIdle, lockPerTest, MODES, name, state, untilPending } from './support/locks';

const KILLED = { code: null, signal: 'SIGKILL' };

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

async function kill(...actors: Actor[]): Promise<void> {
  for (const ended of await Promise.all(actors.map((actor) => actor.kill('SIGKILL')))) {
    expect(ended).toEqual(KILLED);
  }
}

const abandonedBy = (dead: Actor, grant: Grant) => ({
  pid: dead.pid,
  threadId: dead.threadId,
  since: expect.any(Number),
  token: grant.token,
});

describe.each(PROCESS_KINDS)('a %s process killed', (kind) => {
  describe.each(MODES)('while it holds %s', (mode) => {
    const ways = {
      exclusive: (options: AcquireOptions) => lock.exclusive(options),
      exclusiveSync: async (options: AcquireOptions) => lock.exclusiveSync(options),
    };

    test.each(Object.entries(ways))(
      'does not even stand in the way of %s with a timeout of 0',
      async (_, acquire) => {
        const dead = await startActors(mode === 'shared' ? [kind, kind, kind] : [kind], { namespace });
        for (const actor of dead) await actor.acquire({ name, mode });
        await expect(acquire({ timeout: 0 })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
        await kill(...dead);
        const guard = await acquire({ timeout: 0 });
        expect(guard.abandoned?.pid).toBe(mode === 'shared' ? undefined : dead[0]!.pid);
        guard.release();
        expectIdle(lock);
      },
    );
  });

  test('while it holds exclusively: the next one is told, with a greater token; those after it are not', async () => {
    const [dead, ...waiters] = await startActors([kind, ...ACTOR_KINDS], { namespace });
    const before = Date.now();
    const held = await dead!.acquire({ name, mode: 'exclusive' });
    const pending = [];
    for (const waiter of waiters) pending.push(await waiter.queue({ name, mode: 'exclusive' }));
    await kill(dead!);
    let last = BigInt(held.token);
    for (const [n, waiter] of waiters.entries()) {
      const grant = await pending[n]!.promise;
      expect(grant.abandoned).toEqual(n === 0 ? abandonedBy(dead!, held) : null);
      if (grant.abandoned) {
        expect(grant.abandoned.since).toBeGreaterThanOrEqual(before - 20); // the clock it is read from is coarse
        expect(grant.abandoned.since).toBeLessThanOrEqual(Date.now());
      }
      expect(BigInt(grant.token)).toBeGreaterThan(last);
      last = BigInt(grant.token);
      expect(pending.slice(n + 1).some(({ settled }) => settled)).toBe(false);
      expect(lock.query().held.map(({ pid, threadId }) => ({ pid, threadId }))).toEqual([
        { pid: waiter.pid, threadId: waiter.threadId },
      ]);
      await waiter.release(name);
    }
    expectIdle(lock);
  });

  test.each(
    ACTOR_KINDS.flatMap((waiting) => [
      { waiting, way: 'acquire' as const },
      { waiting, way: 'acquireSync' as const },
    ]),
  )('while it holds: a $waiting waiter alone ($way) gets it', async ({ waiting, way }) => {
    const [dead, waiter] = await startActors([kind, waiting], { namespace });
    const held = await dead!.acquire({ name, mode: 'exclusive' });
    const pending = waiter!.begin(way, { name, mode: 'shared' });
    await untilPending(lock, 1);
    await kill(dead!);
    expect((await pending.promise).abandoned).toEqual(abandonedBy(dead!, held));
    await waiter!.release(name);
    expectIdle(lock);
  });

  test('while it holds shared: the other holders keep the lock, and nobody is told of a torn change', async () => {
    const [dead, other, waiter] = await startActors([kind, 'fork', 'fork'], { namespace });
    await dead!.acquire({ name, mode: 'shared' });
    await other!.acquire({ name, mode: 'shared' });
    const pending = await waiter!.queue({ name, mode: 'exclusive' });
    await kill(dead!);
    await other!.call('ping');
    expect(lock.query()).toEqual(state(['shared'], ['exclusive']));
    expect(lock.tryExclusive()).toBeNull();
    expect(pending.settled).toBe(false);
    await other!.release(name);
    expect((await pending.promise).abandoned).toBeNull();
    expect(lock.tryShared()).toBeNull();
    await waiter!.release(name);
    expectIdle(lock);
  });

  test('while it holds shared, alone: a waiter gets it', async () => {
    const [dead, waiter] = await startActors([kind, 'fork'], { namespace });
    await dead!.acquire({ name, mode: 'shared' });
    const pending = waiter!.begin('acquireSync', { name, mode: 'exclusive' });
    await untilPending(lock, 1);
    await kill(dead!);
    expect((await pending.promise).abandoned).toBeNull();
  });

  test.each(MODES)('while it holds %s and nobody waits: whoever tries next gets it at once', async (mode) => {
    const [dead, other] = await startActors([kind, 'fork'], { namespace });
    for (const [n, trier] of [other, undefined].entries()) {
      const victim = n === 0 ? dead! : await startActor(kind, { namespace });
      await victim.acquire({ name, mode });
      await kill(victim);
      if (trier) {
        const grant = await trier.call('tryAcquire', { name, mode: 'exclusive' });
        expect(grant?.abandoned?.pid).toBe(mode === 'exclusive' ? victim.pid : undefined);
        await trier.release(name);
      } else {
        const guard = lock.tryExclusive();
        expect(guard?.abandoned?.pid).toBe(mode === 'exclusive' ? victim.pid : undefined);
        guard?.release();
      }
    }
    expectIdle(lock);
  });

  test.each(['acquire', 'acquireSync'] as const)(
    'while it waits (%s), at the front, in the middle and at the end: the others keep their order',
    async (way) => {
      const [holder, ...waiters] = await startActors(['fork', kind, 'fork', kind, 'thread', kind], {
        namespace,
      });
      await holder!.acquire({ name, mode: 'exclusive' });
      const pending: Pending<Grant>[] = [];
      for (const [n, waiter] of waiters.entries()) {
        const dies = n % 2 === 0;
        pending.push(waiter.begin(dies ? way : 'acquire', { name, mode: 'exclusive', fair: true }));
        await untilPending(lock, n + 1);
      }
      await kill(waiters[2]!);
      await kill(waiters[4]!, waiters[0]!);
      const [first, second] = [waiters[1]!, waiters[3]!];
      expect(lock.query().pending.map(({ pid, threadId }) => ({ pid, threadId }))).toEqual(
        [first, second].map(({ pid, threadId }) => ({ pid, threadId })),
      );
      await holder!.release(name);
      expect((await pending[1]!.promise).abandoned).toBeNull();
      expect(pending[3]!.settled).toBe(false);
      await first.release(name);
      expect((await pending[3]!.promise).abandoned).toBeNull();
      await second.release(name);
      expectIdle(lock);
    },
  );

  test.each(['acquire', 'acquireSync'] as const)(
    'after it was told that it is its turn (%s), and before it took it: the next one gets it',
    async (way) => {
      const [front, next] = await startActors([kind, 'fork'], { namespace });
      const guard = await lock.exclusive();
      front!.begin(way, { name, mode: 'exclusive' });
      await untilPending(lock, 1);
      const pending = await next!.queue({ name, mode: 'exclusive' });
      await front!.stop();
      guard.release(); // which pokes the front, and the front can not react
      await kill(front!);
      expect((await pending.promise).abandoned).toBeNull();
      await next!.release(name);
      expectIdle(lock);
    },
  );

  test('in the moment in which it was granted: the next one is told', async () => {
    const [dead, next] = await startActors([kind, 'fork'], { namespace });
    const guard = await lock.exclusive();
    dead!
      .run(`await lock({ name: args }).exclusive(); process.kill(process.pid, 'SIGKILL'); for (;;);`, name)
      .catch(() => undefined);
    await untilPending(lock, 1);
    const pending = await next!.queue({ name, mode: 'exclusive' });
    guard.release();
    expect(await dead!.ended).toEqual(KILLED);
    const grant = await pending.promise;
    expect(grant.abandoned).toMatchObject({ pid: dead!.pid, threadId: 0 });
    expect(BigInt(grant.abandoned!.token)).toBeGreaterThan(guard.token);
    expect(BigInt(grant.token)).toBeGreaterThan(BigInt(grant.abandoned!.token));
    await next!.release(name);
    expectIdle(lock);
  });

  test('several at once, the holder and the first waiters: the first that lives gets it', async () => {
    const [holder, one, two, three, four] = await startActors([kind, kind, kind, 'fork', 'thread'], {
      namespace,
    });
    const held = await holder!.acquire({ name, mode: 'exclusive' });
    one!.begin('acquireSync', { name, mode: 'exclusive' });
    await untilPending(lock, 1);
    await two!.queue({ name, mode: 'shared' });
    const third = await three!.queue({ name, mode: 'exclusive' });
    const fourth = await four!.queue({ name, mode: 'shared' });
    // Three signals are not sent at once: stopped, none of them can take the lock in between.
    for (const actor of [holder!, one!, two!]) await actor.stop();
    await kill(holder!, one!, two!);
    expect((await third.promise).abandoned).toEqual(abandonedBy(holder!, held));
    expect(fourth.settled).toBe(false);
    expect(lock.query()).toEqual(state(['exclusive'], ['shared']));
    await three!.release(name);
    expect((await fourth.promise).abandoned).toBeNull();
    await four!.release(name);
    expectIdle(lock);
  });

  test('with a hundred locks, held and waited for: each of them is free, and each that was held tells', async () => {
    const dead = await startActor(kind, { namespace });
    const names = Array.from({ length: 100 }, (_, n) => `lock ${n}`);
    const guards = names.slice(50).map((one) => new SharedLock(one, { namespace }).exclusiveSync());
    await dead.run(
      `for (const name of args.slice(0, 50)) lock({ name }).exclusiveSync();
       for (const name of args.slice(50)) lock({ name }).exclusive();`,
      names,
    );
    await kill(dead);
    for (const guard of guards) {
      expect(guard.lock.query()).toEqual(state(['exclusive'], []));
      guard.release();
    }
    for (const [n, one] of names.entries()) {
      const guard = new SharedLock(one, { namespace }).tryExclusive();
      expect(guard).not.toBeNull();
      expect(guard?.abandoned?.pid).toBe(n < 50 ? dead.pid : undefined);
      guard?.release();
    }
  });
});

describe('the mark of an abandoned lock', () => {
  async function abandon(): Promise<{ dead: Actor; held: Grant }> {
    const dead = await startActor('fork', { namespace });
    const held = await dead.acquire({ name, mode: 'exclusive' });
    await kill(dead);
    return { dead, held };
  }

  test('stays for every shared holder, until an exclusive holder that saw it releases', async () => {
    const readers = await startActors(['fork', 'thread', 'cluster'], { namespace });
    const { dead, held } = await abandon();
    for (const reader of readers) {
      expect((await reader.acquire({ name, mode: 'shared' })).abandoned).toEqual(abandonedBy(dead, held));
    }
    for (const reader of readers) await reader.release(name);
    const again = lock.sharedSync();
    expect(again.abandoned).toMatchObject({ pid: dead.pid, token: BigInt(held.token) });
    again.release();
    const repair = await readers[0]!.acquire({ name, mode: 'exclusive' });
    expect(repair.abandoned).toEqual(abandonedBy(dead, held));
    await readers[0]!.release(name);
    for (const reader of readers) {
      expect((await reader.acquire({ name, mode: 'shared' })).abandoned).toBeNull();
      await reader.release(name);
    }
  });

  test('is gone after a downgrade of the holder that saw it', async () => {
    const { dead } = await abandon();
    const repair = lock.exclusiveSync();
    expect(repair.abandoned?.pid).toBe(dead.pid);
    repair.downgrade();
    const reader = await startActor('fork', { namespace });
    expect((await reader.acquire({ name, mode: 'shared' })).abandoned).toBeNull();
    repair.release();
  });

  test('is that of the last one, when who repairs is killed as well', async () => {
    await abandon();
    const { dead, held } = await abandon();
    const guard = lock.exclusiveSync();
    expect(guard.abandoned).toMatchObject({ pid: dead.pid, token: BigInt(held.token) });
    guard.release();
  });

  test('outlives everybody: a program that starts later is told', async () => {
    const { dead, held } = await abandon();
    lock.close();
    const later = await startActor('fork', { namespace });
    const grant = await later.acquire({ name, mode: 'exclusive' });
    expect(grant.abandoned).toEqual(abandonedBy(dead, held));
    await later.release(name);
  });
});
