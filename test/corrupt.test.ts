// Whatever is in the shared memory of a namespace, whoever uses it neither crashes nor hangs: it works, or fails with a
// LockError. Random values are written over tables, lists and words while two processes use them.
import { randomInt } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { testNamespace } from './support/namespace';
import { Helper, segmentFile, uint32 } from './support/segment';

const SEEDS = process.env.PROCLOCK_CORRUPT_SEED
  ? [Number(process.env.PROCLOCK_CORRUPT_SEED)]
  : [1, 2, 3, 4, randomInt(1_000_000)];
const ROUNDS = 12;
const STEP_MS_MAX = 15_000; // a step is some ten operations, each with a timeout of milliseconds

// native/layout.h. The guard (128..192) and the rwlocks are not touched: what they do with nonsense is the libc's affair.
const PAGE = 4096;
const PROCESSES = PAGE;
const LOCKS = PROCESSES + 2048 * 64;
const STORAGES = LOCKS + 2 ** 18 * 128;
const SLOTS = STORAGES + 2 ** 19 * 64;
const EXTENTS = SLOTS + 2 ** 19 * 64;
const BUCKETS = EXTENTS + 2 ** 20 * 64;
const STORAGE_LINK = 56;

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

/** An offset of a 32-bit word that may be overwritten. */
function place(random: () => number): number {
  const below = (limit: number) => Math.floor(random() * limit);
  const word = (start: number, bytes: number) => start + below(bytes / 4) * 4;
  const places = [
    () => word(64, 4),
    () => word(192, 144),
    () => word(PROCESSES, 4 * 64),
    () => word(LOCKS, 8 * 128),
    () => STORAGES + below(16) * 64 + STORAGE_LINK,
    () => word(SLOTS, 24 * 64),
    () => word(EXTENTS, 16 * 64),
    () => word(BUCKETS, PAGE),
  ];
  return places[below(places.length)]!();
}

function value(random: () => number): number {
  const dice = random();
  if (dice < 0.2) return 0;
  if (dice < 0.6) return Math.floor(random() * 20);
  if (dice < 0.7) return 0xffffffff;
  return Math.floor(random() * 2 ** 32);
}

const user = `
  const { LockError } = require(${JSON.stringify(`${__dirname}/../dist`)});
  const names = ['x', 'y', 'a name that takes more than one entry, and some more than that '.repeat(4)];
  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  const handles = [];
  const counts = {};
  const attempt = async (fn) => {
    try {
      await fn();
      counts.ok = (counts.ok ?? 0) + 1;
    } catch (error) {
      if (!(error instanceof LockError) || !/^ERR_LOCK_/.test(error.code)) throw error;
      counts[error.code] = (counts[error.code] ?? 0) + 1;
    }
  };
  const timeout = 3;
  const lock = () => pick(handles);
  const operations = [
    () => { handles.push(new SharedLock(pick(names) + Math.floor(Math.random() * 5), { namespace })); },
    () => { if (handles.length > 4) handles.shift().close(); },
    async () => { const guard = await lock().exclusive({ timeout }); try { guard.downgrade(); } finally { guard.release(); } },
    async () => { (await lock().shared({ timeout })).release(); },
    () => Promise.all([lock().exclusive({ timeout }, () => {}), lock().shared({ timeout }, () => {})]),
    () => { lock().exclusiveSync({ timeout }).release(); },
    () => { lock().sharedSync({ timeout }).release(); },
    () => { lock().tryExclusive()?.release(); },
    () => { lock().query(); },
  ];
  on.step = async () => {
    for (let n = 0; n < 40; n++) {
      if (handles.length === 0) await attempt(operations[0]);
      if (handles.length !== 0) await attempt(pick(operations));
    }
    return counts;
  };
  on.exit = () => { setImmediate(() => process.exit(0)); };`;

test.each(SEEDS)(
  'with seed %d nobody crashes, nobody hangs, and errors are LockErrors',
  async (seed) => {
    const namespace = testNamespace();
    const random = generator(seed);
    const helpers = [await Helper.start(namespace, user), await Helper.start(namespace, user)];
    for (const helper of helpers) await helper.call('step');
    const watchdog = setTimeout(() => {
      for (const helper of helpers) void helper.end('SIGABRT');
    }, STEP_MS_MAX);
    const fd = openSync(segmentFile(namespace), 'r+');
    try {
      for (let round = 0; round < ROUNDS; round++) {
        watchdog.refresh();
        const steps = Promise.all(helpers.map((helper) => helper.call('step')));
        let stepping = true;
        steps.then(
          () => {
            stepping = false;
          },
          () => {
            stepping = false;
          },
        );
        for (let burst = 0; burst < 3 && stepping; burst++) {
          await sleep(3);
          for (let n = 0; n < 4; n++) writeSync(fd, uint32(value(random)), 0, 4, place(random));
        }
        await steps;
      }
      watchdog.refresh();
      // Whatever is left in there, they can end in good order.
      for (const helper of helpers) await helper.call('exit');
      for (const helper of helpers) expect(await helper.exited).toEqual({ code: 0, signal: null });
    } finally {
      clearTimeout(watchdog);
      closeSync(fd);
      for (const helper of helpers) await helper.end();
    }
  },
  60_000,
);
