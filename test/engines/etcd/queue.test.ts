// The queue over etcd; whom a release wakes, and what is asked of etcd for it.
import { Client, type ClientUnaryCall } from '@grpc/grpc-js';
import { txn } from '../../../lib/engines/etcd/messages';
import { Watcher } from '../../../lib/engines/etcd/watcher';
import { CALLS_MAX } from '../../../lib/engines/etcd/wire';
import { SharedLock } from '../../../lib/remote';
import type { Slot } from '../../../lib/remote/engine';
import { until } from '../../support/until';
import { queues } from '../faults/queue';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over etcd', () => {
  const fixture = new Fixture();
  queues(fixture);

  test('readers are let in together: their writer wakes them, and nobody else', async () => {
    const lock = await fixture.lock();
    const others = await fixture.lock();
    const writer = await lock.exclusive();
    const readers = Array.from({ length: 20 }, () => others.shared());
    await fixture.untilPending(lock, 20);
    const behind = Array.from({ length: 20 }, () => lock.exclusive());
    await fixture.untilPending(lock, 40);
    const before = await fixture.events();
    await writer.release();
    const guards = await Promise.all(readers);
    expect((await fixture.events()) - before).toBe(20);
    for (const guard of guards) await guard.release();
    for (const wait of behind) await (await wait).release();
  });

  test('of many names at once some are asked for at a time', async () => {
    const space = await fixture.space({ ttl: 60_000 });
    const original = Client.prototype.makeUnaryRequest;
    let calls = 0;
    let most = 0;
    const spy = jest.spyOn(Client.prototype, 'makeUnaryRequest').mockImplementation(function (
      this: Client,
      ...args: unknown[]
    ) {
      most = Math.max(most, ++calls);
      let isOver = false;
      const end = (): void => {
        if (!isOver) calls--;
        isOver = true;
      };
      const answered = args.pop() as (...answer: unknown[]) => void;
      const counted = (...answer: unknown[]) => {
        end();
        answered(...answer);
      };
      const call = original.apply(this, [...args, counted] as never) as ClientUnaryCall;
      const cancel = call.cancel.bind(call);
      // On a busy machine some are given up, and asked again.
      call.cancel = () => {
        end();
        cancel();
      };
      return call;
    } as never);
    const guards = await Promise.all(
      Array.from({ length: 3 * CALLS_MAX }, (_, index) =>
        new SharedLock(`${fixture.name} ${index}`, { space }).exclusive(),
      ),
    );
    await Promise.all(guards.map((guard) => guard.release()));
    spy.mockRestore();
    expect(most).toBe(CALLS_MAX);
    expect(await space.query()).toEqual({ held: [], pending: [] });
  });

  test('a member that has too much to do is asked again', async () => {
    const lock = await fixture.lock();
    const beside = await fixture.lock();
    const held = await beside.shared();
    const original = Client.prototype.makeUnaryRequest;
    let refusals = 3;
    const spy = jest.spyOn(Client.prototype, 'makeUnaryRequest').mockImplementation(function (
      this: Client,
      ...args: unknown[]
    ) {
      if (args[0] !== txn.path || refusals-- <= 0) return original.apply(this, args as never);
      const answered = args.pop() as (error: Error) => void;
      const details = 'etcdserver: too many requests';
      setImmediate(
        answered,
        Object.assign(new Error(`8 RESOURCE_EXHAUSTED: ${details}`), { code: 8, details }),
      );
      return { cancel: () => {} } as ClientUnaryCall;
    } as never);
    const wait = lock.exclusive();
    await fixture.untilPending(beside, 1);
    expect(refusals).toBeLessThanOrEqual(0);
    refusals = 3;
    await held.release();
    const guard = await wait;
    refusals = 3;
    await guard.release();
    spy.mockRestore();
    expect(held.lost.aborted).toBe(false);
    expect(await fixture.traces()).toBe(0);
  });

  test('the queue is moved on for whoever waits for one that goes before its watch has begun', async () => {
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

  test('an acquire and a release are one question each, and one change each of what etcd keeps', async () => {
    const lock = await fixture.lock();
    await (await lock.exclusive()).release();
    const revision = async () => {
      const text = await fixture.server.ctl(['get', 'x', '-w', 'json']);
      return Number(/"revision":(\d+)/.exec(text)![1]);
    };
    const before = await revision();
    const spy = jest.spyOn(Client.prototype, 'makeUnaryRequest');
    const guard = await lock.exclusive();
    await guard.release();
    const asked = spy.mock.calls.map(([path]) => path);
    spy.mockRestore();
    expect(asked).toEqual([txn.path, txn.path]);
    expect(await revision()).toBe(before + 2);
  });
});
