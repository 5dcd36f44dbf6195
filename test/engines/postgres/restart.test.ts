// The server may end sessions, end itself, or crash: holders are told within a second, waiters queue again, tokens grow.
import { performance } from 'node:perf_hooks';
import { Client } from 'pg';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('a session ends', () => {
  const fixture = new Fixture();
  const terminate = () =>
    fixture.server.sql(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'proclock'",
    );

  /** A connection without a session, which ends together with those that have one. */
  async function bystander(): Promise<{ endedAt: Promise<number> }> {
    const client = new Client(`${fixture.server.url()}?application_name=proclock`);
    client.on('error', () => {});
    const endedAt = new Promise<number>((resolve) => client.once('end', () => resolve(performance.now())));
    await client.connect();
    return { endedAt };
  }

  test('when its backend is terminated: the holder is told, the next one finds the mark', async () => {
    const lock = await fixture.lock();
    const guard = await lock.exclusive();
    const lost = new Promise((resolve) => guard.lost.addEventListener('abort', resolve));
    const other = await bystander();
    await terminate();
    const endedAt = await other.endedAt;
    await lost;
    expect(performance.now() - endedAt).toBeLessThan(1000);
    expect(guard.lost.reason).toMatchObject({
      code: 'ERR_LOCK_LOST',
      cause: { code: 'ERR_LOCK_UNAVAILABLE' },
    });
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    const next = await lock.exclusive();
    expect(next.abandoned).toMatchObject({ pid: process.pid, token: guard.token });
    expect(next.token).toBeGreaterThan(guard.token);
    await next.release();
  });

  test('when its backend is terminated: a waiter queues again', async () => {
    const holder = await fixture.child({}, `${fixture.server.url()}?application_name=other`);
    await holder.hold(fixture.name);
    const lock = await fixture.lock();
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    await terminate();
    await fixture.untilPending(lock, 1);
    await holder.release(fixture.name);
    await (await waiting).release();
  });

  test.each(['fast', 'immediate'] as const)(
    'when the server stops (%s) and is started again',
    async (how) => {
      const lock = await fixture.lock();
      const before = await lock.exclusive();
      const other = await fixture.lock();
      const waiting = other.exclusive();
      await fixture.untilPending(lock, 1);
      let lostAt = Number.POSITIVE_INFINITY;
      before.lost.addEventListener('abort', () => {
        lostAt = performance.now();
      });
      const { endedAt } = await bystander();
      await fixture.server.restart(how);
      const guard = await waiting;
      expect(lostAt - (await endedAt)).toBeLessThan(1000);
      expect(guard.token).toBeGreaterThan(before.token);
      // An immediate stop may lose what was committed in the last moment.
      if (how === 'fast') expect(guard.abandoned).toMatchObject({ pid: process.pid, token: before.token });
      await guard.release();
      await expect(before.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
      await (await lock.exclusive()).release();
    },
  );

  test('with `commit`, a crash loses no mark', async () => {
    const lock = await fixture.lock({ durability: 'commit' });
    const before = await lock.exclusive();
    await fixture.server.restart('immediate');
    const guard = await lock.shared();
    expect(guard.abandoned).toMatchObject({ pid: process.pid, token: before.token });
    await guard.release();
  });

  test('and tokens grow on, also while the clock of the server is far behind the last one', async () => {
    const lock = await fixture.lock();
    const before = await lock.exclusive();
    await before.release();
    await fixture.server.sql('update proclock.locks set token = token + 3600 * 1000000::int8');
    const [one, two] = [await lock.exclusive(), lock.exclusive()];
    expect(one.token).toBe(before.token + 3_600_000_001n);
    await one.release();
    const next = await two;
    expect(next.token).toBe(one.token + 1n);
    await next.release();
  });

  test('and no token goes back, also that of a reader after a crash that lost the last grants', async () => {
    const lock = await fixture.lock();
    const before = await lock.exclusive();
    await before.release();
    await fixture.server.restart('immediate');
    await fixture.lock(); // whoever comes first after the crash
    const lose = `update proclock.locks set token = token - 500000, owner = null, holder = null`;
    await fixture.server.sql(lose);
    const reader = await lock.shared();
    expect(reader.token).toBeGreaterThanOrEqual(before.token);
    await reader.release();
    await fixture.server.sql('delete from proclock.locks');
    const another = await lock.shared();
    expect(another.token).toBeGreaterThanOrEqual(before.token);
    expect(await another.tryUpgrade()).toBe(true);
    expect(another.token).toBeGreaterThan(reader.token);
    await another.release();
  });

  test('when the server is away for long: questions are told so', async () => {
    const lock = await fixture.lock();
    await fixture.server.halt('fast');
    await expect(lock.exclusive({ timeout: 300 })).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    const waiting = lock.exclusive();
    await fixture.server.restart('fast');
    await (await waiting).release();
  });

  test('when somebody empties the tables', async () => {
    const lock = await fixture.lock({ ttl: 1000 });
    const guard = await lock.exclusive();
    await fixture.server.sql('truncate proclock.sessions, proclock.slots');
    await until(() => guard.lost.aborted);
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    await (await lock.exclusive()).release();
  });
});
