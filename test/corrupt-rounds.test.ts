// Another process writes random bytes into every part of a segment that is in use, libc's rwlocks included, while processes
// acquire, wait, time out, query and release in it: no signal, no hang, and every failure is a LockError with a code that is
// documented. Many short rounds, each in a namespace of its own, since what is found stays. The processes live for all of them.
//
//   PROCLOCK_CORRUPT_ROUNDS=n   so many instead of 1,000
//   PROCLOCK_CORRUPT_SEED=n     with this seed. It does what it did, though not at the same moments
import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { name } from './support/locks';
import { allowPerTest, testNamespace } from './support/namespace';
import { Helper, IN_USE, Layout, segmentFile } from './support/segment';

const ROUNDS = Number(process.env.PROCLOCK_CORRUPT_ROUNDS ?? 1000);
const SEED = Number(process.env.PROCLOCK_CORRUPT_SEED ?? randomInt(1_000_000));
const USERS = 3;
const AT_ONCE = 6; // rounds: they mostly wait
const BATCH_MS_MAX = 20_000; // some ten milliseconds, and a second with an owner of the latch that is not inside (latch.h)
const MS_MAX = Math.max(100_000, ROUNDS * 100);
allowPerTest(MS_MAX);

/** Mulberry32: the same numbers for the same seed. */
const dice = `
  const diceOf = (seed) => {
    let state = seed;
    const random = () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
    const below = (n) => Math.floor(random() * n);
    return { random, below, pick: (list) => list[below(list.length)] };
  };`;

const user = `
  const { LockError, LockManager } = require(${JSON.stringify(`${__dirname}/../dist`)});
  const CODES = new Set(${JSON.stringify([
    'ERR_LOCK_TIMEOUT',
    'ERR_LOCK_NOT_REENTRANT',
    'ERR_LOCK_UPGRADE',
    'ERR_LOCK_NOT_HELD',
    'ERR_LOCK_LOST',
    'ERR_LOCK_WOULD_DEADLOCK',
    'ERR_LOCK_CLOSED',
    'ERR_LOCK_CAPACITY',
    'ERR_LOCK_NO_SPACE',
    'ERR_LOCK_INCOMPATIBLE',
    'ERR_LOCK_CORRUPT',
    'ERR_LOCK_NAMESPACE_REMOVED',
  ])});
  ${dice}
  const counts = {};
  const count = (what) => { counts[what] = (counts[what] ?? 0) + 1; };
  const attempt = async (fn) => {
    try {
      await fn();
      count('ok');
    } catch (error) {
      if (!(error instanceof LockError) || !CODES.has(error.code)) {
        if (error.name !== 'AbortError') throw error; // robbed
      }
      count(error.code);
    }
  };
  const NAMES = [${JSON.stringify(name)}, 'y', 'a name that takes more than one entry, and some more than that '.repeat(4)];
  const rooms = new Map();
  const enter = async (namespace, seed) => {
    const { random, pick, below } = diceOf(seed);
    const room = { handles: [], kept: [], manager: new LockManager({ namespace }) };
    rooms.set(namespace, room);
    const timeout = 2;
    const lock = () => pick(room.handles);
    const open = () => { room.handles.push(new SharedLock(pick(NAMES) + below(3), { namespace })); };
    const keep = async (guard) => {
      const held = await guard;
      if (held) room.kept.push(held);
    };
    const leave = () => { room.kept.splice(below(room.kept.length), 1)[0]?.release(); };
    room.operations = [
      open,
      () => { if (room.handles.length > 4) room.handles.shift().close(); },
      () => keep(lock().exclusive({ timeout })),
      () => keep(lock().shared({ timeout })),
      () => keep(lock().tryShared()),
      leave, leave, leave,
      () => Promise.all([lock().exclusive({ timeout }, () => {}), lock().shared({ timeout }, () => {})]),
      async () => { const guard = await lock().exclusive({ timeout }); try { guard.downgrade(); } finally { guard.release(); } },
      () => { lock().exclusiveSync({ timeout: 1 }).release(); },
      () => { lock().query(); },
      () => room.manager.query(),
      () => room.manager.request(pick(NAMES) + 0, { steal: true }, () => {}),
    ];
    room.pick = () => (room.handles.length === 0 ? open : pick(room.operations));
    for (let n = 0; n < 3; n++) await attempt(open);
    for (let n = 0; n < 4; n++) await attempt(room.pick());
  };
  const work = async (namespace) => {
    const room = rooms.get(namespace);
    const chain = async () => { for (let n = 0; n < 20; n++) await attempt(room.pick()); };
    await Promise.all([chain(), chain()]);
  };
  const leave = async (namespace) => {
    const { handles, kept } = rooms.get(namespace);
    rooms.delete(namespace);
    for (const guard of kept) await attempt(() => guard.release());
    for (const handle of handles) await attempt(() => handle.close());
  };
  on.enter = ({ namespaces, seed }) => Promise.all(namespaces.map((one, n) => enter(one, seed + n)));
  on.work = (namespaces) => Promise.all(namespaces.map(work));
  on.leave = async (namespaces) => {
    for (const one of namespaces) await leave(one);
    return counts;
  };
  on.exit = () => { setImmediate(() => process.exit(0)); };`;

