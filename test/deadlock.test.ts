// Waits that go round in a circle: where all of them block their threads, the youngest fails; elsewhere each process is told,
// once, or one fails that has asked for it. Nobody else is.
import { setTimeout as sleep } from 'node:timers/promises';
import { Lock, LockError, type LockGuard, SharedLock } from '../lib';
import { contentOf, segmentsOfUser } from '../lib/shm/admin';
import { Report, Told } from '../lib/shm/binding';
import { ownedBy } from '../lib/shm/deadlock';
import { threadOwner } from '../lib/shm/record';
import type { ActorKind } from './support/actor';
import { startBusy, stopInside, unstall } from './support/disturb';
import { Member, type Outcome, type Wanted, type Way } from './support/members';
import { testNamespace } from './support/namespace';
import { latch, until } from './support/until';

/** Longer than it takes to find a cycle, by far. */
const LONG_ENOUGH_MS = 2_500;

const isDeadlock = (outcome: Outcome): outcome is Exclude<Outcome, 'granted'> =>
  outcome !== 'granted' && outcome.code === 'ERR_LOCK_DEADLOCK';

let namespace: string;
let open: Map<string, SharedLock>;
beforeEach(() => {
  namespace = testNamespace();
  open = new Map();
});
afterEach(() => {
  for (const lock of open.values()) lock.close();
});

function pending(name: string): number {
  let lock = open.get(name);
  if (lock === undefined) {
    lock = new SharedLock(name, { namespace });
    open.set(name, lock);
  }
  return lock.query().pending.length;
}

interface Role {
  kind: ActorKind;
  way: Way;
  has?: Partial<Wanted> | null;
  wants?: Partial<Wanted>;
  beside?: boolean;
}

/** A circle of these, whose waits have begun one after the other. */
async function circle(roles: Role[]): Promise<Member[]> {
  const members: Member[] = [];
  for (const [at, { kind, way, has, wants, beside }] of roles.entries()) {
    const next = (at + 1) % roles.length;
    members.push(
      await Member.start(
        kind,
        namespace,
        way,
        has === null ? null : { name: `lock ${at}`, ...has },
        { name: `lock ${next}`, ...wants },
        { beside: beside ?? false },
      ),
    );
  }
  for (const member of members) await member.begin(pending);
  return members;
}

/** The outcomes, of which exactly one is a deadlock: whose it is. */
function victimOf(outcomes: Outcome[]): number {
  expect(outcomes.filter(isDeadlock)).toHaveLength(1);
  expect(outcomes.filter((outcome) => outcome === 'granted')).toHaveLength(outcomes.length - 1);
  return outcomes.findIndex(isDeadlock);
}

const outcomesOf = (members: Member[]) => Promise.all(members.map((member) => member.result()));

async function warningsOf(members: Member[]) {
  const warnings = await Promise.all(members.map((member) => member.warnings()));
  return warnings.map((of) => of.filter(({ code }) => code === 'PROCLOCK_DEADLOCK'));
}

/** As `proclock ls` shows it. */
function inCircles(namespace: string): string[] {
  const segment = segmentsOfUser().find((each) => each.namespace === namespace);
  return [...contentOf(segment!).deadlocks].sort();
}

