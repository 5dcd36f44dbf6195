// A party that is killed, in whatever role, takes nothing with it: whoever waits gets the lock, in the order of the queue,
// and is told when the dead one may have been in the middle of a change.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Grant } from '../../support/party';
import { until } from '../../support/until';
import { type Cases, errorOf, LATE_MS, name, type Other, type Stage } from '../stage';

/** As a peer is told of it. */
const abandonedBy = (dead: Other, grant: Grant) => ({
  pid: dead.pid,
  threadId: dead.threadId,
  since: expect.any(Number),
  token: grant.token,
});

/** As this process is told of it. */
const markOf = (dead: Other, grant: Grant) => ({
  pid: dead.pid,
  threadId: dead.threadId,
  since: expect.any(Date),
  token: BigInt(grant.token),
});

/** Somebody has died with the lock. */
async function abandon(stage: Stage): Promise<{ dead: Other; held: Grant }> {
  const dead = await stage.other();
  const held = await dead.acquire('exclusive');
  const waiting = await stage.queue(() => stage.lock.shared());
  await dead.kill();
  await (await waiting.promise).release();
  return { dead, held };
}

export const deaths: Cases = (property, { deathMs }) => {
  property(
    'a killed exclusive holder: the next one is told, with a greater token; those after it are not',
    async (stage) => {
      const [dead, one, two] = await stage.threeOthers();
      const before = Date.now();
      const held = await dead.acquire('exclusive');
      const first = await one.queue('exclusive');
      const second = await two.queue('exclusive');
      await dead.kill();
      const grant = await first.promise;
      expect(grant.abandoned).toEqual(abandonedBy(dead, held));
      expect(grant.abandoned!.since).toBeGreaterThanOrEqual(before - 1000); // of another clock, maybe
      expect(grant.abandoned!.since).toBeLessThanOrEqual(Date.now() + 1000);
      expect(BigInt(grant.token) > BigInt(held.token)).toBe(true);
      expect(second.settled).toBe(false);
      await one.release();
      expect((await second.promise).abandoned).toBeNull();
      await two.release();
    },
  );

  property('a killed holder stands in the way for no longer than the engine says', async (stage) => {
    const dead = await stage.other();
    await dead.acquire('exclusive');
    const waiting = await stage.queue(() => stage.lock.exclusive());
    await dead.kill();
    const killed = performance.now();
    const guard = await waiting.promise;
    expect(performance.now() - killed).toBeLessThan(deathMs + LATE_MS);
    await guard.release();
  });

  property('a killed shared holder leaves no mark, and the others their holds', async (stage) => {
    const [dead, other, writer] = await stage.threeOthers();
    await dead.acquire('shared');
    await other.acquire('shared');
    const waiting = await writer.queue('exclusive');
    await dead.kill();
    await until(async () => (await stage.query()).held.length === 1, { within: deathMs + LATE_MS });
    await stage.expectState([[other, 'shared']], [[writer, 'exclusive']]);
    expect(waiting.settled).toBe(false);
    await other.release();
    expect((await waiting.promise).abandoned).toBeNull();
    await writer.release();
  });

  property('killed waiters are skipped, and the others keep their order', async (stage) => {
    const others = await Promise.all([1, 2, 3, 4, 5].map(() => stage.other()));
    const guard = await stage.lock.exclusive();
    const waits = [];
    for (const other of others) waits.push(await other.queue('exclusive'));
    for (const n of [0, 2, 4]) await others[n]!.kill();
    // Granted before the engine knows of the death, it would leave a mark.
    await until(async () => (await stage.query()).pending.length === 2);
    await guard.release();
    expect((await waits[1]!.promise).abandoned).toBeNull();
    expect(waits[3]!.settled).toBe(false);
    await others[1]!.release();
    expect((await waits[3]!.promise).abandoned).toBeNull();
    await others[3]!.release();
  });

  property('a killed writer that waited lets in the readers behind it', async (stage) => {
    const [dead, reader] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    await dead.queue('exclusive');
    const read = await reader.queue('shared');
    await dead.kill();
    expect((await read.promise).abandoned).toBeNull();
    await guard.release();
    await reader.release();
  });

  property(
    'the holder and the first waiters at once: the first that lives gets it, and is told',
    async (stage) => {
      const [dead, one, two] = await stage.threeOthers();
      const held = await dead.acquire('exclusive');
      await one.queue('exclusive');
      const waiting = await two.queue('shared');
      await Promise.all([one.kill(), dead.kill()]);
      expect((await waiting.promise).abandoned).toEqual(abandonedBy(dead, held));
      await two.release();
    },
  );

  property(
    'one that held and waited for many locks: each is free, and each that it held tells',
    async (stage) => {
      const dead = await stage.other();
      const names = Array.from({ length: 6 }, (_, n) => `lock ${n}`);
      for (const one of names.slice(0, 2)) await dead.acquire('exclusive', { name: one });
      for (const one of names.slice(2, 4)) await dead.acquire('shared', { name: one });
      const mine = [];
      for (const one of names.slice(4)) {
        mine.push(await stage.make('SharedLock', one).exclusive());
        await dead.queue('exclusive', { name: one });
      }
      await dead.kill();
      // Granted before the engine knows of the death, it would leave a mark.
      for (const one of names.slice(4)) {
        await until(async () => (await stage.make('SharedLock', one).query()).pending.length === 0);
      }
      for (const guard of mine) await guard.release();
      for (const [n, one] of names.entries()) {
        const guard = await stage.make('SharedLock', one).exclusive();
        expect(guard.abandoned?.pid).toBe(n < 2 ? dead.pid : undefined);
        await guard.release();
      }
    },
  );

  property('one that leaves in good order releases what it holds: that is no death', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive', { name: 'another' });
    await other.acquire('shared');
    const waiting = await stage.queue(() => stage.lock.exclusive());
    await other.release();
    await other.release('another');
    await other.peer.leave();
    const guard = await waiting.promise;
    expect(guard.abandoned).toBeNull();
    await guard.release();
  });
};

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