const writer = `
  const { openSync, readSync, writeSync, closeSync } = require('node:fs');
  const { setTimeout: sleep } = require('node:timers/promises');
  ${dice}
  const write = async (file, seed) => {
    const { random, below, pick } = diceOf(seed);
    const value = () => pick([0, below(20), below(20), below(20), below(512), 0xffffffff - below(3), below(2 ** 32), below(2 ** 32)]);
    const bytes = Buffer.alloc(8);
    const favourite = below(args.parts.length);
    const [bursts, size, mends] = [1 + below(12), pick([1, 2, 4, 30]), random() < 0.5];
    const fd = openSync(file, 'r+');
    for (let n = 0; n < bursts; n++) {
      for (let m = 0; m < size; m++) {
        const [from, length] = args.parts[random() < 0.5 ? favourite : below(args.parts.length)];
        const at = below(length);
        bytes.writeUInt32LE(value());
        if (random() < 0.5) writeSync(fd, bytes, 0, 1, from + at);
        else writeSync(fd, bytes, 0, 4, from + (at & ~3));
      }
      // What is found ends the namespace, and what comes behind it is to be met as well.
      if (mends && random() < 0.5) {
        bytes.writeBigUInt64LE(pick([0n, 2n]));
        writeSync(fd, bytes, 0, 8, args.latch);
      }
      if (random() < 0.7) await sleep(random() < 0.5 ? 0 : 1);
    }
    // A latch that names a user who has nothing more to do here stays with that one, and others wait for it as for one
    // that is stopped: without end, where they have no timeout. Nobody real is in there for so long.
    for (let last = 0n, same = 0; same < 3; await sleep(2)) {
      readSync(fd, bytes, 0, 8, args.latch);
      const owner = bytes.readBigUInt64LE() >> 3n;
      same = owner === last ? same + 1 : 0;
      last = owner;
      if (owner === 0n || same < 3) continue;
      bytes.writeBigUInt64LE(4n);
      writeSync(fd, bytes, 0, 8, args.latch);
    }
    closeSync(fd);
  };
  const args = ${JSON.stringify({ parts: IN_USE, latch: Layout.LATCH })};
  on.write = ({ files, seed }) => Promise.all(files.map((one, n) => write(one, seed + n)));
  on.exit = () => { setImmediate(() => process.exit(0)); };`;

test(`in ${ROUNDS} rounds (seed ${SEED}) nobody crashes, nobody hangs, and errors are LockErrors`, async () => {
  const all: Helper[] = [];
  const watchdog = setTimeout(() => {
    for (const helper of all) void helper.end('SIGABRT');
  }, BATCH_MS_MAX);
  const start = async (body: string) => {
    const helper = await Helper.start('', body);
    all.push(helper);
    return helper;
  };
  /** Who ends meanwhile does not answer any more. */
  const call = <T>(helper: Helper, command: string, value?: unknown) =>
    Promise.race([
      helper.call(command, value) as Promise<T>,
      helper.exited.then(({ code, signal }) => Promise.reject(new Error(`ended with ${signal ?? code}`))),
    ]);
  const each = <T>(command: string, value: (n: number) => unknown) =>
    Promise.all(users.map((helper, n) => call<T>(helper, command, value(n))));
  const users: Helper[] = [];
  const sums: Record<string, number> = {};
  try {
    const writing = await start(writer);
    for (let n = 0; n < USERS; n++) users.push(await start(user));
    let counts: Array<Record<string, number>> = [];
    for (let round = 0; round < ROUNDS; round += AT_ONCE) {
      watchdog.refresh();
      const namespaces = Array.from({ length: Math.min(AT_ONCE, ROUNDS - round) }, () => testNamespace());
      const files = namespaces.map((namespace) => segmentFile(namespace));
      const seed = SEED + round * 1000;
      await each('enter', (n) => ({ namespaces, seed: seed + n * 100 }));
      await Promise.all([
        each('work', () => namespaces),
        call(writing, 'write', { files, seed: seed + USERS * 100 }),
      ]);
      counts = await each('leave', () => namespaces);
      for (const file of files) rmSync(file, { force: true });
    }
    for (const [what, n] of counts.flatMap(Object.entries)) sums[what] = (sums[what] ?? 0) + n;
    for (const helper of all) void helper.call('exit').catch(() => {});
    for (const helper of all) expect(await helper.exited).toEqual({ code: 0, signal: null });
  } finally {
    clearTimeout(watchdog);
    for (const helper of all) await helper.end();
  }
  // Both have been met: a namespace that goes on to work, and one in which something was found.
  expect(sums.ok).toBeGreaterThan(ROUNDS);
  expect(sums.ERR_LOCK_CORRUPT).toBeGreaterThan(0);
});
