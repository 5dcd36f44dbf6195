// The other side of actor.mjs.
import { openSync } from 'node:fs';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Histogram, nowNs, proclock, sleep } from './measure.mjs';
import { peer } from './peers.mjs';

const locks = new Map();
const held = [];

function lockOf(name, namespace, options) {
  const key = `${namespace}/${name}`;
  if (!locks.has(key)) locks.set(key, new proclock.SharedLock(name, { namespace, ...options }));
  return locks.get(key);
}

/** How each contender acquires and releases. */
const CONTENDERS = {
  // What the processors have to give: nobody excludes anybody.
  'no lock at all': () => ({ acquire: () => null, release: () => {} }),
  'proclock sync': ({ namespace }) => syncLock(lockOf('contended', namespace)),
  'proclock sync, fair': ({ namespace }) => syncLock(lockOf('contended fair', namespace, { fair: true })),
  'proclock async': ({ namespace }) => {
    const lock = lockOf('contended', namespace);
    return {
      acquire: (shared) => (shared ? lock.shared() : lock.exclusive()),
      release: (guard) => guard.release(),
    };
  },
  'flock (fs-ext) sync': ({ file }) => {
    const { flockSync } = peer('fs-ext');
    const fd = openSync(file, 'r+');
    return { acquire: (shared) => flockSync(fd, shared ? 'sh' : 'ex'), release: () => flockSync(fd, 'un') };
  },
  'fs-native-extensions async': ({ file }) => {
    const { waitForLock, unlock } = peer('fs-native-extensions');
    const fd = openSync(file, 'r+');
    return { acquire: (shared) => waitForLock(fd, { shared }), release: () => unlock(fd) };
  },
  'proper-lockfile async': ({ file }) => {
    const { lock } = peer('proper-lockfile');
    const retries = { forever: true, minTimeout: 1, maxTimeout: 1 }; // it polls
    return { acquire: () => lock(file, { retries }), release: (unlock) => unlock() };
  },
};

/** How a task of many has its section, by the kinds of tasks.mjs. */
const TASKS = {
  'exclusive(fn)': (namespace) => {
    const lock = lockOf('tasks', namespace);
    return (section) => lock.exclusive(section);
  },
  'await exclusive()': (namespace) => {
    const lock = lockOf('tasks', namespace);
    return async (section) => {
      const guard = await lock.exclusive();
      await section();
      guard.release();
    };
  },
  'shared(fn)': (namespace) => {
    const lock = lockOf('tasks', namespace);
    return (section) => lock.shared(section);
  },
  '90 % shared(fn)': (namespace) => {
    const lock = lockOf('tasks', namespace);
    let turn = process.pid;
    return (section) => (turn++ % 10 === 0 ? lock.exclusive(section) : lock.shared(section));
  },
  'locks.request(fn)': (namespace) => {
    const locks = new proclock.LockManager({ namespace });
    return (section) => locks.request('tasks', section);
  },
  'async-mutex runExclusive(fn)': () => {
    const mutex = new (peer('async-mutex').Mutex)();
    return (section) => mutex.runExclusive(section);
  },
  'async-lock acquire(fn)': () => {
    const lock = new (peer('async-lock'))({ maxPending: Number.POSITIVE_INFINITY });
    return (section) => lock.acquire('tasks', section);
  },
};

/** What a task does in its section. */
const SECTIONS = {
  empty: async () => {},
  '10 us': async () => {
    for (const end = performance.now() + 0.01; performance.now() < end; );
  },
  awaiting: () => new Promise(setImmediate),
};

function syncLock(lock) {
  return {
    acquire: (shared) => (shared ? lock.sharedSync() : lock.exclusiveSync()),
    release: (guard) => guard.release(),
  };
}

const methods = {
  ready: () => true,
  realPid: () => process.pid,
  open: (name, namespace) => {
    lockOf(name, namespace);
  },
  /** What it takes to enter each of these namespaces, which exist. */
  enter: (name, namespaces) =>
    namespaces.map((namespace) => {
      const beginNs = nowNs();
      lockOf(name, namespace);
      return nowNs() - beginNs;
    }),
  hold: (name, namespace) => {
    const guard = lockOf(name, namespace).exclusiveSync();
    held.push(guard);
    return String(guard.token);
  },
  release: () => {
    for (const guard of held.splice(0)) guard.release();
  },
  /** Waits; tells when it was granted, and what the guard says of the last holder. */
  waitAsync: async (name, namespace) => report(await lockOf(name, namespace).exclusive()),
  waitSync: (name, namespace) => report(lockOf(name, namespace).exclusiveSync()),
  hammer,
  hammerTasks,
  takeSide,
  pingPong,
  beginWaits,
  idle,
};

