// What `proclock/remote` makes of an engine that answers late, or not at all, or whose sessions end: no hold is left that
// nobody knows of, and nobody believes to hold what may be held by another. The engine is that in memory, behind a line that
// can be cut at both ends.
import { setTimeout as sleep } from 'node:timers/promises';
import type { AcquireEvent } from '../../lib/common/channels';
import { moment } from '../../lib/common/clock';
import { LockError } from '../../lib/common/errors';
import { type Client, Server } from '../../lib/engines/memory/server';
import { acquireAll, type LockGuard, LockManager, lead, SharedLock, SharedRLock } from '../../lib/remote';
import type { Engine, Grant, Leaving, Session, SessionEvents, Slot } from '../../lib/remote/engine';
import { EngineSpace } from '../../lib/remote/space';
import { SuspendedMachine } from '../support/suspended';
import { until } from '../support/until';
import { errorOf, expectError, name, track } from './stage';

/** Lets through what comes, in its order, unless it is shut. */
class Gate {
  private opened: Promise<void> = Promise.resolve();
  private open_ = () => {};

  shut(): void {
    this.opened = new Promise((resolve) => {
      this.open_ = resolve;
    });
  }

  open(): void {
    this.open_();
    this.opened = Promise.resolve();
  }

  pass(): Promise<void> {
    return this.opened;
  }
}

/** How long an answer is waited for. */
const ANSWER_MS = 5000;
const LATER_MS_MAX = 2000;

class Line implements Session, Client {
  readonly clientId = `client ${Math.random()}`;
  readonly pid = process.pid;
  readonly threadId = 0;
  readonly host = 'here';
  /** What the engine has to hear, and what we have to. */
  readonly there = new Gate();
  readonly back = new Gate();
  /** What was asked, in words. */
  readonly asked: string[] = [];
  /** How often each is still refused. */
  readonly refusals = new Map<string, number>();
  refusal = refusal;

  constructor(
    private readonly server: Server,
    readonly events: SessionEvents,
  ) {
    server.enter(this);
  }

  granted(id: number, grant: Grant): void {
    void this.back.pass().then(() => this.events.granted(id, grant));
  }

  robbed(id: number, thief: string): void {
    void this.back.pass().then(() => this.events.robbed(id, thief));
  }

  acquire(slot: Slot, how: 'wait' | 'try' | 'steal') {
    return this.ask('acquire', () => this.server.acquire(this, slot.id, slot.name, slot.mode, how));
  }

  withdraw(slot: Slot) {
    return this.ask('withdraw', () => this.server.withdraw(this, slot.id));
  }

  release(slot: Slot, leaving: Leaving) {
    return this.ask('release', () => this.server.release(this, slot.id, leaving));
  }

  downgrade(slot: Slot, repaired: boolean) {
    return this.ask('downgrade', () => this.server.downgrade(this, slot.id, repaired));
  }

  upgrade(slot: Slot, how: 'wait' | 'try') {
    return this.ask('upgrade', () => this.server.upgrade(this, slot.id, how));
  }

  query(wanted?: string) {
    return this.ask('query', () => this.server.query(wanted));
  }

  marks() {
    return this.ask('marks', () => this.server.marks());
  }

  async close(): Promise<void> {
    this.server.leave(this, false);
  }

  drop(): void {
    this.server.leave(this, true);
  }

  private async ask<T>(what: string, answer: () => T): Promise<T> {
    this.asked.push(what);
    await this.there.pass();
    const refusals = this.refusals.get(what) ?? 0;
    if (refusals > 0) {
      this.refusals.set(what, refusals - 1);
      throw this.refusal;
    }
    const result = answer();
    await this.back.pass();
    return result;
  }
}

class EngineBehindLine implements Engine {
  readonly kind = 'memory';
  readonly namespace = 'default';
  readonly origin = '';
  readonly lines: Line[] = [];
  /** Why it can not be opened. */
  refusal: LockError | undefined;
  attempts = 0;

  constructor(readonly server: Server) {}

  get line(): Line {
    return this.lines[this.lines.length - 1]!;
  }

  async open(events: SessionEvents): Promise<Session> {
    this.attempts++;
    if (this.refusal !== undefined) throw this.refusal;
    const line = new Line(this.server, events);
    this.lines.push(line);
    return line;
  }
}

let server: Server;
let engine: EngineBehindLine;
let space: EngineSpace;
let lock: SharedLock;
/** Of somebody whose line is good. */
let others: SharedLock;
const spaces: EngineSpace[] = [];

