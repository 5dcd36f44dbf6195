// The other side of actor.mjs.
import { openSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { nowNs, proclock } from './measure.mjs';
import { peer } from './peers.mjs';

const locks = new Map();
const held = [];

function lockOf(name, namespace, options) {
  const key = `${namespace}/${name}`;
  if (!locks.has(key)) locks.set(key, new proclock.SharedLock(name, { namespace, ...options }));
  return locks.get(key);
}

/** How one pair is made with each contender; a function that returns nothing, or a promise. */
const PAIRS = {
  'proclock sync': ({ namespace }) => {
    const lock = lockOf('contended', namespace);
    return () => lock.exclusiveSync().release();
  },
  'proclock sync, fair': ({ namespace }) => {
    const lock = lockOf('contended fair', namespace, { fair: true });
    return () => lock.exclusiveSync().release();
  },
  'proclock async': ({ namespace }) => {
    const lock = lockOf('contended', namespace);
    return async () => (await lock.exclusive()).release();
  },
  'flock (fs-ext) sync': ({ file }) => {
    const { flockSync } = peer('fs-ext');
    const fd = openSync(file, 'r+');
    return () => {
      flockSync(fd, 'ex');
      flockSync(fd, 'un');
    };
  },
  'fs-native-extensions async': ({ file }) => {
    const { waitForLock, unlock } = peer('fs-native-extensions');
    const fd = openSync(file, 'r+');
    return async () => {
      await waitForLock(fd);
      unlock(fd);
    };
  },
};

const methods = {
  ready: () => true,
  open: (name, namespace) => {
    lockOf(name, namespace);
  },
  hold: (name, namespace) => {
    const guard = lockOf(name, namespace).exclusiveSync();
    held.push(guard);
    return String(guard.token);
  },
  /** Waits; tells when it was granted, and what the guard says of the last holder. */
  waitAsync: async (name, namespace) => report(await lockOf(name, namespace).exclusive()),
  waitSync: (name, namespace) => report(lockOf(name, namespace).exclusiveSync()),
  hammer,
};

function report(guard) {
  const grantedNs = nowNs();
  const { token, abandoned } = guard;
  guard.release();
  return { grantedNs, token: String(token), abandonedPid: abandoned?.pid ?? null };
}

/** As many pairs as possible between two points in time. */
async function hammer(kind, where, beginNs, endNs) {
  const pair = PAIRS[kind](where);
  const isAsync = kind.includes('async');
  const endMs = performance.now() + (endNs - nowNs()) / 1e6;
  while (nowNs() < beginNs);
  let pairs = 0;
  let longestMs = 0;
  for (let last = performance.now(); last < endMs; pairs++) {
    if (isAsync) await pair();
    else pair();
    const now = performance.now();
    longestMs = Math.max(longestMs, now - last);
    last = now;
  }
  return { pairs, longestMs };
}

process.on('message', async ([method, ...args]) => {
  try {
    process.send({ result: (await methods[method](...args)) ?? null });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on('disconnect', () => process.exit());
