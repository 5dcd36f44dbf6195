// The queue over PostgreSQL; and what a session is told in one piece.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { Client } from 'pg';
import { checkSettings } from '../../../lib/engines/postgres/config';
import { PostgresSession } from '../../../lib/engines/postgres/session';
import { LockManager } from '../../../lib/remote';
import type { Slot } from '../../../lib/remote/engine';
import { until } from '../../support/until';
import { queues } from '../faults/queue';
import { errorOf, track } from '../stage';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

/** More than the server could grant one after the other before it cancels a statement (5 s). */
const MANY = 6000;

describeWithServer('over PostgreSQL', () => {
  const fixture = new Fixture();
  queues(fixture);

  /** A session, and what it tells. */
  async function sessionBehindProxy() {
    const proxy = await fixture.proxy();
    const told: string[] = [];
    const settings = checkSettings(fixture.through(proxy), {});
    const session = await PostgresSession.open(settings, {
      granted: () => told.push('granted'),
      certainFor: () => {},
      answered: () => {},
      robbed: () => told.push('robbed'),
      ended: () => told.push('ended'),
    });
    fixture.atEnd(async () => session.drop());
    return { proxy, session, told };
  }

  /** Once the server has carried the withdrawal out there is a theft, and then the session hears of both. */
  async function expectToldInOrder(
    withdrawn: Promise<unknown>,
    { proxy, session, told }: Awaited<ReturnType<typeof sessionBehindProxy>>,
  ): Promise<void> {
    const { name, server } = fixture;
    const heard = withdrawn.then((grant) => told.push(grant === undefined ? 'gone' : 'granted'));
    // Questions are carried out in their order: where this one shows, the one before was.
    const behind = `${name}, behind`;
    const answered = session.acquire({ id: 2, name: behind, mode: 'exclusive' }, 'try');
    const shows = 'select from proclock.locks where name = $1';
    await until(async () => (await server.sql(shows, [Buffer.from(behind)])).length > 0);
    await new LockManager({ space: await fixture.space() }).request(name, { steal: true }, () => {});
    proxy.resume();
    await heard;
    await answered;
    await until(() => told.length > 1);
    expect(told).toEqual(['granted', 'robbed']);
  }

  /** Something waits: what does the server call it? */
  async function idOfWait(): Promise<number> {
    const rows = await fixture.server.sql("select id::text from proclock.slots where state = 'waiting'");
    return Number((rows[0] as { id: string }).id);
  }

  /** Keeps all verbs waiting that have to do with the name, until the function is called. */
  async function keepLatch(): Promise<() => Promise<unknown>> {
    const { name, server } = fixture;
    const client = new Client(server.url());
    await client.connect();
    fixture.atEnd(() => client.end());
    const latch = 'select pg_advisory_lock(proclock.latch_of(key)) from proclock.locks where name = $1';
    await client.query(latch, [Buffer.from(name)]);
    return () => client.query('select pg_advisory_unlock_all()');
  }

  test('thousands of readers are granted together', async () => {
    const lock = await fixture.lock();
    const writer = await lock.exclusive();
    const others = await fixture.lock();
    const readers = Array.from({ length: MANY }, (_, place) => (place % 2 === 0 ? lock : others).shared());
    // Seldom, for each answer is long; and not behind the questions of those who wait.
    const beside = await fixture.lock();
    while ((await beside.query()).pending.length < MANY) await sleep(250);
    await writer.release();
    const guards = await Promise.all(readers);
    expect(new Set(guards.map(({ token }) => token)).size).toBe(1);
    await Promise.all(guards.map((guard) => guard.release()));
    await (await others.exclusive()).release();
  }, 120_000);

  test('a session is told of a theft right behind a grant that crossed a withdrawal when the grant is known', async () => {
    const { name } = fixture;
    const first = await (await fixture.lock()).exclusive();
    const behindProxy = await sessionBehindProxy();
    const { proxy, session } = behindProxy;
    const slot: Slot = { id: 1, name, mode: 'shared' };
    expect((await session.acquire(slot, 'wait')).state).toBe('queued');

    // What the session is told from here on comes to it in one piece.
    proxy.stall('down');
    await first.release();
    const withdrawn = session.withdraw(slot);
    await expectToldInOrder(withdrawn, behindProxy);
  });

  test('the same, where the answer to the acquire comes in between', async () => {
    const { name, server } = fixture;
    const behindProxy = await sessionBehindProxy();
    const { proxy, session } = behindProxy;
    const slot: Slot = { id: 1, name, mode: 'shared' };
    proxy.stall('down');
    const acquired = session.acquire(slot, 'wait');
    await until(async () => (await server.sql('select from proclock.slots')).length === 1);
    proxy.stall('up');
    const withdrawn = session.withdraw(slot);
    proxy.resume('down');
    expect((await acquired).state).toBe('granted');
    await turn();

    proxy.stall('down');
    proxy.resume('up');
    await expectToldInOrder(withdrawn, behindProxy);
  });

  test('a theft that comes in one piece with the answer that tells of the grant is told behind it', async () => {
    const { name, server } = fixture;
    const { proxy, session, told } = await sessionBehindProxy();
    const [hold, wait]: Slot[] = [1, 2].map((id) => ({ id, name, mode: 'exclusive' }));
    expect((await session.acquire(hold!, 'wait')).state).toBe('granted');
    expect((await session.acquire(wait!, 'wait')).state).toBe('queued');

    proxy.stall('down');
    const released = session.release(hold!, { repaired: false, flight: false });
    await until(async () => (await server.sql('select from proclock.slots')).length === 0);
    await new LockManager({ space: await fixture.space() }).request(name, { steal: true }, () => {});
    proxy.resume();
    expect(await released).toBe(true);
    await until(() => told.length > 1);
    expect(told).toEqual(['granted', 'robbed']);
    expect(await session.release(wait!, { repaired: false, flight: false })).toBe(false);
    await until(async () => (await fixture.traces()) === 0);
  });

  describe('a theft that is heard of before the grant that it ended', () => {
    /** The session waits, and hears of a theft of that. */
    async function robbedWait() {
      const { name } = fixture;
      const first = await (await fixture.lock()).exclusive();
      const { session, told } = await sessionBehindProxy();
      const slot: Slot = { id: 1, name, mode: 'exclusive' };
      expect((await session.acquire(slot, 'wait')).state).toBe('queued');
      session.notified(JSON.stringify({ event: 'robbed', id: await idOfWait(), thief: 'somebody' }));
      return { first, session, slot, told };
    }

    test('is told behind that', async () => {
      const { first, told } = await robbedWait();
      expect(told).toEqual([]);
      await first.release();
      await until(() => told.length > 1);
      expect(told).toEqual(['granted', 'robbed']);
    });

    test('is not told where the wait is withdrawn', async () => {
      const { first, session, slot, told } = await robbedWait();
      expect(await session.withdraw(slot)).toBeUndefined();
      await first.release();
      await (await (await fixture.lock()).exclusive()).release();
      expect(told).toEqual([]);
    });

    test('does not hide the theft of a hold that waits for an upgrade', async () => {
      const { name } = fixture;
      const beside = await (await fixture.lock()).shared();
      const { session, told } = await sessionBehindProxy();
      const slot: Slot = { id: 1, name, mode: 'shared' };
      expect((await session.acquire(slot, 'wait')).state).toBe('granted');
      expect((await session.upgrade(slot, 'wait')).state).toBe('queued');
      await new LockManager({ space: await fixture.space() }).request(name, { steal: true }, () => {});
      await until(() => told.length > 0);
      expect(told).toEqual(['robbed']);
      await beside[Symbol.asyncDispose]();
    });
  });

  const GRANT = { event: 'granted', id: 1, token: '999', abandoned: null, flights: 0 };
  const DEAD = { pid: 1, threadId: 0, since: 1, token: '1' };

  test.each(
    [
      null,
      1,
      [],
      {},
      { event: 'granted' },
      { event: 'granted', id: 1 },
      { event: 'robbed', id: 1 },
      { ...GRANT, event: 'other' },
      { ...GRANT, id: '1' },
      { ...GRANT, token: 999 },
      { ...GRANT, token: 'x' },
      { ...GRANT, token: '-1' },
      { ...GRANT, flights: undefined },
      { ...GRANT, abandoned: undefined },
      { ...GRANT, abandoned: 1 },
      { ...GRANT, abandoned: { ...DEAD, pid: null } },
      { ...GRANT, abandoned: { ...DEAD, token: undefined } },
    ].map((sent) => JSON.stringify(sent)),
  )('what somebody else sends to the channel of a session is ignored: %s', async (sent) => {
    const { name, server } = fixture;
    const first = await (await fixture.lock()).exclusive();
    const { session, told } = await sessionBehindProxy();
    expect((await session.acquire({ id: 1, name, mode: 'exclusive' }, 'wait')).state).toBe('queued');
    const id = await idOfWait();
    const payload = sent.replace(/"id":("?)1\b/, `"id":$1${id}`);
    expect(() => session.notified(payload)).not.toThrow();
    const send = 'select pg_notify(proclock.channel_of(session), $1) from proclock.sessions';
    await server.sql(send, [payload]);
    await first.release();
    await until(() => told.length > 0);
    expect(told).toEqual(['granted']);
  });

  test('nobody else can say that a wait is granted: it can not be guessed what the server calls it', async () => {
    const { name, server } = fixture;
    const first = await (await fixture.lock()).exclusive();
    const { session, told } = await sessionBehindProxy();
    const ids: number[] = [];
    for (let id = 0; id < 3; id++) {
      const slot: Slot = { id, name, mode: 'exclusive' };
      expect((await session.acquire(slot, 'wait')).state).toBe('queued');
      ids.push(await idOfWait());
      await session.withdraw(slot);
    }
    expect(Math.abs(ids[1]! - ids[0]!)).not.toBe(Math.abs(ids[2]! - ids[1]!));
    expect((await session.acquire({ id: 3, name, mode: 'exclusive' }, 'wait')).state).toBe('queued');
    await turn();
    const send = `select pg_notify(proclock.channel_of(session), jsonb_set($1, '{id}', to_jsonb(id))::text)
      from proclock.sessions, generate_series(0, 100) as id`;
    await server.sql(send, [JSON.stringify(GRANT)]);
    await session.query(); // its answer comes behind the messages
    await sleep(100);
    expect(told).toEqual([]);
    await first.release();
    await until(() => told.length > 0);
  });

  test('a grant of a lock whose holder died, and a thief without a name, are understood', async () => {
    const { name } = fixture;
    await (await fixture.lock()).exclusive();
    const { session, told } = await sessionBehindProxy();
    expect((await session.acquire({ id: 1, name, mode: 'exclusive' }, 'wait')).state).toBe('queued');
    const id = await idOfWait();
    session.notified(JSON.stringify({ ...GRANT, id, abandoned: DEAD }));
    session.notified(JSON.stringify({ event: 'robbed', id, thief: null }));
    expect(told).toEqual(['granted', 'robbed']);
  });

  test('a session that gives much back tells that the server answers', async () => {
    let answers = 0;
    const settings = checkSettings(fixture.where, {});
    const session = await PostgresSession.open(settings, {
      granted: () => {},
      certainFor: () => {},
      answered: () => answers++,
      robbed: () => {},
      ended: () => {},
    });
    const holds = Array.from({ length: 300 }, (_, id) => {
      const slot: Slot = { id, name: `${fixture.name} ${id}`, mode: 'exclusive' };
      return session.acquire(slot, 'wait');
    });
    await Promise.all(holds);
    const before = answers;
    await session.close();
    expect(answers).toBeGreaterThan(before + 1);
  });

  test('what the server was made to cancel is given back nevertheless: a hold, and the place of a wait', async () => {
    const { server } = fixture;
    const lock = await fixture.lock();
    const beside = await fixture.lock();
    const guard = await lock.exclusive();
    const controller = new AbortController();
    const wait = track(beside.exclusive({ signal: controller.signal }));
    await fixture.untilPending(lock, 1);

    const unlock = await keepLatch();
    const released = track(guard.release());
    const reason = new Error('changed its mind');
    controller.abort(reason);
    const cancel = `select pg_cancel_backend(pid) from pg_stat_activity
      where wait_event_type = 'Lock' and (query like '%.release(%' or query like '%.withdraw(%')`;
    await until(async () => {
      await server.sql(cancel);
      return released.settled && wait.settled;
    });
    expect(await errorOf(() => released.promise)).toMatchObject({
      code: 'ERR_LOCK_UNAVAILABLE',
      cause: { code: '57014' },
    });
    expect(await errorOf(() => wait.promise)).toBe(reason);
    await unlock();

    await until(async () => (await fixture.traces()) === 0);
    expect(guard.lost.aborted).toBe(false);
    const next = await beside.exclusive();
    expect(next.abandoned).toBeNull();
    await next.release();
  });

  test('a wait goes on, though the server was made to cancel its question', async () => {
    const { server } = fixture;
    const lock = await fixture.lock();
    const beside = await fixture.lock();
    const guard = await beside.exclusive();
    const unlock = await keepLatch();
    const wait = track(lock.exclusive());
    const cancel = `select pg_cancel_backend(pid) from pg_stat_activity
      where wait_event_type = 'Lock' and (query like '%.acquire(%' or query like '%.withdraw(%')`;
    // It is asked again behind the question that gives the first place back.
    for (let times = 0; times < 3; times++) {
      await until(async () => (await server.sql(cancel)).length > 0);
      await sleep(50);
    }
    expect(wait.settled).toBe(false);
    await unlock();
    await fixture.untilPending(beside, 1);
    await guard.release();
    await (await wait.promise).release();
    await until(async () => (await fixture.traces()) === 0);
  });
});
