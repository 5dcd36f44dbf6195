// Whatever is in the shared memory of a namespace, whoever uses it neither crashes nor hangs: it works, or fails with a
// LockError. Random values are written over tables, lists and words while two processes use them.
import { randomInt } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../lib';
import { startActor } from './support/actor';
import { stall } from './support/disturb';
import { name, testNamespace, until } from './support/namespace';
import { enter, Helper, IN_USE, Layout, readAt, segmentFile, uint32, writeAt } from './support/segment';

const SEEDS = process.env.PROCLOCK_CORRUPT_SEED
  ? [Number(process.env.PROCLOCK_CORRUPT_SEED)]
  : [1, 2, 3, 4, randomInt(1_000_000)];
const ROUNDS = 12; // a namespace each
const STEPS = 3;
const WRITES = [1, 3, 10]; // at a time
const STEP_MS_MAX = 15_000; // a step is some ten operations, each with a timeout of milliseconds

/** Mulberry32: the same numbers for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Writes a word, or a byte, somewhere. */
function scribble(fd: number, random: () => number): void {
  const [from, bytes] = IN_USE[Math.floor(random() * IN_USE.length)]!;
  const at = Math.floor(random() * bytes);
  const written = uint32(value(random));
  if (random() < 0.5) writeSync(fd, written, 0, 1, from + at);
  else writeSync(fd, written, 0, 4, from + (at & ~3));
}

function value(random: () => number): number {
  const dice = random();
  if (dice < 0.2) return 0;
  if (dice < 0.6) return Math.floor(random() * 20);
  if (dice < 0.7) return 0xffffffff;
  return Math.floor(random() * 2 ** 32);
}

const user = `
  const { LockError, LockManager } = require(${JSON.stringify(`${__dirname}/../dist`)});
  const names = ['x', 'y', 'a name that takes more than one entry, and some more than that '.repeat(4)];
  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  let handles = [];
  let current;
  const counts = {};
  const attempt = async (fn) => {
    try {
      await fn();
      counts.ok = (counts.ok ?? 0) + 1;
    } catch (error) {
      if (error.name === 'AbortError') return; // robbed
      if (!(error instanceof LockError) || !/^ERR_LOCK_/.test(error.code)) throw error;
      counts[error.code] = (counts[error.code] ?? 0) + 1;
    }
  };
  const timeout = 3;
  const lock = () => pick(handles);
  const manager = () => new LockManager({ namespace: current });
  const operations = [
    () => { handles.push(new SharedLock(pick(names) + Math.floor(Math.random() * 5), { namespace: current })); },
    () => { if (handles.length > 4) handles.shift().close(); },
    async () => { const guard = await lock().exclusive({ timeout }); try { guard.downgrade(); } finally { guard.release(); } },
    async () => { (await lock().shared({ timeout })).release(); },
    () => Promise.all([lock().exclusive({ timeout }, () => {}), lock().shared({ timeout }, () => {})]),
    () => { lock().exclusiveSync({ timeout }).release(); },
    () => { lock().sharedSync({ timeout }).release(); },
    () => { lock().tryExclusive()?.release(); },
    () => { lock().query(); },
    () => manager().query(),
    () => manager().request(pick(names), { steal: true }, () => {}),
    () => manager().request(pick(names), { signal: AbortSignal.timeout(timeout) }, () => {}).catch((error) => {
      if (error.name !== 'TimeoutError') throw error;
    }),
  ];
  on.enter = (namespace) => {
    for (const handle of handles.splice(0)) handle.close();
    current = namespace;
  };
  on.step = async () => {
    // Where the latch names somebody who lives and is not inside, each takes as long as one has patience with a stopped owner.
    for (let n = 0, end = Date.now() + 2000; n < 150 && Date.now() < end; n++) {
      if (handles.length === 0) await attempt(operations[0]);
      if (handles.length !== 0) await attempt(pick(operations));
    }
    return counts;
  };
  on.touch = async () => {
    if (handles.length !== 0) await attempt(() => { handles[0].query(); });
    await new Promise((resolve) => setTimeout(resolve, 5));
  };
  on.exit = () => { setImmediate(() => process.exit(0)); };`;