describe('certain: all block their threads', () => {
  test.each([
    { title: 'two processes', kinds: ['fork', 'fork'] },
    { title: 'two threads of one process', kinds: ['thread', 'thread'] },
    { title: 'three processes', kinds: ['fork', 'fork', 'fork'] },
    { title: 'two processes and two threads', kinds: ['fork', 'thread', 'fork', 'thread'] },
  ] as Array<{ title: string; kinds: ActorKind[] }>)('$title: the youngest fails', async ({ kinds }) => {
    const members = await circle(kinds.map((kind) => ({ kind, way: 'sync' })));
    const outcomes = await outcomesOf(members);
    expect(victimOf(outcomes)).toBe(members.length - 1);
    const { cycle, message } = outcomes.at(-1) as Exclude<Outcome, 'granted'>;
    const order = [members.length - 1, ...members.keys()];
    expect(cycle).toEqual(
      order.map((at) =>
        expect.objectContaining({
          name: `lock ${(at + 1) % members.length}`,
          mode: 'exclusive',
          pid: members[at]?.actor.pid,
          threadId: members[at]?.actor.threadId,
        }),
      ),
    );
    for (const at of members.keys()) expect(message).toContain(`"lock ${at}"`);
    for (const { actor } of members) expect(message).toContain(`pid ${actor.pid} thread ${actor.threadId}`);
    expect(await warningsOf(members)).toEqual(members.map(() => []));
  });

  test('a wait with a time-out is no victim while another one can be', async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync' },
      { kind: 'fork', way: 'sync', wants: { timeout: 20_000 } },
    ]);
    expect(victimOf(await outcomesOf(members))).toBe(0);
  });

  test('one with a signal neither', async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync' },
      { kind: 'fork', way: 'sync', wants: { signal: true } },
    ]);
    expect(victimOf(await outcomesOf(members))).toBe(0);
  });

  test('where all have a time-out, the youngest fails', async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync', wants: { timeout: 20_000 } },
      { kind: 'fork', way: 'sync', wants: { timeout: 20_000 } },
    ]);
    expect(victimOf(await outcomesOf(members))).toBe(1);
  });

  test('a reader that is barred by a writer waits for it', async () => {
    // The reader holds the other lock, and waits behind the writer, who waits for a reader, who waits for the other lock.
    const first = await Member.start('fork', namespace, 'sync', { name: 'a', mode: 'shared' }, { name: 'b' });
    const second = await Member.start(
      'fork',
      namespace,
      'sync',
      { name: 'b' },
      { name: 'a', mode: 'shared' },
    );
    const writer = await Member.start('fork', namespace, 'sync', null, { name: 'a', fair: true });
    await writer.begin(pending);
    await first.begin(pending);
    await second.begin(pending);
    const outcomes = await outcomesOf([first, writer, second]);
    expect(victimOf(outcomes)).toBe(2);
    expect((outcomes[2] as Exclude<Outcome, 'granted'>).cycle).toHaveLength(4);
  });

  test('the death of a member is no deadlock: nobody fails', async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync' },
      { kind: 'fork', way: 'sync' },
      { kind: 'fork', way: 'sync' },
    ]);
    await members[2]?.actor.kill();
    expect(await outcomesOf(members.slice(0, 2))).toEqual(['granted', 'granted']);
  });

  test('nobody fails who waits for a slow holder', async () => {
    const holder = await Member.start('fork', namespace, 'guard', { name: 'a' }, { name: 'c' });
    const waiter = await Member.start('fork', namespace, 'sync', { name: 'b' }, { name: 'a' });
    const behind = await Member.start('fork', namespace, 'sync', null, { name: 'b' });
    await waiter.begin(pending);
    await behind.begin(pending);
    await sleep(LONG_ENOUGH_MS);
    expect([waiter.settled, behind.settled]).toEqual([false, false]);
    expect(inCircles(namespace)).toEqual([]);
    await holder.actor.run(`guards.get('mine').release();`);
    expect(await outcomesOf([waiter, behind])).toEqual(['granted', 'granted']);
  });
});

/** Callbacks of this thread that hold one lock and wait for another, whose `guard` is ours; and a writer, for whom others hold. */
async function crowd(count: number) {
  const [config, db] = ['config', 'db'].map((name) => new SharedLock(name, { namespace })) as [
    SharedLock,
    SharedLock,
  ];
  const guard = await db.exclusive();
  const readers = Array.from({ length: count }, () => config.shared(() => db.shared(() => {})));
  const writer = config.exclusive();
  return { config, db, guard, readers, writer };
}

