// One does the work, and those who came meanwhile have it done.
import type { SharedLock } from '../lib';
import { startActor } from './support/actor';
import { FREE, KINDS, type Kind, kinds, modesOf, turns } from './support/kinds';
import { name, untilPending, withCode } from './support/locks';

/** A flight that ends when it is told. */
function flight() {
  let end: { resolve(value: string): void; reject(error: unknown): void };
  let runs = 0;
  let began: () => void;
  const begun = new Promise<void>((resolve) => {
    began = resolve;
  });
  const fn = () => {
    runs++;
    began();
    return new Promise<string>((resolve, reject) => {
      end = { resolve, reject };
    });
  };
  return {
    fn,
    begun,
    get runs() {
      return runs;
    },
    finish: (value: string) => end.resolve(value),
    fail: (error: unknown) => end.reject(error),
  };
}

describe.each(KINDS)('a flight %s', (kindName) => {
  let kind: Kind;
  let lock: SharedLock;
  beforeEach(() => {
    kind = kinds[kindName]!();
    lock = kind.make(name);
  });
  afterEach(async () => {
    expect(await modesOf(lock)).toEqual(FREE);
    lock.close();
  });

  /** Who waits behind a plain hold has seen no flight. */
  async function expectNoneBehind(mode: 'exclusive' | 'shared'): Promise<void> {
    const guard = await lock[mode]();
    const flown = kind.singleFlight(lock, () => 'value');
    await turns();
    await guard.release();
    expect(await flown).toEqual({ ran: true, value: 'value' });
  }

  test('is done by who comes first; those who wait meanwhile need not do it again', async () => {
    const first = flight();
    const flown = kind.singleFlight(lock, first.fn);
    await first.begun;
    const others = [1, 2, 3].map(() => kind.singleFlight(kind.make(name), () => 'again'));
    await turns();
    expect((await modesOf(lock)).pending).toHaveLength(3);
    first.finish('value');
    expect(await flown).toEqual({ ran: true, value: 'value' });
    expect(await Promise.all(others)).toEqual([{ ran: false }, { ran: false }, { ran: false }]);
  });

  test('is done again by who comes later', async () => {
    expect(await kind.singleFlight(lock, () => 1)).toEqual({ ran: true, value: 1 });
    expect(await kind.singleFlight(lock, async () => 2)).toEqual({ ran: true, value: 2 });
  });

  test('that throws is done by the next one', async () => {
    const first = flight();
    const flown = kind.singleFlight(lock, first.fn);
    await first.begun;
    const second = kind.singleFlight(lock, () => 'second');
    const third = kind.singleFlight(lock, () => 'third');
    await turns();
    const error = new Error('of the flight');
    first.fail(error);
    await expect(flown).rejects.toBe(error);
    expect(await second).toEqual({ ran: true, value: 'second' });
    expect(await third).toEqual({ ran: false });
  });

  test('that gives its guard back is none for who comes then, nor is what its thread holds next', async () => {
    await kind.singleFlight(lock, (guard) => guard.release());
    await expectNoneBehind('exclusive');
  });

  test('within a hold that waited for one is one of its own', async () => {
    const first = flight();
    const flown = kind.singleFlight(lock, first.fn);
    await first.begun;
    const nested = kind
      .make(name, 'SharedRLock')
      .exclusive(() => kind.singleFlight(kind.make(name, 'SharedRLock'), () => 'nested'));
    await turns();
    first.finish('value');
    await flown;
    expect(await nested).toEqual({ ran: true, value: 'nested' });
  });

  test('is not what plain holders do, exclusively or shared', async () => {
    for (const mode of ['exclusive', 'shared'] as const) await expectNoneBehind(mode);
  });

  test('that was finished before the wait began does not count', async () => {
    await kind.singleFlight(lock, () => 'before');
    await expectNoneBehind('exclusive');
  });

  test('holds the lock exclusively, and gives the guard to the function', async () => {
    await kind.singleFlight(lock, async (guard) => {
      expect(guard.mode).toBe('exclusive');
      expect(await modesOf(lock)).toEqual({ held: ['exclusive'], pending: [] });
    });
  });

  test('of a closed handle is refused as every acquire: after its arguments, and after an abort', async () => {
    const closed = kind.make(name);
    closed.close();
    const fly = (options: object) => kind.singleFlight(closed, () => {}, options);
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(fly({ timeout: 'soon', signal })).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
    await expect(fly({ signal })).rejects.toBe(reason);
    await expect(fly({})).rejects.toEqual(withCode('ERR_LOCK_CLOSED'));
  });

  test('takes the options of an acquire', async () => {
    const guard = await lock.exclusive();
    await expect(kind.singleFlight(lock, () => {}, { timeout: 20 })).rejects.toEqual(
      withCode('ERR_LOCK_TIMEOUT'),
    );
    await guard.release();
    await expect(kind.singleFlight(lock, undefined as never)).rejects.toEqual(
      withCode('ERR_INVALID_ARG_TYPE'),
    );
    await expect(kind.singleFlight({} as never, () => {})).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test('is done also if it has downgraded its hold meanwhile', async () => {
    const first = flight();
    const flown = kind.singleFlight(lock, async (guard) => {
      await first.fn();
      await guard.downgrade();
    });
    await first.begun;
    const other = kind.singleFlight(kind.make(name), () => 'again');
    await turns();
    first.finish('');
    expect(await flown).toEqual({ ran: true, value: undefined });
    expect(await other).toEqual({ ran: false });
  });

  test('is none if it has given the lock back and throws then', async () => {
    const first = flight();
    const flown = kind.singleFlight(lock, async (guard) => {
      await first.fn();
      await guard.release();
      throw new Error('after all');
    });
    await first.begun;
    const other = kind.singleFlight(kind.make(name), () => 'again');
    await turns();
    first.finish('');
    await expect(flown).rejects.toThrow('after all');
    expect(await other).toEqual({ ran: true, value: 'again' });
  });

  test('within a callback is done though that callback throws', async () => {
    const outer = kind.make(name, 'RLock');
    const first = flight();
    const called = outer.acquire(async () => {
      await kind.singleFlight(outer as never, first.fn);
      throw new Error('not the flight');
    });
    await first.begun;
    const other = kind.singleFlight(lock, () => 'again');
    await turns();
    first.finish('');
    await expect(called).rejects.toThrow('not the flight');
    expect(await other).toEqual({ ran: false });
    outer.close();
  });
});

test('two processes that come at once do it once; one that dies at it leaves it to the next', async () => {
  const kind = kinds['in shared memory']!();
  const lock = kind.make(name);
  const { namespace } = lock;
  const source = `const ours = lock({ name: args.name });
    return proclock.singleFlight(ours, () => new Promise((resolve) => { globalThis.finish = () => resolve('value'); }));`;
  const [dying, flying, waiting] = await Promise.all([0, 1, 2].map(() => startActor('fork', { namespace })));
  const lost = dying!.run(source, { name });
  lost.catch(() => {});
  await dying!.call('ping');
  const flown = flying!.run(source, { name });
  await flying!.call('ping');
  const waited = waiting!.run(source, { name });
  await untilPending(lock, 2);
  await dying!.kill();
  await untilPending(lock, 1);
  await flying!.run('finish()');
  expect(await flown).toEqual({ ran: true, value: 'value' });
  expect(await waited).toEqual({ ran: false });
  // What the dead one left is still to be repaired by somebody: who did the flight did so.
  const guard = await lock.exclusive();
  expect(guard.abandoned).toBeNull();
  guard.release();
  lock.close();
});

test('whoever is spared a flight does not clear the mark of a dead holder', async () => {
  const kind = kinds['in shared memory']!();
  const lock = kind.make(name);
  const { namespace } = lock;
  const [plain, spared] = await Promise.all([0, 1].map(() => startActor('fork', { namespace })));
  const first = flight();
  const flown = kind.singleFlight(lock, first.fn);
  await first.begun;
  const queued = plain!.acquire({ name, mode: 'exclusive' });
  await untilPending(lock, 1);
  const waited = spared!.run(
    `const ours = lock({ name: args.name });
    return proclock.singleFlight(ours, () => {});`,
    { name },
  );
  await untilPending(lock, 2);
  first.finish('value');
  await flown;
  await queued;
  await plain!.kill();
  expect(await waited).toEqual({ ran: false });
  const guard = await lock.exclusive();
  expect(guard.abandoned).toMatchObject({ pid: plain!.pid });
  guard.release();
  lock.close();
});