test.each(SEEDS)(
  'with seed %d nobody crashes, nobody hangs, and errors are LockErrors',
  async (seed) => {
    const random = generator(seed);
    const helpers = [await Helper.start('', user), await Helper.start('', user)];
    const watchdog = setTimeout(() => {
      for (const helper of helpers) void helper.end('SIGABRT');
    }, STEP_MS_MAX);
    const both = (name: string, value?: unknown) =>
      Promise.all(helpers.map((helper) => helper.call(name, value)));
    // A latch may name somebody who lives and is not inside: only that one can tell, when it comes to it, and a theft, which
    // has no time-out, waits for that. So who is through keeps coming until both are.
    const step = async () => {
      let left = helpers.length;
      return Promise.all(
        helpers.map(async (helper) => {
          const counts = await helper.call('step');
          left--;
          while (left > 0) await helper.call('touch');
          return counts;
        }),
      );
    };
    try {
      for (let round = 0; round < ROUNDS; round++) {
        watchdog.refresh();
        const namespace = testNamespace();
        await both('enter', namespace);
        await step();
        const fd = openSync(segmentFile(namespace), 'r+');
        // What is found stays: from then on nobody does anything there.
        for (let n = 0; n < STEPS; n++) {
          watchdog.refresh();
          const steps = step();
          let stepping = true;
          const stepped = () => {
            stepping = false;
          };
          steps.then(stepped, stepped);
          for (let burst = 0; burst < 3 && stepping; burst++) {
            await sleep(1);
            for (let m = 0; m < WRITES[round % WRITES.length]!; m++) scribble(fd, random);
          }
          await steps;
        }
        closeSync(fd);
      }
      watchdog.refresh();
      // Whatever is left in there, they can end in good order.
      await both('exit');
      for (const helper of helpers) expect(await helper.exited).toEqual({ code: 0, signal: null });
    } finally {
      clearTimeout(watchdog);
      for (const helper of helpers) await helper.end();
    }
  },
  150_000,
);

test('a namespace that is refused is made anew once nobody has a lock open in it, in the same process as well', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const guard = lock.exclusiveSync();
  const waiting = lock.exclusive();
  await until(() => lock.query().pending.length === 1);
  writeAt(segmentFile(namespace), Layout.LATCH, Buffer.from([4, 0, 0, 0, 0, 0, 0, 0]));
  await expect(waiting).rejects.toMatchObject({ code: 'ERR_LOCK_CORRUPT' });
  expect(enter(namespace).code).toBe('ERR_LOCK_CORRUPT');
  guard.release();
  lock.close();
  const open = () => {
    try {
      return new SharedLock(name, { namespace });
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_LOCK_CORRUPT' });
      return undefined;
    }
  };
  // The native thread lets go of it in its own time.
  let anew: SharedLock | undefined;
  await until(() => {
    anew = open();
    return anew !== undefined;
  });
  anew!.exclusiveSync().release();
  anew!.close();
});

test('who dies inside the latch beside nonsense leaves no second grant, and a namespace that is refused stays so', async () => {
  const namespace = testNamespace();
  const file = segmentFile(namespace);
  const long = 'A'.repeat(50); // its rest is in another table
  const holder = await startActor('fork', { namespace });
  await holder.run('lock({ name: args });', long);
  await holder.acquire({ name, mode: 'exclusive' });
  const dying = await stall(namespace);

  const locks = readAt(file, Layout.LOCKS, 64 * 128);
  const entry = Array.from({ length: 64 }, (_, n) => n * 128).find((at) =>
    locks.subarray(at + 64 + 48, at + 128).equals(Buffer.from(long.slice(0, 16))),
  );
  expect(entry).toBeDefined();
  writeAt(file, Layout.LOCKS + entry! + 64 + 4, uint32(999_999)); // where the rest is
  await dying.kill('SIGKILL');

  for (let newcomer = 0; newcomer < 3; newcomer++) expect(enter(namespace).code).toBe('ERR_LOCK_CORRUPT');
  await expect(holder.call('tryAcquire', { name: 'another' })).rejects.toMatchObject({
    code: 'ERR_LOCK_CORRUPT',
  });
  expect(enter(namespace).code).toBe('ERR_LOCK_CORRUPT');

  // As long as somebody is alive in it, and no longer.
  await holder.kill('SIGKILL');
  const first = await startActor('fork', { namespace });
  const grant = await first.acquire({ name, mode: 'exclusive' });
  expect(grant.abandoned).toBeNull();
  expect(enter(namespace).code).toBe('');
  await first.release(name);
});
