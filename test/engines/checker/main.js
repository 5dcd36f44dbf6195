'use strict';
// One process of the checker: users who take locks at random, and note from when until when they were certain of them. Whatever
// is noted is sent at once, so that it is there when the process is killed.
//
// With a mutant, something that the guarantee rests on is left out; then the checker has to find it.
const { setTimeout: sleep } = require('node:timers/promises');
const { join } = require('node:path');
const DIST = join(__dirname, '../../../dist');
const { SharedLock } = require(join(DIST, 'remote'));

const { opening, seed, users, names, ttlMs, mutant } = JSON.parse(process.env.PROCLOCK_CHECKER);
const [entry, open, args] = opening;

const EXPECTED = new Set([
  'ERR_LOCK_TIMEOUT',
  'ERR_LOCK_LOST',
  'ERR_LOCK_UNAVAILABLE',
  'ERR_LOCK_UPGRADE',
  'ERR_LOCK_CLOSED',
]);

const MUTANTS = {
  /** Nobody gives a hold up by its own clock. */
  'no deadline'() {
    const { Connection } = require(join(DIST, 'remote/connection'));
    Connection.prototype.certainFor = () => {};
  },
};
if (mutant !== undefined) MUTANTS[mutant]();

/** mulberry32. */
function dice(state) {
  return (sides) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

/** Of CLOCK_MONOTONIC, which is one for all processes. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const send = (message) =>
  process.send(JSON.stringify(message, (_, value) => (typeof value === 'bigint' ? String(value) : value)));

let stopping = false;
let lastNumber = 0;
/** When a session began to be opened. The first one is as old as the process. */
const sessions = new WeakMap();

function watchSessions({ engine }) {
  const { open } = engine;
  engine.open = (connection) => {
    sessions.set(connection, now());
    return open.call(engine, connection);
  };
}

/** Notes one hold for as long as it is looked at. */
class Note {
  constructor(name, mode, guard) {
    const { token } = guard;
    const { connection } = guard.hold ?? guard;
    this.guard = guard;
    this.id = `${process.pid}-${++lastNumber}`;
    const from = now();
    this.to = from;
    const session = sessions.get(connection) ?? 0;
    send({ type: 'held', id: this.id, name, mode, token, session, from, to: from });
  }

  /** Whether it is certain at this moment. `guard.lost` is read anew: that looks at the clock, also before a timer could. */
  look() {
    const time = now();
    if (this.guard.lost.aborted) return false;
    this.to = time;
    return true;
  }

  end() {
    send({ type: 'ended', id: this.id, to: this.to, lost: this.guard.lost.aborted });
  }
}

async function hold(note, ms) {
  const end = now() + ms;
  while (note.look() && now() < end) {
    send({ type: 'seen', id: note.id, to: note.to });
    await sleep(1);
  }
}

async function release(note, guard) {
  note.look();
  try {
    await guard.release();
  } finally {
    note.end();
  }
}

/** Mostly short; now and then longer than a lease, so that a fault finds somebody who holds. */
const duration = (roll) => (roll(40) === 0 ? 2 * ttlMs : roll(8));

async function use(name, guard, roll) {
  let note = new Note(name, guard.mode, guard);
  try {
    await hold(note, duration(roll));
    if (guard.mode === 'exclusive' && roll(3) === 0) {
      // Ended when the answer is there: only that proves that nothing had ended the hold before.
      await guard.downgrade();
      note.end();
      note = new Note(name, 'shared', guard);
    } else if (guard.mode === 'shared' && roll(2) === 0) {
      const upgraded =
        roll(2) === 0 ? await guard.tryUpgrade() : await guard.upgrade({ timeout: 40 }).then(() => true);
      if (upgraded) {
        note.end();
        note = new Note(name, 'exclusive', guard);
      }
    }
    await hold(note, duration(roll));
  } finally {
    await release(note, guard);
  }
}

/** As `LockManager.request` with `steal`, which tells no token. */
async function steal(space, name) {
  const theft = { name, asked: now(), token: undefined };
  const id = `${process.pid}-${++lastNumber}`;
  send({ type: 'steals', id, ...theft });
  const taken = await space.acquire(space.recordOf(name), 'exclusive', 'steal', {
    timeout: Infinity,
    signal: undefined,
  });
  send({ type: 'stole', id, token: taken.token });
  const note = new Note(name, 'exclusive', taken);
  await hold(note, 5);
  await release(note, { release: () => taken.leave(true) });
}

async function turn(space, roll) {
  const name = names[roll(names.length)];
  const lock = new SharedLock(name, { space });
  const kind = roll(24);
  if (kind === 0) await lock.query();
  else if (kind === 1) await steal(space, name);
  else {
    const options = {
      timeout: roll(3) === 0 ? roll(60) : 20_000,
      ...(roll(4) === 0 ? { signal: AbortSignal.timeout(1 + roll(60)) } : {}),
    };
    const shared = roll(2) === 0;
    const tries = kind < 6;
    const guard = tries
      ? await (shared ? lock.tryShared() : lock.tryExclusive())
      : await (shared ? lock.shared(options) : lock.exclusive(options));
    if (guard !== null) await use(name, guard, roll);
  }
}

async function user(space, roll) {
  while (!stopping) {
    try {
      await turn(space, roll);
    } catch (error) {
      if (!EXPECTED.has(error.code) && error.name !== 'TimeoutError')
        send({ type: 'failed', error: String(error?.stack) });
      // What can not be reached would be asked for over and over.
      if (error.code === 'ERR_LOCK_UNAVAILABLE') await sleep(20);
    }
    await sleep(roll(3));
  }
}

async function main() {
  const space = await require(join(DIST, entry))[open](...args);
  watchSessions(space);
  process.on('message', () => {
    stopping = true;
  });
  send({ type: 'ready' });
  await Promise.all(Array.from({ length: users }, (_, index) => user(space, dice(seed + index))));
  await space.close();
  send({ type: 'done' });
  process.disconnect();
}

main().catch((error) => send({ type: 'failed', error: String(error?.stack) }));