function report(guard) {
  const grantedNs = nowNs();
  const { token, abandoned } = guard;
  guard.release();
  return { grantedNs, token: String(token), abandonedPid: abandoned?.pid ?? null };
}

/** As many critical sections as possible between two points in time; a section is work, not sleep. */
async function hammer(kind, where, { sectionUs, sharedPart }, beginNs, endNs) {
  const { acquire, release } = CONTENDERS[kind](where);
  const isAsync = kind.includes('async');
  const endMs = performance.now() + (endNs - nowNs()) / 1e6;
  const sharedOfTen = sharedPart * 10;
  const waits = new Histogram();
  let count = 0;
  let turn = process.pid;
  while (nowNs() < beginNs);
  for (let last = performance.now(); last < endMs; count++) {
    const shared = turn++ % 10 < sharedOfTen;
    const guard = isAsync ? await acquire(shared) : acquire(shared);
    let now = performance.now();
    waits.add((now - last) * 1000);
    if (sectionUs > 0) for (const end = now + sectionUs / 1000; now < end; now = performance.now());
    const releasing = release(guard);
    if (releasing !== undefined) await releasing;
    last = now;
  }
  return { count, waits };
}

/** So many tasks that have one section after the other, each as soon as it may, until that point in time. */
async function hammerTasks(kind, namespace, { section, tasks }, beginNs, endNs) {
  const runSection = TASKS[kind](namespace);
  const work = SECTIONS[section];
  const waits = new Histogram();
  let count = 0;
  while (nowNs() < beginNs);
  const startMs = performance.now();
  const endMs = startMs + (endNs - nowNs()) / 1e6;
  const task = async () => {
    while (performance.now() < endMs) {
      const calledMs = performance.now();
      await runSection(() => {
        // Not each: it would cost as much as a section.
        if (count++ % 8 === 0) waits.add((performance.now() - calledMs) * 1000);
        return work();
      });
    }
  };
  await Promise.all(Array.from({ length: tasks }, task));
  return { count, waits, tookNs: (performance.now() - startMs) * 1e6 };
}

/**
 * Hands a baton to and fro. Three locks make two processes take turns, whoever runs when: each of them holds one that the
 * other is going to wait for. First, both sides take what they begin with.
 */
function takeSide(namespace, side) {
  const ring = [0, 1, 2].map((i) => lockOf(`ring ${i}`, namespace));
  baton = ring.map((lock, i) => ({ lock, guard: (side === 0) === (i !== 1) ? lock.exclusiveSync() : null }));
}

let baton = [];

async function pingPong(kind, side, turns, beginNs) {
  const isAsync = kind === 'async';
  const take = async (i) => {
    baton[i].guard = await baton[i].lock.exclusive();
  };
  const takeSync = (i) => {
    baton[i].guard = baton[i].lock.exclusiveSync();
  };
  const give = (i) => {
    baton[i].guard.release();
    baton[i].guard = null;
  };
  while (nowNs() < beginNs) await sleep(1);
  const startedNs = nowNs();
  if (side === 1) {
    if (isAsync) await take(0);
    else takeSync(0);
  }
  // Side 0 gives 0, takes 1, gives 2, takes 0, gives 1, takes 2, and so on; side 1 the same, from 1 on.
  for (let turn = 0, i = side; turn < turns; turn++, i = (i + 2) % 3) {
    give(i);
    const wanted = (i + 1) % 3;
    if (isAsync) await take(wanted);
    else takeSync(wanted);
  }
  const takenNs = nowNs() - startedNs;
  for (const { guard } of baton) guard?.release();
  return takenNs;
}

function beginWaits(name, namespace, count) {
  const lock = lockOf(name, namespace);
  for (let i = 0; i < count; i++) lock.exclusive().catch(() => {}); // they end with this process
}

/** What it costs to do nothing: first the CPU time, then how late the event loop is. */
async function idle(ms) {
  const before = process.cpuUsage();
  await sleep(ms);
  const { user, system } = process.cpuUsage(before);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await sleep(ms / 4);
  delay.disable();
  return {
    cpuMsPerSecond: (user + system) / ms,
    delayUs: { p50: delay.percentile(50) / 1000, p99: delay.percentile(99) / 1000, max: delay.max / 1000 },
  };
}

process.on('message', async ([method, ...args]) => {
  try {
    process.send({ result: (await methods[method](...args)) ?? null });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on('disconnect', () => process.exit());