function lockOver(over: EngineBehindLine): SharedLock {
  const made = new EngineSpace(over);
  spaces.push(made);
  return new SharedLock(name, { space: made });
}

beforeEach(() => {
  server = new Server();
  engine = new EngineBehindLine(server);
  lock = lockOver(engine);
  space = spaces[0]!;
  others = lockOver(new EngineBehindLine(server));
});

/** The call is aborted while the answer to it is on its way, and the engine hears of that before we hear the answer. */
async function abortAcrossGrant(call: (options: { signal: AbortSignal }) => Promise<unknown>): Promise<void> {
  engine.line.back.shut();
  const controller = new AbortController();
  const { promise } = track(call({ signal: controller.signal }));
  const reason = new Error('changed its mind');
  controller.abort(reason);
  await until(() => engine.line.asked.includes('withdraw'));
  engine.line.back.open();
  expect(await errorOf(() => promise)).toBe(reason);
}

afterEach(async () => {
  for (const line of engine.lines) {
    line.there.open();
    line.back.open();
  }
  for (const one of spaces.splice(0)) await one.close();
});

const state = () => {
  const { held, pending } = server.query(name);
  return [held.map(({ mode }) => mode), pending.map(({ mode }) => mode)];
};
const IDLE = [[], []];

/** Enters the session, so that the next question is asked at once. */
const begin = () => lock.exclusive(() => {});

const refusal = new LockError('ERR_LOCK_CAPACITY', 'not now');
const unavailable = new LockError('ERR_LOCK_UNAVAILABLE', 'nobody listens');

describe('an engine that can not be opened', () => {
  test('an acquire fails when its time is up, with ERR_LOCK_UNAVAILABLE and the cause', async () => {
    engine.refusal = unavailable;
    const error = await errorOf(() => lock.exclusive({ timeout: 120 }));
    expect(error).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_UNAVAILABLE', cause: unavailable });
    expect(engine.attempts).toBeGreaterThan(1);
  });

  test('an abort ends the wait for it', async () => {
    engine.refusal = unavailable;
    const reason = new Error('changed its mind');
    const controller = new AbortController();
    const wait = track(lock.exclusive({ signal: controller.signal }));
    await until(() => engine.attempts > 0);
    controller.abort(reason);
    expect(await errorOf(() => wait.promise)).toBe(reason);
  });

  test('who waits is granted once it can be opened', async () => {
    engine.refusal = unavailable;
    const wait = lock.exclusive();
    await until(() => engine.attempts > 1);
    engine.refusal = undefined;
    await (await wait).release();
  });

  test('what can not get better is said at once, and the next call tries again', async () => {
    engine.refusal = new LockError('ERR_LOCK_UNSUPPORTED', 'too old');
    for (const call of [
      () => lock.exclusive(),
      () => lock.tryShared(),
      () => lock.query(),
      () => space.query(),
    ]) {
      expect(await errorOf(call)).toBe(engine.refusal);
    }
    engine.refusal = undefined;
    await begin();
  });

  test('a space that is closed meanwhile ends the wait', async () => {
    engine.refusal = unavailable;
    const wait = track(lock.exclusive());
    await until(() => engine.attempts > 0);
    await space.close();
    await expectError(() => wait.promise, 'ERR_LOCK_CLOSED');
  });
});

