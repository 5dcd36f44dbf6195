// Long queues, names of every kind, thefts, and questions that cross a grant.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { checkSettings } from '../../../lib/engines/postgres/config';
import { PostgresSession } from '../../../lib/engines/postgres/session';
import { LockManager, SharedLock } from '../../../lib/remote';
import type { Slot } from '../../../lib/remote/engine';
import { latch, until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('the queue', () => {
  const fixture = new Fixture();

  /** A session, and what it tells. */
  async function sessionBehindProxy() {
    const proxy = await fixture.proxy();
    const told: string[] = [];
    const settings = checkSettings(fixture.server.url('postgres', proxy.port), {});
    const session = await PostgresSession.open(settings, {
      granted: () => {},
      certainUntil: () => {},
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

  test('of one name with 2,000 waits is drained in its order', async () => {
    const lock = await fixture.lock();
    const first = await lock.exclusive();
    const order: number[] = [];
    const waits = Array.from({ length: 2000 }, async (_, index) => {
      const guard = await lock.exclusive();
      order.push(index);
      await guard.release();
    });
    await fixture.untilPending(lock, 2000);
    await first.release();
    await Promise.all(waits);
    expect(order).toEqual(waits.map((_, index) => index));
  });

  test('of two spaces is one', async () => {
    const [one, two] = [await fixture.lock(), await fixture.lock()];
    const first = await one.exclusive();
    const order: string[] = [];
    const waits: Array<Promise<void>> = [];
    for (let index = 0; index < 40; index++) {
      const mode = index % 3 === 0 ? 'exclusive' : 'shared';
      waits.push(
        (index % 2 === 0 ? one : two)[mode]().then(async (guard) => {
          order.push(`${index} ${guard.token}`);
          await guard.release();
        }),
      );
      await fixture.untilPending(one, index + 1);
    }
    await first.release();
    await Promise.all(waits);
    const tokens = order.map((entry) => BigInt(entry.split(' ')[1]!));
    expect([...tokens].sort((a, b) => Number(a - b))).toEqual(tokens);
  });

  test.each([
    ['the empty string', ''],
    ['NUL', 'a\0b'],
    ['10,000 characters', 'x'.repeat(10_000)],
    ['an emoji', '🔒'],
    ['half of an emoji', '\ud83d'],
    ['the other half', '\udd12'],
    ['the replacement character', '\ufffd'],
    ['quotes', `"; drop schema proclock; --'`],
  ])('is that of its name alone: %s', async (_, name) => {
    const space = await fixture.space();
    const others = ['\ufffd', '\ud83d', '\udd12', ' ', 'x'].filter((other) => other !== name);
    const guards = await Promise.all(
      [name, ...others].map((each) => new SharedLock(each, { space }).exclusive({ timeout: 5000 })),
    );
    const { held } = await new SharedLock(name, { space }).query();
    expect(held.map((info) => info.name)).toEqual([name]);
    expect((await space.query()).held.map((info) => info.name).sort()).toEqual([name, ...others].sort());
    for (const guard of guards) await guard.release();
  });

  test('is passed over by a thief, of whom the robbed one hears', async () => {
    const [one, two] = [await fixture.lock(), await fixture.space()];
    const guard = await one.exclusive();
    const waiting = one.shared();
    await fixture.untilPending(one, 1);
    const lost = new Promise((resolve) => guard.lost.addEventListener('abort', resolve));
    // The robbed one may hear of it before the thief does: then the callback has not been called yet.
    const { opened, open: finish } = latch();
    const theft = new LockManager({ space: two }).request(fixture.name, { steal: true }, () => opened);
    await lost;
    expect(guard.lost.reason).toMatchObject({
      code: 'ERR_LOCK_LOST',
      cause: { name: 'Theft', message: expect.stringContaining(`pid ${process.pid}`) },
    });
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    finish();
    await theft;
    const next = await waiting;
    expect(next.abandoned).toBeNull();
    await next.release();
  });

  test('a robbed one that asks before it hears is told why', async () => {
    const [one, two] = [await fixture.lock(), await fixture.space()];
    for (let round = 0; round < 20; round++) {
      const guard = await one.exclusive();
      const theft = new LockManager({ space: two }).request(fixture.name, { steal: true }, () => {});
      const released = await guard.release().then(
        () => 'released',
        (error) => error.cause?.name,
      );
      await theft;
      expect(['released', 'Theft']).toContain(released);
    }
    expect(await fixture.server.sql("select from proclock.slots where state = 'robbed'")).toEqual([]);
  });

  test('a theft right behind a grant that crossed a withdrawal is told when the grant is known', async () => {
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

  test('is left by whoever gives up, whatever crosses that', async () => {
    const [one, two] = [await fixture.lock(), await fixture.lock()];
    for (let round = 0; round < 60; round++) {
      const guard = await one.exclusive();
      const controller = new AbortController();
      const waiting = two.exclusive({ signal: controller.signal });
      const timed = two.shared({ timeout: round % 10 });
      await sleep(round % 5);
      controller.abort(new Error('given up'));
      await guard.release();
      for (const wait of [waiting, timed]) {
        await wait.then(
          (late) => late.release(),
          (error) => expect(['given up', 'ERR_LOCK_TIMEOUT']).toContain(error.code ?? error.message),
        );
      }
    }
    expect(await one.query()).toEqual({ held: [], pending: [] });
  });

  test('an upgrade that is given up leaves the hold shared, whatever crosses that', async () => {
    const [one, two] = [await fixture.lock(), await fixture.lock()];
    for (let round = 0; round < 40; round++) {
      const reader = await one.shared();
      const guard = await two.shared();
      const controller = new AbortController();
      const upgrading = guard.upgrade({ signal: controller.signal });
      await sleep(round % 4);
      const released = reader.release();
      controller.abort(new Error('given up'));
      const upgraded = await upgrading.then(
        () => true,
        () => false,
      );
      await released;
      expect((await one.query()).held).toMatchObject([{ mode: upgraded ? 'exclusive' : 'shared' }]);
      await guard.release();
      expect(await one.query()).toEqual({ held: [], pending: [] });
    }
  });

  test('a release ends an upgrade that is pending', async () => {
    const [one, two] = [await fixture.lock(), await fixture.lock()];
    const reader = await one.shared();
    const guard = await two.shared();
    const upgrading = guard.upgrade();
    await two.query();
    await guard.release();
    await expect(upgrading).rejects.toMatchObject({ code: 'ERR_LOCK_NOT_HELD' });
    await (await two.shared()).release();
    await reader.release();
  });
});
