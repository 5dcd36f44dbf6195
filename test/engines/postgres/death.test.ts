// A process that is killed, in whatever role, takes nothing with it: whoever waits gets the lock within a second, and is told
// when the dead one may have been in the middle of a change.
import { performance } from 'node:perf_hooks';
import { Client } from 'pg';
import { LockManager } from '../../../lib/remote';
import { until } from '../../support/until';
import { track } from '../stage';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const GRANT_MS_MAX = 1000;

describeWithServer('a process that is killed', () => {
  const fixture = new Fixture();

  /** A session whose transactions the test begins and ends. */
  async function bareSession(number: number): Promise<Client> {
    const client = new Client(`${fixture.server.url()}?options=-csearch_path%3Dproclock`);
    await client.connect();
    fixture.atEnd(() => client.end());
    await client.query(`select enter(${number}, 'bare', 1, 0, 'here')`);
    fixture.atEnd(async () => client.query(`select leave(${number}), leave(${number})`));
    return client;
  }

  /** A lock that a child holds, as the tables show it. Nobody looks for the dead but who is told to. */
  async function heldByChild() {
    const { name, server } = fixture;
    const holder = await fixture.child();
    await holder.hold(name);
    const encoded = Buffer.from(name);
    const [row] = await server.sql('select key, owner from proclock.locks where name = $1', [encoded]);
    const { key, owner } = row!;
    const isDead = 'select pg_try_advisory_xact_lock_shared($1) as dead';
    return {
      die: async () => {
        await holder.kill();
        await until(async () => (await server.sql(isDead, [owner]))[0]!.dead === true);
      },
      askedBy: async (client: Client, session: number, how: string): Promise<string> => {
        const question = `select acquire($1, 7, $2, 'default', $3, true, $4) as answer`;
        return (await client.query(question, [session, key, encoded, how])).rows[0].answer.state;
      },
      owner: async () =>
        (await server.sql('select owner from proclock.locks where key = $1', [key]))[0]!.owner,
    };
  }

  test('while it holds, leaves a mark for the next one, who has the lock within a second', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    const token = await holder.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    const killedAt = performance.now();
    await holder.kill();
    const guard = await waiting;
    expect(performance.now() - killedAt).toBeLessThan(GRANT_MS_MAX);
    expect(guard.abandoned).toMatchObject({ pid: holder.pid, threadId: 0, token });
    expect(guard.token).toBeGreaterThan(token);
    await guard.release();
    const next = await lock.exclusive();
    expect(next.abandoned).toBeNull();
    await next.release();
  });

  test('is not in the way of one that comes later, or only tries', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    const token = await holder.hold(lock.name);
    await holder.kill();
    await until(async () => (await lock.query()).held.length === 0);
    const guard = await lock.tryShared();
    expect(guard?.abandoned).toMatchObject({ pid: holder.pid, token });
    expect(await guard?.tryUpgrade()).toBe(true);
    await guard?.release();
  });

  test('while it waits, is passed over, and leaves no mark', async () => {
    const lock = await fixture.lock();
    const first = await lock.exclusive();
    const waiter = await fixture.child();
    waiter.hold(lock.name).catch(() => {});
    await fixture.untilPending(lock, 1);
    const second = lock.exclusive();
    await fixture.untilPending(lock, 2);
    await waiter.kill();
    // Granted before the server knows of the death, it would leave a mark.
    await fixture.untilPending(lock, 1);
    await first.release();
    const guard = await second;
    expect(guard.abandoned).toBeNull();
    await guard.release();
  });

  test('together with those ahead of it, keeps nobody waiting', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    await holder.hold(lock.name);
    const waiters = await Promise.all([fixture.child(), fixture.child()]);
    for (const [index, waiter] of waiters.entries()) {
      waiter.hold(lock.name).catch(() => {});
      await fixture.untilPending(lock, index + 1);
    }
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 3);
    const killedAt = performance.now();
    await Promise.all([holder, ...waiters].map((child) => child.kill()));
    const guard = await waiting;
    expect(performance.now() - killedAt).toBeLessThan(GRANT_MS_MAX);
    expect(guard.abandoned).toMatchObject({ pid: holder.pid });
    await guard.release();
  });

  test('after it asked for the release, leaves the lock free or marked, and never both', async () => {
    const lock = await fixture.lock();
    const holder = await fixture.child();
    await holder.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    holder.run('guards.get(args).release(); process.kill(process.pid, "SIGKILL")', lock.name).catch(() => {});
    await holder.ended;
    const guard = await waiting;
    if (guard.abandoned !== null) expect(guard.abandoned.pid).toBe(holder.pid);
    expect((await lock.query()).held).toHaveLength(1);
    await guard.release();
  });

  test('while it upgrades, bars nobody', async () => {
    const lock = await fixture.lock();
    const upgrader = await fixture.child();
    const reader = await lock.shared();
    await upgrader.hold(lock.name, 'shared');
    upgrader.run('await guards.get(args).upgrade()', lock.name).catch(() => {});
    await until(async () => {
      const guard = await lock.tryShared();
      await guard?.release();
      return guard === null;
    });
    const newcomer = lock.shared();
    await fixture.untilPending(lock, 1);
    await upgrader.kill();
    const guard = await newcomer;
    expect(guard.abandoned).toBeNull();
    await guard.release();
    await reader.release();
  });

  test('is no reader any more that an upgrade waits for', async () => {
    const lock = await fixture.lock();
    const reader = await fixture.child();
    const guard = await lock.shared();
    await reader.hold(lock.name, 'shared');
    const upgraded = guard.upgrade();
    await lock.query();
    await reader.kill();
    await upgraded;
    expect(guard.abandoned).toBeNull();
    await guard.release();
  });

  test('frees all that it had, however much that is', async () => {
    const space = await fixture.space();
    const child = await fixture.child();
    await child.run(
      'await Promise.all(Array.from({ length: 500 }, (_, i) => lock(args + i).shared().then((guard) => guards.set(i, guard))))',
      fixture.name,
    );
    const lock = await fixture.lock();
    await child.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    await child.kill();
    await (await waiting).release();
    // Somebody has to wait for the rest to be looked for.
    const held = await lock.exclusive();
    const blocked = (await fixture.lock()).exclusive();
    await until(async () => (await fixture.server.sql('select from proclock.slots')).length <= 2);
    await held.release();
    await (await blocked).release();
    expect((await space.query()).held).toEqual([]);
  });

  test('keeps nobody waiting who saw it alive, and was seen to wait only when others had looked', async () => {
    const held = await heldByChild();
    const late = await bareSession(1);
    const other = await bareSession(2);
    const look = async (): Promise<boolean> => {
      await other.query("update looks set looked_at = '-infinity'");
      return (await other.query('select look(2) as answer')).rows[0].answer.more;
    };

    await late.query('begin');
    expect(await held.askedBy(late, 1, 'wait')).toBe('queued');
    await held.die();
    const looked = track(look());
    const isLooking =
      "select from pg_stat_activity where wait_event_type = 'Lock' and query like 'select look(%'";
    await until(async () => looked.settled || (await fixture.server.sql(isLooking)).length > 0);
    await late.query('commit');
    await looked.promise;

    while (await look());
    expect(await held.owner()).toBe('1');
  });

  test.each(['wait', 'try'])(
    'keeps nobody waiting when the next one that asks (%s) is who finds it dead',
    async (how) => {
      const held = await heldByChild();
      expect(await held.askedBy(await bareSession(3), 3, 'wait')).toBe('queued');
      await held.die();
      const answer = await held.askedBy(await bareSession(4), 4, how);
      expect(answer).toBe(how === 'try' ? 'refused' : 'queued');
      expect(await held.owner()).toBe('3');
    },
  );

  test('leaves the mark also where the next one steals the lock', async () => {
    const space = await fixture.space();
    const holder = await fixture.child();
    await holder.hold(fixture.name);
    await holder.kill();
    await until(async () => (await space.query()).held.length === 0);
    const manager = new LockManager({ space });
    await manager.request(fixture.name, { steal: true }, () => {});
    const guard = await (await fixture.lock()).shared();
    expect(guard.abandoned).toMatchObject({ pid: holder.pid });
    await guard.release();
  });
});