describe('an engine that does not answer', () => {
  test('tries, queries and releases fail within 5 s with ERR_LOCK_UNAVAILABLE, and leave nothing', async () => {
    const guard = await lock.shared();
    engine.line.there.shut();
    const due = sleep(ANSWER_MS).then(() => performance.now());
    const calls = [lock.tryShared(), lock.query(), lock.shared({ timeout: 0 }), guard.release()];
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_LOCK_UNAVAILABLE' } });
    }
    // Of the two that ask for the lock, each also asks to be taken out of the queue.
    const ended = performance.now();
    expect(ended - (await due)).toBeLessThan(LATER_MS_MAX);
    engine.line.there.open();
    await until(() => state().flat().length === 0);
  });

  test('a downgrade that may be done yet leaves the guard shared', async () => {
    const guard = await lock.exclusive();
    engine.line.there.shut();
    const downgraded = guard.downgrade();
    await expectError(() => downgraded, 'ERR_LOCK_UNAVAILABLE');
    expect([guard.mode, guard.released, guard.lost.aborted]).toEqual(['shared', false, false]);
    engine.line.there.open();
    const other = await lock.shared();
    await other.release();
    await guard.release();
    await until(() => state().flat().length === 0);
  });

  test('so does one that is refused, which may have been done all the same', async () => {
    const guard = await lock.exclusive();
    engine.line.refusals.set('downgrade', 1);
    expect(await errorOf(() => guard.downgrade())).toBe(refusal);
    expect([guard.mode, guard.released, guard.lost.aborted]).toEqual(['shared', false, false]);
    await expectError(() => guard.downgrade(), 'ERR_LOCK_NOT_HELD');
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test('one that only says that the session is there is not waited for', async () => {
    const guard = await lock.shared();
    const { line } = engine;
    line.there.shut();
    const beats = setInterval(() => line.events.certainFor(1e6, moment()), 500);
    const due = sleep(ANSWER_MS).then(() => performance.now());
    await expectError(() => guard.release(), 'ERR_LOCK_UNAVAILABLE');
    const ended = performance.now();
    expect(ended - (await due)).toBeLessThan(LATER_MS_MAX);
    clearInterval(beats);
    line.there.open();
    await until(() => state().flat().length === 0);
  });

  test('one that answers others first is waited for', async () => {
    const guard = await lock.shared();
    const { line } = engine;
    line.there.shut();
    const released = track(guard.release());
    for (let second = 0; second < 6; second++) {
      await sleep(1000);
      line.events.answered();
    }
    expect(released.settled).toBe(false);
    line.there.open();
    await released.promise;
    expect(state()).toEqual(IDLE);
  });

  test.each(['there', 'back'] as const)(
    'a timeout that can not be told to it (%s): ERR_LOCK_UNAVAILABLE, and no ghost when it goes on',
    async (side) => {
      await begin();
      engine.line[side].shut();
      await expectError(() => lock.exclusive({ timeout: 10 }), 'ERR_LOCK_UNAVAILABLE');
      engine.line[side].open();
      await until(() => state().flat().length === 0);
      await others.exclusive(() => {});
    },
  );

  test('a timeout that is not told to it in time, while it answers others: ERR_LOCK_TIMEOUT, and no ghost', async () => {
    await begin();
    const theirs = await others.exclusive();
    const { line } = engine;
    const late = new Gate();
    late.shut();
    const withdraw = line.withdraw.bind(line);
    line.withdraw = async (slot) => {
      line.events.answered();
      await late.pass();
      return withdraw(slot);
    };
    const error = await errorOf(() => lock.exclusive({ timeout: 10 }));
    expect(error).toMatchObject({ code: 'ERR_LOCK_TIMEOUT', holders: [{ mode: 'exclusive' }] });
    expect(state()).toEqual([['exclusive'], ['exclusive']]);
    late.open();
    await until(() => state()[1]!.length === 0);
    await theirs.release();
    expect(state()).toEqual(IDLE);
  });

  test.each(['there', 'back'] as const)(
    'an abort that can not be told to it (%s): the reason, and no ghost when it goes on',
    async (side) => {
      await begin();
      engine.line[side].shut();
      const controller = new AbortController();
      const wait = track(lock.exclusive({ signal: controller.signal }));
      const reason = new Error('changed its mind');
      controller.abort(reason);
      expect(await errorOf(() => wait.promise)).toBe(reason);
      engine.line[side].open();
      await until(() => state().flat().length === 0);
      await others.exclusive(() => {});
    },
  );

  test('a handle that is closed meanwhile leaves no ghost', async () => {
    await begin();
    engine.line.back.shut();
    const wait = track(lock.exclusive());
    await until(() => state()[0]!.length === 1);
    lock.close();
    await expectError(() => wait.promise, 'ERR_LOCK_CLOSED');
    engine.line.back.open();
    await until(() => state().flat().length === 0);
  });

  test.each(['there', 'back'] as const)(
    'an upgrade that is aborted (%s) leaves the hold shared',
    async (side) => {
      const guard = await lock.shared();
      engine.line[side].shut();
      const controller = new AbortController();
      const upgraded = track(guard.upgrade({ signal: controller.signal }));
      const reason = new Error('changed its mind');
      controller.abort(reason);
      expect(await errorOf(() => upgraded.promise)).toBe(reason);
      expect(guard.mode).toBe('shared');
      engine.line[side].open();
      await until(async () => {
        const beside = await others.tryShared();
        await beside?.release();
        return beside !== null;
      });
      expect(state()).toEqual([['shared'], []]);
      await guard.release();
      expect(state()).toEqual(IDLE);
    },
  );
});

describe('an answer that crosses', () => {
  test('a grant that crosses the timeout is taken', async () => {
    await begin();
    engine.line.back.shut();
    const wait = lock.exclusive({ timeout: 10 });
    await until(() => engine.line.asked.includes('withdraw'));
    engine.line.back.open();
    await (await wait).release();
    expect(state()).toEqual(IDLE);
  });

  test('who is told that it has to wait when its time is up has waited', async () => {
    await begin();
    const held = await others.exclusive();
    const event = { contended: false } as AcquireEvent;
    engine.line.back.shut();
    const options = { timeout: 20, signal: undefined };
    const wait = track(space.acquire(space.recordOf(name), 'exclusive', 'wait', options, { event }));
    await until(() => engine.line.asked.includes('withdraw'));
    engine.line.back.open();
    await expectError(() => wait.promise, 'ERR_LOCK_TIMEOUT');
    expect(event.contended).toBe(true);
    await held.release();
  });

  test('a grant that crosses the abort is given back before the call rejects', async () => {
    await begin();
    await abortAcrossGrant((options) => lock.exclusive(options));
    expect(state()).toEqual(IDLE);
  });

  test('a grant that is given back clears no mark that nobody has seen', async () => {
    await begin();
    const dead = new EngineBehindLine(server);
    await lockOver(dead).exclusive();
    dead.line.drop();
    await abortAcrossGrant((options) => lock.exclusive(options));
    expect(state()).toEqual(IDLE);
    await others.exclusive(({ abandoned }) => expect(abandoned).not.toBeNull());
  });

  test('an upgrade that crosses the timeout is taken, one that crosses the abort is taken back', async () => {
    for (const aborts of [false, true]) {
      const guard = await lock.shared();
      const asked = engine.line.asked.length;
      engine.line.back.shut();
      const controller = new AbortController();
      const { signal } = controller;
      const upgraded = track(guard.upgrade(aborts ? { signal } : { timeout: 10 }));
      const reason = new Error('changed its mind');
      if (aborts) controller.abort(reason);
      await until(() => engine.line.asked.slice(asked).includes('withdraw'));
      engine.line.back.open();
      if (aborts) expect(await errorOf(() => upgraded.promise)).toBe(reason);
      else await upgraded.promise;
      const mode = aborts ? 'shared' : 'exclusive';
      expect(guard.mode).toBe(mode);
      expect(state()).toEqual([[mode], []]);
      await guard.release();
    }
  });

  test('a refusal of an upgrade that crosses the timeout: the hold stays shared', async () => {
    const theirs = await others.shared();
    const guard = await lock.shared();
    const first = track(theirs.upgrade());
    await until(async () => (await others.tryShared()) === null);
    engine.line.back.shut();
    const upgraded = track(guard.upgrade({ timeout: 10 }));
    await until(() => engine.line.asked.includes('withdraw'));
    engine.line.back.open();
    await expectError(() => upgraded.promise, 'ERR_LOCK_TIMEOUT');
    expect(guard.mode).toBe('shared');
    expect(first.settled).toBe(false);
    await guard.release();
    await first.promise;
    await theirs.release();
    expect(state()).toEqual(IDLE);
  });

  test('an upgrade of a hold that is being upgraded is refused, and says so', async () => {
    const theirs = await others.shared();
    const guard = await lock.shared();
    const first = track(guard.upgrade());
    const error = await errorOf(() => guard.upgrade());
    expect(error).toMatchObject({
      code: 'ERR_LOCK_UPGRADE',
      message: expect.stringContaining('being upgraded already'),
    });
    expect(await guard.tryUpgrade()).toBe(false);
    await theirs.release();
    await first.promise;
    await guard.release();
  });

  test('a session that ends before the answer came: the question is put again in the next one', async () => {
    await begin();
    engine.line.back.shut();
    const wait = lock.exclusive();
    await until(() => state()[0]!.length === 1);
    const first = engine.line;
    first.events.ended(new Error('the cable was cut'));
    first.drop();
    const guard = await wait;
    expect(engine.lines).toHaveLength(2);
    expect(guard.abandoned).not.toBeNull(); // of the hold that nobody knew of
    first.back.open();
    await new Promise(setImmediate);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test('a session that has just begun is asked once by each, whoever comes in that moment', async () => {
    for (let turns = 0; turns < 20; turns++) {
      const one = lockOver(engine);
      const first = one.shared();
      for (let n = 0; n < turns; n++) await null;
      const guards = await Promise.all([first, one.shared()]);
      expect(engine.line.asked.filter((what) => what === 'acquire')).toHaveLength(2);
      for (const guard of guards) await guard.release();
      expect(state()).toEqual(IDLE);
    }
  });

  test('a session that ends while somebody leaves the queue keeps it no longer', async () => {
    await begin();
    engine.line.there.shut();
    const controller = new AbortController();
    const wait = track(lock.exclusive({ signal: controller.signal }));
    const reason = new Error('changed its mind');
    controller.abort(reason);
    await until(() => engine.line.asked.includes('withdraw'));
    expect(wait.settled).toBe(false);
    engine.line.events.ended(new Error('the cable was cut'));
    await new Promise(setImmediate);
    expect(wait.settled).toBe(true);
    expect(await errorOf(() => wait.promise)).toBe(reason);
    engine.line.drop();
  });

  // Each step is one turn of the queue of promises: somewhere the answer is known, and the guard is not yet made.
  test.each(Array.from({ length: 10 }, (_, steps) => steps))(
    'a session that ends %i steps behind a grant that crosses the timeout: no hold, or a lost one',
    async (steps) => {
      await begin();
      const { line } = engine;
      const withdraw = line.withdraw.bind(line);
      const end = async () => {
        for (let step = 0; step < steps; step++) await undefined;
        line.events.ended(new Error('the cable was cut'));
      };
      line.withdraw = async (slot) => {
        const grant = await withdraw(slot);
        void end();
        return grant;
      };
      line.back.shut();
      const wait = track(lock.exclusive({ timeout: 10 }));
      await until(() => line.asked.includes('withdraw'));
      line.back.open();
      const error = await errorOf(async () => (await wait.promise).release());
      expect(['ERR_LOCK_UNAVAILABLE', 'ERR_LOCK_LOST']).toContain((error as LockError).code);
      line.drop();
    },
  );

  test('a release that the engine knows nothing of is a loss', async () => {
    const guard = await lock.exclusive();
    server.leave(engine.line, true);
    server.enter(engine.line);
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
  });
});

describe('an engine that refuses to take something back', () => {
  const untilIdle = () => until(() => state().flat().length === 0);

  test('a release: the caller is told, and it is asked for again, with the same ending', async () => {
    const guard = await lock.exclusive();
    const { line } = engine;
    line.refusals.set('release', 3);
    expect(await errorOf(() => guard.release())).toBe(refusal);
    expect(guard.released).toBe(true);
    expect(state()).toEqual([['exclusive'], []]);
    await untilIdle();
    expect(engine.line).toBe(line);
    await others.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
  });

  test.each(['a timeout', 'an abort', 'a handle that is closed'])(
    'the place of a wait, for %s',
    async (why) => {
      await begin();
      const theirs = await others.exclusive();
      engine.line.refusals.set('withdraw', 2);
      const controller = new AbortController();
      const options = why === 'a timeout' ? { timeout: 20 } : { signal: controller.signal };
      const wait = track(lock.exclusive(options));
      await until(() => state()[1]!.length === 1);
      const reason = new Error('changed its mind');
      if (why === 'an abort') controller.abort(reason);
      if (why === 'a handle that is closed') lock.close();
      const error = await errorOf(() => wait.promise);
      if (why === 'a timeout') expect(error).toBe(refusal);
      if (why === 'an abort') expect(error).toBe(reason);
      expect(state()).toEqual([['exclusive'], ['exclusive']]);
      await until(() => state()[1]!.length === 0);
      await theirs.release();
      expect(state()).toEqual(IDLE);
    },
  );

  test('the place of a wait that is granted meanwhile: the grant is given back', async () => {
    await begin();
    const theirs = await others.exclusive();
    engine.line.refusals.set('withdraw', 2);
    engine.line.refusals.set('release', 1);
    const wait = track(lock.exclusive({ timeout: 20 }));
    expect(await errorOf(() => wait.promise)).toBe(refusal);
    await theirs.release();
    expect(state()).toEqual([['exclusive'], []]);
    await untilIdle();
  });

  test('a grant that crosses the abort', async () => {
    await begin();
    engine.line.back.shut();
    engine.line.refusals.set('release', 2);
    const controller = new AbortController();
    const wait = track(lock.exclusive({ signal: controller.signal }));
    const reason = new Error('changed its mind');
    controller.abort(reason);
    await until(() => engine.line.asked.includes('withdraw'));
    engine.line.back.open();
    expect(await errorOf(() => wait.promise)).toBe(reason);
    expect(state()).toEqual([['exclusive'], []]);
    await untilIdle();
  });

  test.each(['withdraw', 'downgrade'])('an upgrade that is aborted, by `%s`', async (verb) => {
    const guard = await lock.shared();
    const theirs = verb === 'withdraw' ? await others.shared() : undefined;
    engine.line.refusals.set(verb, 2);
    await abortAcrossGrant((options) => guard.upgrade(options));
    await theirs?.release();
    await until(async () => {
      const beside = await others.tryShared();
      await beside?.release();
      return beside !== null;
    });
    expect(state()).toEqual([['shared'], []]);
    await guard.upgrade();
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test('one that never does: the session ends, and all that it has with it', async () => {
    const bystander = new SharedLock('another', { space });
    const beside = await bystander.shared();
    const guard = await lock.exclusive();
    const { line } = engine;
    line.refusals.set('release', Number.POSITIVE_INFINITY);
    const refused = track(guard.release());
    expect(await errorOf(() => refused.promise)).toBe(refusal);
    await until(() => state().flat().length === 0);
    expect(line.asked.filter((what) => what === 'release')).toHaveLength(6);
    expect(beside.lost.reason).toMatchObject({ code: 'ERR_LOCK_LOST', cause: refusal });
    await beside[Symbol.asyncDispose]();
    await begin();
    expect(engine.line).not.toBe(line);
  });

  test('a question that is still on its way is not put again', async () => {
    const guard = await lock.shared();
    engine.line.there.shut();
    await expectError(() => guard.release(), 'ERR_LOCK_UNAVAILABLE');
    await sleep(300);
    expect(engine.line.asked.filter((what) => what === 'release')).toHaveLength(1);
    engine.line.there.open();
    await untilIdle();
  });

  test('a space that is closed meanwhile asks no more', async () => {
    const guard = await lock.exclusive();
    const { line } = engine;
    line.refusals.set('release', Number.POSITIVE_INFINITY);
    expect(await errorOf(() => guard.release())).toBe(refusal);
    await space.close();
    expect(state()).toEqual(IDLE);
    await sleep(200);
    expect(line.asked.filter((what) => what === 'release')).toHaveLength(1);
  });
});

describe('an engine that can not do what it is asked for at the moment, while the session goes on', () => {
  const acquires = (line: Line) => line.asked.filter((what) => what === 'acquire').length;

  /** Enters the session, which refuses so many acquires from now on. */
  async function refuse(times: number, why = unavailable): Promise<Line> {
    await begin();
    const { line } = engine;
    line.refusal = why;
    line.refusals.set('acquire', times);
    line.asked.length = 0;
    return line;
  }

  test('who waits goes on, and is granted when it can', async () => {
    const line = await refuse(3);
    const guard = await lock.exclusive();
    expect(engine.line).toBe(line);
    expect(acquires(line)).toBe(4);
    expect(state()).toEqual([['exclusive'], []]);
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test.each(['granted', 'queued'])('what it has %s nevertheless is given back', async (what) => {
    await begin();
    const theirs = what === 'queued' ? await others.exclusive() : undefined;
    const { line } = engine;
    const acquire = line.acquire.bind(line);
    const slots: number[] = [];
    line.acquire = async (slot, how) => {
      slots.push(slot.id);
      const answer = await acquire(slot, how);
      if (slots.length === 1) throw unavailable;
      return answer;
    };
    const wait = lock.exclusive();
    await until(() => slots.length === 2);
    if (theirs !== undefined) expect(state()).toEqual([['exclusive'], ['exclusive']]);
    await theirs?.release();
    const guard = await wait;
    expect(state()).toEqual([['exclusive'], []]);
    expect(guard.hold.id).toBe(slots[1]);
    expect(new Set(slots).size).toBe(2);
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test('it waits until its time is up, and is told why', async () => {
    const line = await refuse(Number.POSITIVE_INFINITY);
    const error = await errorOf(() => lock.exclusive({ timeout: 200 }));
    expect(error).toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE', cause: unavailable });
    expect(acquires(line)).toBe(2);
  });

  test.each(['an abort', 'a handle that is closed', 'a space that is closed'])(
    'it waits until %s',
    async (why) => {
      const line = await refuse(Number.POSITIVE_INFINITY);
      const controller = new AbortController();
      const wait = track(lock.exclusive({ signal: controller.signal }));
      await until(() => line.asked.includes('withdraw'));
      expect(wait.settled).toBe(false);
      const reason = new Error('changed its mind');
      if (why === 'an abort') controller.abort(reason);
      if (why === 'a handle that is closed') lock.close();
      if (why === 'a space that is closed') await space.close();
      const error = await errorOf(() => wait.promise);
      if (why === 'an abort') expect(error).toBe(reason);
      else expect(error).toMatchObject({ code: 'ERR_LOCK_CLOSED' });
      await sleep(150);
      expect(acquires(line)).toBe(1);
      expect(state()).toEqual(IDLE);
    },
  );

  test('one that does not change its mind is believed in the end, and keeps nothing', async () => {
    const line = await refuse(Number.POSITIVE_INFINITY);
    expect(await errorOf(() => lock.exclusive())).toBe(unavailable);
    expect(acquires(line)).toBe(6);
    expect(state()).toEqual(IDLE);
  });

  test('in another session it asks at once, and only once', async () => {
    const line = await refuse(1);
    const wait = lock.exclusive();
    await until(() => line.asked.includes('withdraw'));
    line.events.ended(new Error('the cable was cut'));
    line.drop();
    const guard = await wait;
    await sleep(150);
    expect([engine.lines.length, acquires(line), acquires(engine.line)]).toEqual([2, 1, 1]);
    await guard.release();
    expect(state()).toEqual(IDLE);
  });

  test('who does not wait is told at once, as is who can not hope', async () => {
    await refuse(2);
    expect(await errorOf(() => lock.tryExclusive())).toBe(unavailable);
    const steal = () => new LockManager({ space }).request(name, { steal: true }, () => {});
    expect(await errorOf(steal)).toBe(unavailable);
    await refuse(1, refusal);
    expect(await errorOf(() => lock.exclusive())).toBe(refusal);
    expect(state()).toEqual(IDLE);
  });
});

describe('several holds that are lost together', () => {
  const cut = () => {
    const { line } = engine;
    line.events.ended(new Error('the cable was cut'));
    line.drop();
  };

  /** What is found in the listener that is told first. */
  async function seenFirst(ofOther: () => Promise<unknown>, lost: AbortSignal): Promise<unknown[]> {
    return new Promise((resolve) => {
      lost.addEventListener('abort', () => void Promise.allSettled([ofOther()]).then(resolve));
    });
  }

  test('who is told first finds the others lost as well', async () => {
    const other = new SharedLock('another', { space });
    for (const look of [
      async (guard: LockGuard) => guard.lost.aborted,
      (guard: LockGuard) => guard.release(),
      (guard: LockGuard) => guard.downgrade(),
    ]) {
      const guards = [await lock.exclusive(), await other.exclusive()];
      const { lost } = guards[1]!;
      const told: boolean[] = [];
      lost.addEventListener('abort', () => told.push(lost.aborted));
      const looked = seenFirst(async () => look(guards[1]!), guards[0]!.lost);
      cut();
      const [result] = (await looked) as [PromiseSettledResult<unknown>];
      if (result.status === 'fulfilled') expect(result.value).toBe(true);
      else expect(result.reason).toMatchObject({ code: 'ERR_LOCK_LOST' });
      expect(told).toEqual([true]);
      for (const guard of guards) await guard[Symbol.asyncDispose]();
    }
  });

  test('a nested acquire in the listener is none: it waits for the next session', async () => {
    const other = new SharedRLock('another', { space });
    const first = await lock.exclusive();
    const second = await other.exclusive();
    const nested = new Promise<LockGuard>((resolve, reject) => {
      first.lost.addEventListener('abort', () => {
        other.exclusive({ within: second }).then(resolve, reject);
      });
    });
    cut();
    const guard = await nested;
    expect(guard.lost.aborted).toBe(false);
    for (const each of [first, second, guard]) await each[Symbol.asyncDispose]();
  });

  test('the guard of several is lost with each, whoever is told first', async () => {
    const other = new SharedLock('another', { space });
    const multi = await acquireAll([lock, other]);
    const robbed = multi.guards[1]!; // it was taken first, by its name
    const seen: boolean[] = [];
    robbed.lost.addEventListener('abort', () => seen.push(multi.lost.aborted));
    void multi.lost;
    engine.line.events.robbed(robbed.hold.id, 'somebody');
    expect(multi.guards.map(({ lost }) => lost.aborted)).toEqual([false, true]);
    expect(seen).toEqual([true]);
    expect(multi.lost.reason).toMatchObject({ code: 'ERR_LOCK_LOST' });
    await multi[Symbol.asyncDispose]();
  });
});

describe('a callback that throws, and whose lock is not given back', () => {
  const failure = new Error('of the callback');
  const work = (before: () => unknown) => async () => {
    await before();
    throw failure;
  };
  const refuseRelease = () => engine.line.refusals.set('release', 1);
  /** The engine knows nothing of what was held. */
  const forget = () => {
    server.leave(engine.line, false);
    server.enter(engine.line);
  };

  test('it is its error that is told', async () => {
    await begin();
    expect(await errorOf(() => lock.exclusive(work(refuseRelease)))).toBe(failure);
    await until(() => state().flat().length === 0);
    expect(await errorOf(() => lead(lock, work(refuseRelease)))).toBe(failure);
    await until(() => state().flat().length === 0);
    expect(await errorOf(() => acquireAll([lock], work(refuseRelease)))).toBe(failure);
    await until(() => state().flat().length === 0);
    const manager = new LockManager({ space });
    expect(await errorOf(() => manager.request(name, work(refuseRelease)))).toBe(failure);
    await until(() => state().flat().length === 0);
  });

  test('not where it returns: then it is the refusal', async () => {
    await begin();
    expect(await errorOf(() => lock.exclusive(refuseRelease))).toBe(refusal);
    await until(() => state().flat().length === 0);
  });

  test('not where the lock was lost', async () => {
    await begin();
    await expectError(() => lock.exclusive(work(forget)), 'ERR_LOCK_LOST');
  });
});

describe('the deadline of the holds', () => {
  const block = (ms: number) => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  };

  test('when it has passed `lost` aborts by itself, and the session is given up', async () => {
    const guard = await lock.exclusive();
    const aborted = new Promise((resolve) => guard.lost.addEventListener('abort', resolve));
    engine.line.events.certainFor(20, moment());
    await aborted;
    expect(guard.lost.reason).toMatchObject({
      code: 'ERR_LOCK_LOST',
      cause: { code: 'ERR_LOCK_UNAVAILABLE' },
    });
    expect((await others.exclusive()).abandoned).not.toBeNull();
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
  });

  test('after an event loop that was blocked it is aborted at the first look', async () => {
    const guard = await lock.exclusive();
    engine.line.events.certainFor(20, moment());
    block(40);
    expect(guard.lost.aborted).toBe(true);
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
  });

  test.each([
    ['release', 'ERR_LOCK_LOST'],
    ['downgrade', 'ERR_LOCK_LOST'],
  ] as const)('so does %s look at it', async (method, code) => {
    const guard = await lock.exclusive();
    engine.line.events.certainFor(20, moment());
    block(40);
    await expectError(() => guard[method](), code);
    await guard[Symbol.asyncDispose]();
  });

  test('an engine that goes on to answer puts it off', async () => {
    const guard = await lock.exclusive();
    const { line } = engine;
    line.events.certainFor(50, moment());
    line.events.certainFor(1e6, moment());
    await sleep(80);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
  });

  test('an answer that comes too late does not put it off', async () => {
    const guard = await lock.exclusive();
    const { line } = engine;
    line.events.certainFor(20, moment());
    block(40);
    line.events.certainFor(1e6, moment());
    expect(guard.lost.aborted).toBe(true);
    await expectError(() => guard.release(), 'ERR_LOCK_LOST');
  });

  describe('counts the time in which the machine was suspended', () => {
    let machine: SuspendedMachine;
    beforeEach(() => {
      machine = new SuspendedMachine();
    });
    afterEach(() => machine.restore());

    test.each([
      ['not lost', 4000, false],
      ['lost', 6000, true],
    ])('%s', async (_, ms, isLost) => {
      const guard = await lock.exclusive();
      engine.line.events.certainFor(5000, moment());
      await machine.suspend(ms);
      expect(guard.lost.aborted).toBe(isLost);
      if (isLost) await expectError(() => guard.release(), 'ERR_LOCK_LOST');
      else await guard.release();
    });

    test('also between the question and the answer that proves it', async () => {
      const guard = await lock.exclusive();
      const asked = moment();
      await machine.suspend(60_000);
      engine.line.events.certainFor(50_000, asked);
      expect(guard.lost.aborted).toBe(true);
      await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    });

    test('and whoever listens hears of it within about a second', async () => {
      const guard = await lock.exclusive();
      const aborted = new Promise((resolve) => guard.lost.addEventListener('abort', resolve));
      engine.line.events.certainFor(600_000, moment());
      await machine.suspend(600_000);
      await aborted;
      await expectError(() => guard.release(), 'ERR_LOCK_LOST');
    });
  });

  test('a grant that comes when it has passed is none: the wait goes on in another session', async () => {
    const theirs = await others.exclusive();
    const wait = track(lock.exclusive());
    await until(() => state()[1]!.length === 1);
    const first = engine.line;
    first.events.certainFor(20, moment());
    const released = theirs.release();
    block(40);
    await released;
    const guard = await wait.promise;
    expect(engine.line).not.toBe(first);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    expect(state()).toEqual(IDLE);
  });
});