export const abandoned: Cases = (property, { remote }) => {
  property(
    'the mark stays for every shared holder, until an exclusive one that saw it releases',
    async (stage) => {
      const [one, two] = await stage.twoOthers();
      const { dead, held } = await abandon(stage);
      for (const other of [one, two]) {
        expect((await other.acquire('shared')).abandoned).toEqual(abandonedBy(dead, held));
      }
      for (const other of [one, two]) await other.release();
      const repair = await one.acquire('exclusive');
      expect(repair.abandoned).toEqual(abandonedBy(dead, held));
      await one.release();
      for (const other of [one, two]) {
        expect((await other.acquire('shared')).abandoned).toBeNull();
        await other.release();
      }
      expect(await stage.abandoned()).toBeNull();
    },
  );

  if (remote)
    property('the mark is shown to whoever lists them, and that of no one else', async (stage) => {
      const marks = () => stage.world.marks!();
      const alive = await stage.lock.exclusive();
      expect(await marks()).toEqual([]);
      await alive.release();
      const { dead, held } = await abandon(stage);
      expect(await marks()).toEqual([{ name, abandoned: markOf(dead, held) }]);
      const second = await stage.other();
      const theirs = await second.acquire('exclusive');
      expect(await marks()).toEqual([{ name, abandoned: markOf(dead, held) }]);
      await second.kill();
      await stage.untilIdle();
      expect(await marks()).toEqual([{ name, abandoned: markOf(second, theirs) }]);
      await stage.lock.exclusive(() => {});
      expect(await marks()).toEqual([]);
    });

  property('a callback that ends clears it; one that throws does not', async (stage) => {
    const { dead, held } = await abandon(stage);
    const failure = new Error('not repaired');
    for (const fail of [
      () => {
        throw failure;
      },
      () => Promise.reject(failure),
    ]) {
      const call = () =>
        stage.lock.exclusive((guard) => {
          expect(guard.abandoned).toEqual(markOf(dead, held));
          return fail();
        });
      expect(await errorOf(call)).toBe(failure);
      expect(await stage.abandoned()).toEqual(markOf(dead, held));
    }
    await stage.lock.exclusive(({ abandoned: mark }) => expect(mark).toEqual(markOf(dead, held)));
    expect(await stage.abandoned()).toBeNull();
  });

  property('a nested callback that throws is enough to keep it', async (stage) => {
    await abandon(stage);
    const lock = stage.make('RLock');
    await lock.acquire(async () => {
      await errorOf(() => lock.acquire(() => Promise.reject(new Error('of the nested one'))));
    });
    expect(await stage.abandoned()).not.toBeNull();
    await lock.acquire(() => {});
    expect(await stage.abandoned()).toBeNull();
  });

  property('a guard that was dropped does not clear it', async (stage) => {
    const { dead, held } = await abandon(stage);
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    try {
      const drop = async () => {
        expect((await stage.lock.exclusive()).abandoned).not.toBeNull();
        await new Promise(setImmediate);
      };
      await drop();
      await until(async () => {
        collectGarbage();
        await new Promise(setImmediate);
        return (await stage.query()).held.length === 0;
      });
    } finally {
      warn.mockRestore();
    }
    expect(await stage.abandoned()).toEqual(markOf(dead, held));
    await stage.lock.exclusive(() => {});
  });

  property('`await using` clears it', async (stage) => {
    await abandon(stage);
    {
      await using guard = await stage.lock.exclusive();
      expect(guard.abandoned).not.toBeNull();
    }
    expect(await stage.abandoned()).toBeNull();
  });

  property('a downgrade of the holder that saw it clears it', async (stage) => {
    await abandon(stage);
    const other = await stage.other();
    const repair = await stage.lock.exclusive();
    await repair.downgrade();
    expect((await other.acquire('shared')).abandoned).toBeNull();
    await other.release();
    await repair.release();
  });

  property('it is that of the last one, when who repairs is killed as well', async (stage) => {
    const first = await abandon(stage);
    const { dead, held } = await abandon(stage);
    expect(held.abandoned).toEqual(abandonedBy(first.dead, first.held));
    const guard = await stage.lock.exclusive();
    expect(guard.abandoned).toEqual(markOf(dead, held));
    await guard.release();
  });

  property('it outlives those who knew of it: whoever comes later is told', async (stage) => {
    const { dead, held } = await abandon(stage);
    await stage.make('SharedLock', 'another').exclusive(() => {});
    const later = await stage.other();
    const grant = await later.try('exclusive');
    expect(grant!.abandoned).toEqual(abandonedBy(dead, held));
    await later.release();
  });

  property('a lock of another name has none', async (stage) => {
    await abandon(stage);
    const other = await stage.make('SharedLock', `${name} 2`).exclusive();
    expect(other.abandoned).toBeNull();
    await other.release();
    await stage.lock.exclusive(() => {});
  });

  property('a request of a LockManager, which is told nothing, leaves it', async (stage) => {
    const { dead, held } = await abandon(stage);
    await stage.manager.request(name, async () => {});
    expect(await stage.abandoned()).toEqual(markOf(dead, held));
    await stage.lock.exclusive(() => {});
  });
};
