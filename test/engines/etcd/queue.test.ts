// Long queues, names of every kind, thefts, and questions that cross a grant; and whom a release wakes.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@grpc/grpc-js';
import { txn } from '../../../lib/engines/etcd/messages';
import { only, toRequest } from '../../../lib/engines/etcd/txn';
import { Watcher } from '../../../lib/engines/etcd/watcher';
import { CALLS_MAX, Wire } from '../../../lib/engines/etcd/wire';
import { LockManager, SharedLock } from '../../../lib/remote';
import type { Slot } from '../../../lib/remote/engine';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('the queue', () => {
  const fixture = new Fixture();
  /** What etcd has told watchers of so far. */
  const events = () => fixture.cluster.metric('etcd_debugging_mvcc_events_total');

  test('of one name with 1,000 waits is drained in its order, and each release wakes one', async () => {
    const lock = await fixture.lock();
    const first = await lock.exclusive();
    const order: number[] = [];
    const waits = Array.from({ length: 1000 }, async (_, index) => {
      const guard = await lock.exclusive();
      order.push(index);
      await guard.release();
    });
    // Seldom, for each answer is long.
    while ((await lock.query()).pending.length < 1000) await sleep(250);
    const before = await events();
    await first.release();
    await Promise.all(waits);
    expect(order).toEqual(waits.map((_, index) => index));
    expect((await events()) - before).toBe(1000);
    expect(await fixture.cluster.keys('proclock/default/lock/')).toEqual([]);
  }, 120_000);

  test('lets readers in together: their writer wakes them, and nobody else', async () => {
    const lock = await fixture.lock();
    const others = await fixture.lock();
    const writer = await lock.exclusive();
    const readers = Array.from({ length: 20 }, () => others.shared());
    await fixture.untilPending(lock, 20);
    const behind = Array.from({ length: 20 }, () => lock.exclusive());
    await fixture.untilPending(lock, 40);
    const before = await events();
    await writer.release();
    const guards = await Promise.all(readers);
    expect((await events()) - before).toBe(20);
    for (const guard of guards) await guard.release();
    for (const wait of behind) await (await wait).release();
  });

  test('of each of 1,000 names at once is asked for by some at a time', async () => {
    const space = await fixture.space();
    const original = Client.prototype.makeUnaryRequest;
    let calls = 0;
    let most = 0;
    const spy = jest.spyOn(Client.prototype, 'makeUnaryRequest').mockImplementation(function (
      this: Client,
      ...args: unknown[]
    ) {
      most = Math.max(most, ++calls);
      const answered = args.pop() as (...answer: unknown[]) => void;
      const counted = (...answer: unknown[]) => {
        calls--;
        answered(...answer);
      };
      return original.apply(this, [...args, counted] as never);
    } as never);
    const guards = await Promise.all(
      Array.from({ length: 1000 }, (_, index) =>
        new SharedLock(`${fixture.name} ${index}`, { space }).exclusive(),
      ),
    );
    await Promise.all(guards.map((guard) => guard.release()));
    spy.mockRestore();
    expect(most).toBe(CALLS_MAX);
    expect(await space.query()).toEqual({ held: [], pending: [] });
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
    ['a slash', 'a/b'],
    ['10,000 characters', 'x'.repeat(10_000)],
    ['an emoji', '🔒'],
    ['half of an emoji', '\ud83d'],
    ['the other half', '\udd12'],
    ['the replacement character', '\ufffd'],
  ])('is that of its name alone: %s', async (_, name) => {
    const space = await fixture.space();
    const others = ['\ufffd', '\ud83d', '\udd12', ' ', 'x', 'a'].filter((other) => other !== name);
    const guards = await Promise.all(
      [name, ...others].map((each) => new SharedLock(each, { space }).exclusive({ timeout: 5000 })),
    );
    const { held } = await new SharedLock(name, { space }).query();
    expect(held.map((info) => info.name)).toEqual([name]);
    expect((await space.query()).held.map((info) => info.name).sort()).toEqual([name, ...others].sort());
    for (const guard of guards) await guard.release();
  });

  test('is moved on for whoever waits for one that goes before its watch has begun', async () => {
    const [one, two] = [await fixture.lock(), await fixture.lock()];
    const first = await one.exclusive();
    const watches = Watcher.prototype as unknown as { create(id: number): void };
    const { create } = watches;
    const asked = new Promise<() => void>((resolve) => {
      jest.spyOn(watches, 'create').mockImplementationOnce(function (this: object, id) {
        resolve(() => create.call(this, id));
      });
    });
    const waiting = two.exclusive();
    const begin = await asked;
    await first.release();
    begin();
    await (await waiting).release();
  });

  test('is passed over by a thief, of whom the robbed ones hear, however many', async () => {
    const [one, two] = [await fixture.lock(), await fixture.space()];
    const guards = await Promise.all(Array.from({ length: 35 }, () => one.shared()));
    const waiting = one.shared({ timeout: 20_000 });
    const behind = one.exclusive();
    await fixture.untilPending(one, 1);
    await waiting.then((guard) => guard.release());
    const lost = guards.map(
      (guard) => new Promise((resolve) => guard.lost.addEventListener('abort', resolve)),
    );
    let finish = () => {};
    const theft = new LockManager({ space: two }).request(
      fixture.name,
      { steal: true },
      () => new Promise<void>((resolve) => (finish = resolve)),
    );
    await Promise.all(lost);
    for (const guard of guards) {
      expect(guard.lost.reason).toMatchObject({
        code: 'ERR_LOCK_LOST',
        cause: { name: 'Theft', message: expect.stringContaining(`pid ${process.pid}`) },
      });
      await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    }
    expect(await one.query()).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [{}] });
    finish();
    await theft;
    const next = await behind;
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
    const left = (await fixture.cluster.keys()).filter((key) => /session\/\w+\//.test(key));
    expect(left).toEqual([]);
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

  test('an upgrade that was granted to one who had given up leaves nothing that the next one takes for its own', async () => {
    const { session, granted } = await fixture.session();
    const holds = [1, 2, 3].map((id) => ({ id, name: fixture.name, mode: 'shared' as const }));
    const [one, two, three] = holds as [Slot, Slot, Slot];
    for (const hold of [one, two])
      expect(await session.acquire(hold, 'wait')).toMatchObject({ state: 'granted' });
    expect(await session.upgrade(two, 'wait')).toMatchObject({ state: 'queued' });
    await session.release(one, { repaired: false, flight: false });
    await until(() => granted.has(two.id));
    // As whoever gave up just before that was told.
    expect(await session.withdraw(two)).toBeDefined();
    expect(await session.downgrade(two, false)).toBe(true);

    expect(await session.acquire(three, 'wait')).toMatchObject({ state: 'granted' });
    expect(await session.upgrade(three, 'wait')).toMatchObject({ state: 'queued' });
    expect(await session.upgrade(two, 'wait')).toEqual({ state: 'refused' });
    await session.release(two, { repaired: false, flight: false });
    await until(() => granted.has(three.id));
  });

  test('a downgrade after a theft keeps writers out, and lets readers in', async () => {
    const [one, two] = [await fixture.lock(), await fixture.space()];
    const victim = await one.exclusive();
    const writer = one.exclusive();
    await fixture.untilPending(one, 1);
    const thief = new SharedLock(fixture.name, { space: two });

    await new LockManager({ space: two }).request(fixture.name, { steal: true }, async () => {
      // What a request holds has no guard: this is what it does to the queue.
      expect((await thief.query()).held).toHaveLength(1);
      expect(await thief.tryShared()).toBeNull();
    });
    const stolen = await writer;
    await stolen.downgrade();
    const reader = await thief.shared();
    await reader.release();
    await stolen.release();
    await victim[Symbol.asyncDispose]();
  });

  test('costs no more than 2.5 times what two bare writes cost', async () => {
    const lock = await fixture.lock();
    const [address] = fixture.cluster.endpoints.map((url) => url.replace('http://', ''));
    const settings = { namespace: '', ttl: 5000, prefix: '', credentials: {}, auth: undefined };
    const wire = new Wire({ ...settings, endpoints: [{ address: address!, secure: false }] }, 0);
    const put = () =>
      wire.call(
        'write',
        txn,
        toRequest({
          as: 'written',
          when: [],
          does: [{ put: only('bare').key, value: `${performance.now()}` }],
        }),
      );
    const pair = async () => (await lock.exclusive()).release();
    const puts: number[] = [];
    const pairs: number[] = [];
    const timed = async (work: () => Promise<unknown>) => {
      const at = performance.now();
      await work();
      return performance.now() - at;
    };
    // By turns, so that what disturbs one disturbs the other.
    for (let round = 0; round < 200; round++) {
      puts.push(
        await timed(async () => {
          await put();
          await put();
        }),
      );
      pairs.push(await timed(pair));
    }
    wire.close(new Error('the test is over') as never);
    const median = (all: number[]) => all.sort((a, b) => a - b)[all.length >> 1]!;
    expect(median(pairs)).toBeLessThan(2.5 * median(puts));
  });
});
