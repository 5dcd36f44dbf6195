// Several locks at once: in one order, with one deadline, all or nothing. In shared memory, and over an engine.
import * as local from '../lib';
import { memory } from '../lib/memory';
import * as remote from '../lib/remote';
import { startActor } from './support/actor';
import { FREE, KINDS, type Kind, kinds, modesOf, turns } from './support/kinds';
import { withCode } from './support/locks';
import { testNamespace } from './support/namespace';

/** More than there can be callbacks within each other, on one stack. */
const MANY = 2000;

describe.each(KINDS)('locks %s', (kindName) => {
  let kind: Kind;
  let a: local.SharedLock;
  let b: local.SharedLock;
  let c: local.SharedLock;
  beforeEach(() => {
    kind = kinds[kindName]!();
    [a, b, c] = ['a', 'b', 'c'].map((name) => kind.make(name)) as [typeof a, typeof b, typeof c];
  });
  afterEach(async () => {
    for (const lock of [a, b, c]) {
      expect(await modesOf(lock)).toEqual(FREE);
      lock.close();
    }
  });

  test('are held together, each in its mode, and released together', async () => {
    const all = await kind.acquireAll([c, { lock: a, mode: 'shared' }, { lock: b, mode: 'exclusive' }]);
    expect(all.guards.map(({ lock, mode }) => [lock, mode])).toEqual([
      [c, 'exclusive'],
      [a, 'shared'],
      [b, 'exclusive'],
    ]);
    expect(await modesOf(a)).toEqual({ held: ['shared'], pending: [] });
    expect(await modesOf(b)).toEqual({ held: ['exclusive'], pending: [] });
    expect(all.released).toBe(false);
    await all.release();
    expect(all.released).toBe(true);
    await expect((async () => all.release())()).rejects.toEqual(withCode('ERR_LOCK_NOT_HELD'));
  });

  test('are taken in the order of their names, by code units, whatever the order of the list', async () => {
    const upper = kind.make('B');
    const blocked = await b.exclusive();
    const waiting = kind.acquireAll([c, b, a, upper]);
    await turns();
    expect(await modesOf(upper)).toEqual({ held: ['exclusive'], pending: [] });
    expect(await modesOf(a)).toEqual({ held: ['exclusive'], pending: [] });
    expect(await modesOf(b)).toEqual({ held: ['exclusive'], pending: ['exclusive'] });
    expect(await modesOf(c)).toEqual(FREE);
    await blocked.release();
    await (await waiting).release();
    upper.close();
  });

  test('named twice, also by two handles, are taken once: exclusively if one of them says so', async () => {
    const again = kind.make('a');
    const all = await kind.acquireAll([{ lock: a, mode: 'shared' }, b, again, { lock: a, mode: 'shared' }]);
    expect(all.guards).toHaveLength(4);
    expect(all.guards[2]).toBe(all.guards[0]);
    expect(all.guards[3]).toBe(all.guards[0]);
    expect(all.guards[0]!.mode).toBe('exclusive');
    expect(await modesOf(a)).toEqual({ held: ['exclusive'], pending: [] });
    await all.release();
    again.close();
  });

  test('none at all make an empty guard', async () => {
    const all = await kind.acquireAll([]);
    expect(all.guards).toEqual([]);
    expect([all.released, all.lost.aborted]).toEqual([false, false]);
    await all.release();
    expect(all.released).toBe(true);
    expect(await kind.acquireAll([], () => 'value')).toBe('value');
  });

  test('that are given back since one of them is taken keep the marks of dead holders', async () => {
    await kind.abandon('a');
    const blocked = await b.exclusive();
    await expect(kind.acquireAll([a, b], { timeout: 1 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    expect(await kind.tryAcquireAll([a, b])).toBeNull();
    await blocked.release();
    const guard = await a.exclusive();
    expect(guard.abandoned).not.toBeNull();
    await guard.release();
  });

  test('that are given back within a hold of the same owner change nothing about its end', async () => {
    await kind.abandon('outer');
    const outer = kind.make('outer', 'SharedRLock');
    const blocked = await b.exclusive();
    await outer.exclusive(async ({ abandoned }) => {
      expect(abandoned).not.toBeNull();
      const wanted = [outer, b];
      await expect(kind.acquireAll(wanted, { timeout: 1 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
      expect(await kind.tryAcquireAll(wanted)).toBeNull();
    });
    await blocked.release();
    expect(await outer.exclusive(({ abandoned }) => abandoned)).toBeNull();
    outer.close();
  });

  test('that can not all be taken around a callback change nothing about the end of a hold of the first one', async () => {
    await kind.abandon('A');
    const first = kind.make('A', 'RLock');
    const blocked = await b.exclusive();
    const work = jest.fn();
    await first.acquire(async ({ abandoned }) => {
      expect(abandoned).not.toBeNull();
      const failing = kind.acquireAll([first, b], { timeout: 1 }, work);
      await expect(failing).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
      expect(await modesOf(first)).toEqual({ held: ['exclusive'], pending: [] });
    });
    await blocked.release();
    expect(work).not.toHaveBeenCalled();
    expect(await first.acquire(({ abandoned }) => abandoned)).toBeNull();
    expect(await modesOf(first)).toEqual(FREE);
    first.close();
  });

  test('that can not all be taken around a callback keep the mark of the first one, which nobody holds', async () => {
    await kind.abandon('a');
    const blocked = await b.exclusive();
    const failing = kind.acquireAll([a, b], { timeout: 1 }, () => {});
    await expect(failing).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    await blocked.release();
    expect(await a.exclusive(({ abandoned }) => abandoned)).not.toBeNull();
  });

  test('whose first one is lost meanwhile, with the hold around it, tell of that', async () => {
    const first = kind.make('A', 'RLock');
    const blocked = await b.exclusive();
    let failure: unknown;
    const outer = first.acquire(async () => {
      const failing = kind.acquireAll([first, b], { timeout: 50 }, () => {});
      await kind.manager().request('A', { steal: true }, () => {});
      failure = await failing.catch((error) => error);
    });
    await expect(outer).rejects.toEqual(withCode('ERR_LOCK_LOST'));
    expect(failure).toEqual(withCode('ERR_LOCK_LOST'));
    expect(await modesOf(first)).toEqual(FREE);
    await blocked.release();
    first.close();
  });

  test('are refused at once where one handle was given back, in whatever place, or a signal is aborted', async () => {
    const closed = kind.make('a');
    closed.close();
    for (const wanted of [
      [a, closed],
      [closed, a],
    ]) {
      await expect(kind.acquireAll(wanted)).rejects.toEqual(withCode('ERR_LOCK_CLOSED'));
      await expect((async () => kind.tryAcquireAll(wanted))()).rejects.toEqual(withCode('ERR_LOCK_CLOSED'));
    }
    const reason = new Error('changed our mind');
    await expect(kind.acquireAll([], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expect(kind.acquireAll(new Array(1))).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test('take their options once, wherever those are', async () => {
    const blocked = await b.exclusive();
    const aborting = new AbortController();
    class Options {
      get signal() {
        return aborting.signal;
      }
    }
    const waiting = kind.acquireAll([a, b], new Options());
    await turns();
    aborting.abort(new Error('gave up'));
    await expect(waiting).rejects.toThrow('gave up');
    await blocked.release();
  });

  test('are over with the callback: their guard can not be released then', async () => {
    let guard: local.MultiGuard | undefined;
    await kind.acquireAll([a, b], (all: local.MultiGuard) => {
      guard = all;
    });
    await expect((async () => guard!.release())()).rejects.toEqual(withCode('ERR_LOCK_NOT_HELD'));
    let none: local.MultiGuard | undefined;
    await kind.acquireAll([], (all: local.MultiGuard) => {
      none = all;
    });
    expect(none!.released).toBe(true);
  });

  test('have one deadline, and what was taken is given back when it has passed', async () => {
    const blocked = await c.shared();
    const late = kind.acquireAll([a, { lock: b, mode: 'shared' }, c], { timeout: 30 });
    await expect(late).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT', holders: [{ mode: 'shared' }] });
    expect(await modesOf(a)).toEqual(FREE);
    expect(await modesOf(b)).toEqual(FREE);
    await expect(kind.acquireAll([a, c], { timeout: 0 })).rejects.toEqual(withCode('ERR_LOCK_TIMEOUT'));
    await blocked.release();
    await (await kind.acquireAll([a, c], { timeout: 0 })).release();
  });

  test('are given back on an abort', async () => {
    const blocked = await b.exclusive();
    const controller = new AbortController();
    const waiting = kind.acquireAll([b, a], { signal: controller.signal });
    await turns();
    const reason = new Error('no longer');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    expect(await modesOf(a)).toEqual(FREE);
    await blocked.release();
  });

  test('are held while a callback runs, whose result they give on, and by its context', async () => {
    const ra = kind.make('a', 'SharedRLock');
    const rb = kind.make('b', 'RLock');
    const result = await kind.acquireAll([ra, rb], async (all: local.MultiGuard) => {
      expect(all.guards.map(({ lock }) => lock.name)).toEqual(['a', 'b']);
      await ra.exclusive(async () => expect(await modesOf(a)).toEqual({ held: ['exclusive'], pending: [] }));
      await rb.acquire(() => {});
      await expect(kind.acquireAll([a])).rejects.toEqual(withCode('ERR_LOCK_NOT_REENTRANT'));
      return 'value';
    });
    expect(result).toBe('value');
    const error = new Error('of the callback');
    const failing = kind.acquireAll([a, b], { timeout: 1000 }, () => {
      throw error;
    });
    await expect(failing).rejects.toBe(error);
    ra.close();
    rb.close();
  });

  test('released early by their own guards are not released twice', async () => {
    const all = await kind.acquireAll([a, b]);
    await all.guards[0]!.release();
    expect(all.released).toBe(false);
    await all.release();
    expect(all.released).toBe(true);
    await kind.acquireAll([a, b], async ({ guards }: local.MultiGuard) => {
      await guards[1]!.release();
    });
  });

  test('are released at the end of a block, once', async () => {
    const all = await kind.acquireAll([a, b]);
    await all[Symbol.asyncDispose]();
    expect(await modesOf(a)).toEqual(FREE);
    await all[Symbol.asyncDispose]();
  });

  test('are tried together: all, or none of them', async () => {
    const blocked = await b.shared();
    expect(await kind.tryAcquireAll([a, b])).toBeNull();
    expect(await modesOf(a)).toEqual(FREE);
    const all = await kind.tryAcquireAll([a, { lock: b, mode: 'shared' }]);
    expect(all?.guards.map(({ mode }) => mode)).toEqual(['exclusive', 'shared']);
    await all!.release();
    await blocked.release();
  });

  test('are held around a callback however many they are', async () => {
    const many = Array.from({ length: MANY }, (_, number) => kind.make(`many ${number}`));
    const held = await kind.acquireAll(many, async ({ guards }: local.MultiGuard) => {
      await turns(1);
      return guards.filter(({ released }) => !released).length;
    });
    expect(held).toBe(MANY);
    for (const lock of many) {
      expect(await modesOf(lock)).toEqual(FREE);
      lock.close();
    }
  });

  test('that are lost say so, and the others are given back all the same', async () => {
    const all = await kind.acquireAll([a, b, c]);
    const { lost } = all;
    const told = new Promise((resolve) => lost.addEventListener('abort', resolve, { once: true }));
    await kind.manager().request('b', { steal: true }, () => {});
    await told;
    expect(lost.reason).toEqual(withCode('ERR_LOCK_LOST'));
    expect(all.lost).toBe(lost);
    await expect((async () => all.release())()).rejects.toEqual(withCode('ERR_LOCK_LOST'));
    expect(all.released).toBe(true);
  });

  test('are checked before one is taken', async () => {
    const exclusiveOnly = kind.make('x', 'Lock');
    const wrong: Array<[unknown, string]> = [
      ['a', 'ERR_INVALID_ARG_TYPE'],
      [[a, 'b'], 'ERR_INVALID_ARG_TYPE'],
      [[a, null], 'ERR_INVALID_ARG_TYPE'],
      [[{ mode: 'shared' }], 'ERR_INVALID_ARG_TYPE'],
      [[{ lock: a, mode: 'both' }], 'ERR_INVALID_ARG_VALUE'],
      [[{ lock: exclusiveOnly, mode: 'shared' }], 'ERR_INVALID_ARG_VALUE'],
    ];
    for (const [wanted, code] of wrong) {
      await expect(kind.acquireAll(wanted as never)).rejects.toEqual(withCode(code));
      await expect((async () => kind.tryAcquireAll(wanted as never))()).rejects.toEqual(withCode(code));
    }
    await expect(kind.acquireAll([a], { timeout: -1 })).rejects.toEqual(withCode('ERR_OUT_OF_RANGE'));
    await expect(kind.acquireAll([a], {}, 5)).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
    const swapped = kind.acquireAll as unknown as (...args: unknown[]) => Promise<unknown>;
    await expect(swapped([a], () => {}, { timeout: 50 })).rejects.toEqual(withCode('ERR_INVALID_ARG_TYPE'));
    exclusiveOnly.close();
  });
});

test('locks of both kinds can not be taken together', async () => {
  const here = new local.SharedLock('a', { namespace: testNamespace() });
  const there = new remote.SharedLock('a', { space: memory() });
  const code = withCode('ERR_INVALID_ARG_VALUE');
  await expect(local.acquireAll([here, there as never])).rejects.toEqual(code);
  await expect(remote.acquireAll([there, here as never])).rejects.toEqual(code);
  expect(here.query()).toEqual(FREE);
  here.close();
});

describe('blocking', () => {
  test('takes, gives back and calls as the asynchronous form does', () => {
    const namespace = testNamespace();
    const [a, b] = ['a', 'b'].map((name) => new local.SharedRLock(name, { namespace })) as [
      local.SharedRLock,
      local.SharedRLock,
    ];
    const all = local.acquireAllSync([b, { lock: a, mode: 'shared' }]);
    expect(all.guards.map(({ lock, mode }) => [lock.name, mode])).toEqual([
      ['b', 'exclusive'],
      ['a', 'shared'],
    ]);
    all.release();
    expect(() => all.release()).toThrow(withCode('ERR_LOCK_NOT_HELD'));
    const result = local.acquireAllSync([a, b], ({ guards }) => {
      a.sharedSync(() => {});
      b.exclusiveSync(() => {});
      return guards.length;
    });
    expect(result).toBe(2);
    expect(local.acquireAllSync([], () => 'value')).toBe('value');
    {
      using _all = local.acquireAllSync([a, b]);
    }
    expect([a.query(), b.query()]).toEqual([FREE, FREE]);
    a.close();
    b.close();
  });

  test('holds them around a callback however many they are', () => {
    const namespace = testNamespace();
    const many = Array.from({ length: MANY }, (_, number) => new local.Lock(`many ${number}`, { namespace }));
    expect(local.acquireAllSync(many, ({ guards }) => guards.length)).toBe(MANY);
    for (const lock of many) {
      expect(lock.query()).toEqual(FREE);
      lock.close();
    }
  });

  test('tells what the callback threw, and gives all back', () => {
    const namespace = testNamespace();
    const [a, b] = ['a', 'b'].map((name) => new local.Lock(name, { namespace })) as [local.Lock, local.Lock];
    const thrown = new Error('thrown');
    const fail = () => {
      throw thrown;
    };
    expect(() => local.acquireAllSync([a, b], fail)).toThrow(thrown);
    expect([a.query(), b.query()]).toEqual([FREE, FREE]);
    a.close();
    b.close();
  });

  test('changes nothing about the end of a hold of the first one, if the others can not be taken', async () => {
    const namespace = testNamespace();
    const [a, b] = ['a', 'b'].map((name) => new local.RLock(name, { namespace })) as [
      local.RLock,
      local.RLock,
    ];
    const [dead, other] = await Promise.all([0, 1].map(() => startActor('fork', { namespace })));
    await dead!.acquire({ name: 'a', mode: 'exclusive' });
    await dead!.kill('SIGKILL');
    await other!.acquire({ name: 'b', mode: 'exclusive' });
    const timeout = withCode('ERR_LOCK_TIMEOUT');
    expect(() => local.acquireAllSync([a, b], { timeout: 1 }, () => {})).toThrow(timeout);
    a.acquireSync(({ abandoned }) => {
      expect(abandoned).toMatchObject({ pid: dead!.pid });
      expect(() => local.acquireAllSync([a, b], { timeout: 1 }, () => {})).toThrow(timeout);
      expect(a.query().held).toHaveLength(1);
    });
    expect(a.acquireSync(({ abandoned }) => abandoned)).toBeNull();
    expect(a.query()).toEqual(FREE);
    await other!.release('b');
    a.close();
    b.close();
  });

  test('gives back what was taken when the time is up', async () => {
    const namespace = testNamespace();
    const [a, b] = ['a', 'b'].map((name) => new local.Lock(name, { namespace })) as [local.Lock, local.Lock];
    const other = await startActor('fork', { namespace });
    await other.acquire({ name: 'b', mode: 'exclusive' });
    expect(() => local.acquireAllSync([b, a], { timeout: 20 })).toThrow(withCode('ERR_LOCK_TIMEOUT'));
    expect(a.query()).toEqual(FREE);
    await other.release('b');
    local.acquireAllSync([b, a], { timeout: 20 }).release();
    a.close();
    b.close();
  });
});

test('processes that want the same locks in whatever order never wait in a circle', async () => {
  const namespace = testNamespace();
  const names = ['a', 'b', 'c', 'd'];
  const actors = await Promise.all([0, 1, 2].map(() => startActor('fork', { namespace })));
  const rounds = actors.map((actor, seed) =>
    actor.run<number>(
      `const locks = args.names.map((name) => new proclock.SharedLock(name, { namespace: args.namespace }));
      let done = 0;
      for (let round = 0; round < 100; round++) {
        const mine = locks.filter((_, index) => ((round * 7 + args.seed * 5 + index * 3) % 4) < 3);
        if (round % 2 === args.seed % 2) mine.reverse();
        await proclock.acquireAll(mine, async () => { await new Promise(setImmediate); done++; });
      }
      for (const lock of locks) lock.close();
      return done;`,
      { namespace, names, seed },
    ),
  );
  expect(await Promise.all(rounds)).toEqual([100, 100, 100]);
});