describe('likely: others may still give back what is held', () => {
  test.each(['fork', 'thread'] as const)('two callbacks (%s): each process warns, once', async (kind) => {
    const members = await circle([
      { kind, way: 'callback' },
      { kind, way: 'callback' },
    ]);
    const expected = kind === 'fork' ? 2 : 1;
    await until(async () => (await warningsOf(members)).flat().length === expected);
    await sleep(LONG_ENOUGH_MS);
    const warnings = await warningsOf(members);
    expect(warnings.flat()).toHaveLength(expected);
    if (kind === 'fork') expect(warnings.map((of) => of.length)).toEqual([1, 1]);
    for (const { message } of warnings.flat()) {
      for (const { actor } of members) expect(message).toContain(`pid ${actor.pid} thread ${actor.threadId}`);
      expect(message).toContain('"lock 0"');
      expect(message).toContain('"lock 1"');
    }
    expect(members.map(({ settled }) => settled)).toEqual([false, false]);
    await members[0]?.actor.destroy();
    expect(await members[1]?.result()).toBe('granted');
  });

  test("'throw': the youngest of those that say so fails, and nobody warns", async () => {
    const members = await circle([
      { kind: 'fork', way: 'callback', wants: { deadlock: 'throw' } },
      { kind: 'thread', way: 'callback', wants: { deadlock: 'throw' } },
      { kind: 'fork', way: 'callback' },
    ]);
    expect(victimOf(await outcomesOf(members))).toBe(1);
    expect((await warningsOf(members)).flat()).toEqual([]);
  });

  test('a thread that blocks, and a callback: the one that can say so warns', async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync' },
      { kind: 'fork', way: 'callback' },
    ]);
    await until(async () => (await members[1]!.warnings()).length === 1);
    expect(inCircles(namespace)).toEqual(['lock 0', 'lock 1']);
    expect(members.map(({ settled }) => settled)).toEqual([false, false]);
    await members[1]?.actor.kill();
    expect(await members[0]?.result()).toBe('granted');
    await until(async () => (await members[0]!.warnings()).length === 1);
  });

  test("a thread that blocks fails if it has said 'throw', and a callback has not", async () => {
    const members = await circle([
      { kind: 'fork', way: 'sync', wants: { deadlock: 'throw' } },
      { kind: 'fork', way: 'callback' },
    ]);
    expect(victimOf(await outcomesOf(members))).toBe(0);
    expect((await warningsOf(members)).flat()).toEqual([]);
  });

  test('of many who hold and wait one look finds those that are in a circle, and hardly any other one looks', async () => {
    const { config, db, guard, readers, writer } = await crowd(6000);
    const { binding } = db.record.ready.native;
    const told = jest.spyOn(binding, 'sayContexts');
    const looks = jest.spyOn(binding, 'lookForCycle');
    const looked = new Set<number>();
    let most = 0;
    await until(
      () => {
        for (const [index] of [...told.mock.calls, ...looks.mock.calls]) looked.add(index);
        most = Math.max(most, told.mock.calls.length);
        told.mockClear();
        return looked.size >= readers.length;
      },
      { within: 30_000 },
    );
    expect(most).toBeLessThan(readers.length); // some in a turn of the event loop, in time all
    // Beside them somebody is in a circle.
    const members = await circle([
      { kind: 'fork', way: 'callback' },
      { kind: 'fork', way: 'callback' },
    ]);
    const [x, y] = ['x', 'y'].map((name) => new SharedLock(name, { namespace })) as [SharedLock, SharedLock];
    const begun = latch();
    const fails = x.exclusive(async () => {
      await begun.opened;
      await y.exclusive({ deadlock: 'throw' }, () => {});
    });
    const other = y.exclusive(async () => {
      begun.open();
      await x.exclusive(() => {});
    });
    await expect(fails).rejects.toMatchObject({ code: 'ERR_LOCK_DEADLOCK' });
    await other;
    expect(looks.mock.calls.length).toBeLessThan(readers.length / 10);
    told.mockRestore();
    looks.mockRestore();
    await until(async () => (await warningsOf(members)).flat().length > 0, { within: 30_000 });
    for (const member of members) await member.actor.kill();
    guard.release();
    await Promise.all(readers);
    (await writer).release();
    for (const lock of [config, db, x, y]) lock.close();
  }, 60_000);

  test('of many who hold and wait each one has its turn, also where few are looked at in a second', async () => {
    const { config, db, guard, readers, writer } = await crowd(400);
    const { binding } = db.record.ready.native;
    const looked = new Set<number>();
    const told = jest.spyOn(binding, 'sayContexts').mockImplementation((index) => {
      looked.add(index);
      for (const end = performance.now() + 2; performance.now() < end; );
      return false;
    });
    await until(() => looked.size >= readers.length, { within: 30_000 });
    told.mockRestore();
    guard.release();
    await Promise.all(readers);
    (await writer).release();
    for (const lock of [config, db]) lock.close();
  }, 60_000);

  test('while a process is stopped in the latch hardly any of many looks, and it is found out when it goes on', async () => {
    const busy = await startBusy(namespace);
    const { config, db, guard, readers, writer } = await crowd(60); // few, or the busy one is hardly ever inside
    await stopInside(busy, namespace);
    const { native } = db.record.ready;
    const { binding } = native;
    const { waitsInCycles } = binding;
    const unknown: boolean[] = [];
    const asks = jest.spyOn(binding, 'waitsInCycles').mockImplementation(() => {
      const found = waitsInCycles();
      unknown.push((native.reported(Report.TOLD) & Told.UNKNOWN) !== 0);
      return found;
    });
    const looks = jest.spyOn(binding, 'lookForCycle');
    await until(() => unknown.length >= 10, { within: 30_000 });
    expect(unknown).not.toContain(false);
    expect(looks.mock.calls.length).toBeLessThan(readers.length / 2);
    await unstall(busy);
    await until(() => unknown.includes(false), { within: 30_000 });
    asks.mockRestore();
    looks.mockRestore();
    guard.release();
    await Promise.all(readers);
    (await writer).release();
    for (const lock of [config, db]) lock.close();
  }, 60_000);

  test('whoever waits on behalf of a guard that was released since holds nothing, whatever has its place', async () => {
    const lock = new SharedLock('a', { namespace });
    const { native } = lock.record.ready;
    const named = lock.exclusiveSync();
    const waiting = lock.exclusive();
    expect(ownedBy(threadOwner, named, native)).toEqual([expect.any(Number), named.hold.index]);
    named.release();
    const guard = await waiting;
    const other = lock.exclusive();
    expect(ownedBy(threadOwner, named, native)).toBeUndefined();
    guard.release();
    (await other).release();
    lock.close();
  });

  test('plain guards belong to no context: nobody is accused', async () => {
    const members = await circle([
      { kind: 'fork', way: 'guard' },
      { kind: 'fork', way: 'guard', wants: { deadlock: 'throw' } },
    ]);
    await sleep(LONG_ENOUGH_MS);
    expect((await warningsOf(members)).flat()).toEqual([]);
    expect(members.map(({ settled }) => settled)).toEqual([false, false]);
    expect(inCircles(namespace)).toEqual(['lock 0', 'lock 1']); // but whoever looks sees it
    await members[0]?.actor.kill();
    expect(await members[1]?.result()).toBe('granted');
  });

  test('a plain guard of a thread that blocks counts', async () => {
    const guard = await Member.start('fork', namespace, 'guard', { name: 'a' }, { name: 'b' });
    const callback = await Member.start(
      'fork',
      namespace,
      'callback',
      { name: 'b' },
      { name: 'a', deadlock: 'throw' },
    );
    const blocked = guard.actor.begin('run', {
      source: `try { lock({ name: 'b' }).acquireSync({ exclusive: true }).release(); } finally { guards.get('mine').release(); }`,
    });
    await until(() => pending('b') === 1);
    await callback.begin(pending);
    expect(isDeadlock(await callback.result())).toBe(true);
    await blocked.promise;
  });

  test('the other branch of a callback gives back in time: nobody fails', async () => {
    const members = await circle([
      { kind: 'fork', way: 'callback', beside: true },
      { kind: 'fork', way: 'callback' },
    ]);
    await until(async () => (await warningsOf(members)).flat().length === 2);
    await members[0]?.give();
    expect(await members[1]?.result()).toBe('granted');
  });
});

