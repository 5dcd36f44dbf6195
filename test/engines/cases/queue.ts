// The order in which the lock is granted: strictly first in, first out.
import type { Grant, Pending } from '../../support/party';
import type { LockMode } from '../infrastructure';
import { type Cases, errorOf, MODES, name, type Other, type Stage } from '../stage';

/** Which of them are granted. */
const granted = (waits: Pending<unknown>[]) => waits.map(({ settled }) => settled);

/** Lets what was granted be told. */
const told = async (waits: Pending<unknown>[], count: number) => {
  await Promise.all(waits.slice(0, count).map(({ promise }) => promise));
};

async function queueAll(others: Other[], modes: LockMode[]): Promise<Pending<Grant>[]> {
  const waits = [];
  for (const [n, mode] of modes.entries()) waits.push(await others[n]!.queue(mode));
  return waits;
}

async function manyOthers(stage: Stage, count: number): Promise<Other[]> {
  return Promise.all(Array.from({ length: count }, () => stage.other()));
}

export const queue: Cases = (property) => {
  property('writers are granted in the order in which they came', async (stage) => {
    const others = await manyOthers(stage, 3);
    const guard = await stage.lock.exclusive();
    const waits = await queueAll(others, ['exclusive', 'exclusive', 'exclusive']);
    await guard.release();
    for (const [n, wait] of waits.entries()) {
      await wait.promise;
      expect(granted(waits)).toEqual(waits.map((_, index) => index <= n));
      await stage.expectState(
        [[others[n]!, 'exclusive']],
        others.slice(n + 1).map((other) => [other, 'exclusive'] as const),
      );
      await others[n]!.release();
    }
  });

  property('a reader does not pass a writer that waits, though it could share the lock', async (stage) => {
    const [writer, reader] = await stage.twoOthers();
    const guard = await stage.lock.shared();
    const write = await writer.queue('exclusive');
    const read = await reader.queue('shared');
    expect(granted([write, read])).toEqual([false, false]);
    await guard.release();
    await write.promise;
    expect(read.settled).toBe(false);
    expect(await stage.lock.tryShared()).toBeNull();
    await writer.release();
    await read.promise;
    await reader.release();
  });

  property('readers between two writers are granted together, and neither passes', async (stage) => {
    const others = await manyOthers(stage, 5);
    const modes: LockMode[] = ['exclusive', 'shared', 'shared', 'exclusive', 'shared'];
    const guard = await stage.lock.exclusive();
    const waits = await queueAll(others, modes);
    const state = (held: number[], pending: number[]) =>
      stage.expectState(
        held.map((n) => [others[n]!, modes[n]!] as const),
        pending.map((n) => [others[n]!, modes[n]!] as const),
      );
    expect((await stage.query()).pending.map(({ mode }) => mode)).toEqual(modes);
    await guard.release();
    await told(waits, 1);
    await state([0], [1, 2, 3, 4]);
    await others[0]!.release();
    await told(waits, 3);
    await state([1, 2], [3, 4]);
    await others[2]!.release();
    await state([1], [3, 4]);
    await others[1]!.release();
    await told(waits, 4);
    await state([3], [4]);
    await others[3]!.release();
    await told(waits, 5);
    await state([4], []);
    await others[4]!.release();
  });

  property('a writer that gives up lets in the readers behind it, and those alone', async (stage) => {
    const others = await manyOthers(stage, 4);
    const guard = await stage.lock.shared();
    const waits = await queueAll(others, ['exclusive', 'shared', 'exclusive', 'shared']);
    await others[0]!.abort('changed its mind');
    expect(await errorOf(() => waits[0]!.promise)).toMatchObject({ message: 'changed its mind' });
    await waits[1]!.promise;
    expect(granted(waits)).toEqual([true, true, false, false]);
    await stage.expectState(
      [
        [stage, 'shared'],
        [others[1]!, 'shared'],
      ],
      [
        [others[2]!, 'exclusive'],
        [others[3]!, 'shared'],
      ],
    );
    await guard.release();
    await others[1]!.release();
    await waits[2]!.promise;
    await others[2]!.release();
    await waits[3]!.promise;
    await others[3]!.release();
  });

  property('one that gives up in the middle of the queue changes the order of nobody', async (stage) => {
    const others = await manyOthers(stage, 3);
    const guard = await stage.lock.exclusive();
    const waits = await queueAll(others, ['exclusive', 'exclusive', 'exclusive']);
    await others[1]!.abort('gone');
    await errorOf(() => waits[1]!.promise);
    await stage.expectState(
      [[stage, 'exclusive']],
      [
        [others[0]!, 'exclusive'],
        [others[2]!, 'exclusive'],
      ],
    );
    await guard.release();
    await waits[0]!.promise;
    expect(waits[2]!.settled).toBe(false);
    await others[0]!.release();
    await waits[2]!.promise;
    await others[2]!.release();
  });

  property('locks of all classes, and calls with and without a callback, are in one queue', async (stage) => {
    const other = await stage.other();
    const order: string[] = [];
    const guard = await stage.lock.exclusive();
    const calls = [
      () => stage.make('RLock').acquire(() => void order.push('RLock')),
      () => stage.lock.shared(() => void order.push('SharedLock, shared')),
      () => stage.make('Lock').acquire(() => void order.push('Lock')),
      () => stage.make('SharedRLock').exclusive(() => void order.push('SharedRLock')),
    ];
    const waits = [];
    for (const call of calls) waits.push(await stage.queue(async () => call()));
    const last = await other.queue('exclusive', { class: 'Lock' });
    await guard.release();
    for (const wait of waits) await wait.promise;
    await last.promise;
    expect(order).toEqual(['RLock', 'SharedLock, shared', 'Lock', 'SharedRLock']);
    await other.release();
  });

  property('who has just released has to queue behind those who waited', async (stage) => {
    const other = await stage.other();
    for (const mode of MODES) {
      const guard = await stage.lock.exclusive();
      const wait = await other.queue(mode);
      const again = await stage.queue(() => stage.lock.exclusive());
      await guard.release();
      await wait.promise;
      expect(again.settled).toBe(false);
      await other.release();
      await (await again.promise).release();
    }
  });

  property('a lock is not kept by those who wait for another one', async (stage) => {
    const [one, two] = await stage.twoOthers();
    const guard = await stage.lock.exclusive();
    const wait = await one.queue('exclusive');
    expect(await two.acquire('exclusive', { name: `${name} 2` })).toMatchObject({ mode: 'exclusive' });
    await two.release(`${name} 2`);
    await guard.release();
    await wait.promise;
    await one.release();
  });
};