describe('contexts, within one thread', () => {
  const lockOf = (name: string) => new Lock(name, { namespace });
  let warnings: string[];
  let warn: jest.SpyInstance;
  beforeEach(() => {
    warnings = [];
    warn = jest.spyOn(process, 'emitWarning').mockImplementation((message) => {
      warnings.push(String(message));
    });
  });
  afterEach(() => warn.mockRestore());

  test('a nested callback holds what those around it hold', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map(lockOf) as [Lock, Lock, Lock];
    const turn = latch();
    const first = a.acquire(() =>
      c.acquire(async () => {
        await turn.opened;
        return b.acquire({ deadlock: 'throw' }, () => 'granted');
      }),
    );
    const second = b.acquire(() => a.acquire({ deadlock: 'throw' }, () => 'granted'));
    turn.open();
    const outcomes = await Promise.allSettled([first, second]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const { reason } = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(LockError);
    expect(reason.code).toBe('ERR_LOCK_DEADLOCK');
    expect(reason.cycle).toHaveLength(3);
    expect(reason.cycle[0]).toEqual(reason.cycle[2]);
    expect(warnings).toEqual([]);
    for (const lock of [a, b, c]) lock.close();
  });

  test.each([
    [
      '`within` the guard of an outer callback',
      'outer',
      (b: SharedLock, of: LockGuard) => b.exclusive({ within: of }),
    ],
    ['to be upgraded in an outer callback', 'b', (_: SharedLock, of: LockGuard) => of.upgrade()],
  ])('whoever waits %s holds what the inner one holds', async (_, name, wait) => {
    const [a, b, outer] = ['a', 'b', name].map((each) => new SharedLock(each, { namespace }));
    const turn = latch();
    const first = outer!.shared((of) =>
      a!.exclusive(async () => {
        await turn.opened;
        (await wait(b!, of))?.release();
      }),
    );
    const second = b!.shared(() => a!.exclusive({ deadlock: 'throw' }, () => 'granted'));
    turn.open();
    await expect(second).rejects.toMatchObject({ code: 'ERR_LOCK_DEADLOCK' });
    await first;
    for (const lock of [a, b, outer]) lock!.close();
  });

  test('a sibling holds nothing of a callback beside it', async () => {
    const [a, b] = ['a', 'b'].map(lockOf) as [Lock, Lock];
    const turn = latch();
    // Two callbacks around nothing in common: one holds a, the other waits for it while it holds b; the first waits for nothing.
    const first = a.acquire(() => turn.opened);
    const second = b.acquire(() => a.acquire(() => 'granted'));
    const third = b.acquire(() => 'granted');
    await sleep(LONG_ENOUGH_MS);
    expect(warnings).toEqual([]);
    turn.open();
    expect(await Promise.all([first, second, third])).toEqual([undefined, 'granted', 'granted']);
    for (const lock of [a, b]) lock.close();
  });

  test('whoever waits `within` a guard holds it', async () => {
    const [a, b] = ['a', 'b'].map(lockOf) as [Lock, Lock];
    const [ofA, ofB] = await Promise.all([a.acquire(), b.acquire()]);
    const first = b.acquire({ within: ofA });
    const second = a.acquire({ within: ofB, deadlock: 'throw' });
    await expect(second).rejects.toMatchObject({ code: 'ERR_LOCK_DEADLOCK' });
    ofB.release();
    (await first).release();
    ofA.release();
    for (const lock of [a, b]) lock.close();
  });

  test('once for a circle that stays, and again for the next one', async () => {
    const [a, b] = ['a', 'b'].map(lockOf) as [Lock, Lock];
    const round = async () => {
      const controller = new AbortController();
      const turn = latch();
      const first = a.acquire(async () => {
        await turn.opened;
        await b.acquire({ signal: controller.signal }, () => {});
      });
      const second = b.acquire(() => a.acquire(() => {}));
      turn.open();
      const count = warnings.length;
      await until(() => warnings.length > count);
      await sleep(LONG_ENOUGH_MS);
      expect(warnings).toHaveLength(count + 1);
      controller.abort(new Error('enough'));
      await expect(first).rejects.toThrow('enough');
      await second;
    };
    await round();
    await round();
    for (const lock of [a, b]) expect(lock.query()).toEqual({ held: [], pending: [] });
    for (const lock of [a, b]) lock.close();
  });
});
