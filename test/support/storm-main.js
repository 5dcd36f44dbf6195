'use strict';
// One process of the storm: its main thread, and its workers, use one lock in every way there is, and check whoever else
// is inside by files in a folder that the lock knows nothing of.
//
//   x.<segment>.<pid>.<task>   is there while that thread holds exclusively
//   s.<segment>.<pid>.<task>   is there while that thread holds shared
//   fence.<segment>.<token>    a token that a holder of the other lock, which is stolen now and then, has shown
//
// A segment is named by its inode: when the parent removes it, what is held in it goes on beside its successor. A thread is
// named as the kernel names it. A marker is made after the grant and removed before the release. One of a process that was
// killed, or of a worker that was terminated, stays until its parent has seen it end; nobody believes it any more as soon as
// its thread is gone.
const fs = require('node:fs');
const { join } = require('node:path');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

const DYING_MS = 3000;
const settings = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { folder, namespace, name, workers, exec } = settings;

/** Where descriptors are short for a while, there are some again. */
function patient(fn) {
  return (...args) => {
    for (;;) {
      try {
        return fn(...args);
      } catch (error) {
        if (error.code !== 'EMFILE') throw error;
      }
    }
  };
}
const [readdirSync, readFileSync, rmSync, writeFileSync, appendFileSync] = [
  ...[fs.readdirSync, fs.readFileSync, fs.rmSync, fs.writeFileSync, fs.appendFileSync].map(patient),
];

const me = fs.readlinkSync('/proc/thread-self').replace('/task/', '.');
const counts = {
  ...{
    grants: 0,
    exclusive: 0,
    timeouts: 0,
    aborts: 0,
    busy: 0,
    abandoned: 0,
    steals: 0,
    robbed: 0,
    upgrades: 0,
  },
  ...{ terminations: 0, moves: 0, losses: 0, shortages: 0 },
};
const report = isMainThread
  ? (message) => process.send(message)
  : (message) => parentPort.postMessage(message);

const descriptors = () => readdirSync('/proc/self/fd').map(Number).filter(isOpen);
function isOpen(fd) {
  try {
    return Boolean(fs.fstatSync(fd));
  } catch {
    return false; // that of the listing
  }
}
const own = descriptors();

// From here on it has to get on: what came before was Node's own start.
report({ me, counts });
const { LockManager, SharedLock } = require('../../dist');
const manager = new LockManager({ namespace });

/** Descriptors of ours were closed. */
let lost = false;
const isOver = ({ code }) =>
  code === 'ERR_LOCK_NAMESPACE_REMOVED' || (lost && code === 'ERR_LOCK_UNSUPPORTED');

/** Another event has left too few descriptors, or threads, to open a namespace: that is over soon. */
const isShort = ({ message }) => /\((EMFILE|EAGAIN)\)/.test(message);

/** Somebody stands still inside the latch for longer than there is patience: what was to be done has not been done. */
function isStalled({ code }) {
  if (code !== 'ERR_LOCK_TIMEOUT') return false;
  counts.timeouts++;
  return true;
}

/** The handles, and the segment that they belong to. */
let lock;
let fairLock;
let stolenLock;
let segment;
let self;

/** The inode of the segment that this process has mapped and that still has its name. */
function mappedSegment() {
  const lines = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.endsWith(`-${namespace}`));
  return lines[0]?.split(/\s+/)[4];
}

async function enter() {
  for (;;) {
    try {
      for (const old of [lock, fairLock, stolenLock]) old?.close();
      lock = new SharedLock(name, { namespace });
      segment = mappedSegment();
      fairLock = new SharedLock(name, { namespace, fair: true });
      stolenLock = new SharedLock(`${name}, stolen`, { namespace });
      // Each of them fails if its segment has lost its name. So all three are of the one that was seen in between.
      for (const one of [lock, fairLock, stolenLock]) one.query();
      break;
    } catch (error) {
      if (isShort(error) || isStalled(error)) await nextTurn();
      else if (!isOver(error)) throw error;
    }
  }
  self = {
    shared: join(folder, `s.${segment}.${me}`),
    exclusive: join(folder, `x.${segment}.${me}`),
  };
}

function violation(text) {
  appendFileSync(join(folder, 'violations'), `${me}: ${text}\n`);
}

/** Zombies are dead: they run no more. Nor does one that has become another program. */
function isAlive(pid, task) {
  try {
    if (fs.readlinkSync(`/proc/${pid}/exe`) !== process.execPath) return false;
    const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
    return !['Z', 'X'].includes(stat[stat.lastIndexOf(')') + 2]);
  } catch {
    return false;
  }
}

/** Between the moment in which the locks of a process, or of a worker, are given back and its end there is another. */
function isDying(pid, task) {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (const end = Date.now() + DYING_MS; Date.now() < end; Atomics.wait(never, 0, 0, 5)) {
    if (!isAlive(pid, task)) return true;
  }
  return false;
}

function check(mode) {
  for (const marker of readdirSync(folder)) {
    const [kind, where, pid, task] = marker.split('.');
    if (where !== segment || `${pid}.${task}` === me) continue;
    if (!(kind === 'x' || (kind === 's' && mode === 'exclusive'))) continue;
    if (!isDying(pid, task)) violation(`is inside (${mode}) together with ${marker}`);
  }
}

let owned = 0;
function entered(guard) {
  if (owned++ !== 0 && guard.mode === 'exclusive') violation('is inside twice');
  writeFileSync(self[guard.mode], '');
  check(guard.mode);
  counts.grants++;
  if (guard.mode === 'exclusive') showToken(guard);
}
function showToken(guard) {
  counts.exclusive++;
  if (guard.abandoned) counts.abandoned++;
  const file = join(folder, `token.${segment}`);
  writeFileSync(file, '', { flag: 'a' });
  const last = BigInt(readFileSync(file, 'utf8') || '0');
  // Half written by one that was killed it is smaller, never greater.
  if (guard.token <= last) violation(`token ${guard.token} after ${last}`);
  writeFileSync(file, String(guard.token));
}
function leaving(guard) {
  owned--;
  check(guard.mode);
  rmSync(self[guard.mode], { force: true });
}
function downgrade(guard) {
  writeFileSync(self.shared, '');
  rmSync(self.exclusive, { force: true });
  while (guard.mode === 'exclusive') {
    try {
      guard.downgrade();
    } catch (error) {
      if (!isStalled(error)) throw error;
    }
  }
  check('shared');
}

function upgraded(guard) {
  if (owned !== 1) violation('is inside twice');
  writeFileSync(self.exclusive, '');
  rmSync(self.shared, { force: true });
  check('exclusive');
  counts.upgrades++;
  showToken(guard);
}
function tryUpgrade(guard) {
  try {
    if (!guard.tryUpgrade()) return;
  } catch (error) {
    if (!isOver(error.cause ?? error)) throw error;
    return;
  }
  upgraded(guard);
}
async function upgrade(guard) {
  try {
    await guard.upgrade({ timeout: Math.random() * 100 });
  } catch (error) {
    if (error.code === 'ERR_LOCK_TIMEOUT') counts.timeouts++;
    else if (error.code === 'ERR_LOCK_UPGRADE') counts.busy++;
    else if (!isOver(error.cause ?? error)) throw error;
    return;
  }
  upgraded(guard);
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));
const chance = (part) => Math.random() < part;

function use(guard) {
  entered(guard);
  if (guard.mode === 'shared' && chance(0.3)) tryUpgrade(guard);
  if (guard.mode === 'exclusive' && chance(0.3)) downgrade(guard);
  leaving(guard);
}
async function useLonger(guard) {
  entered(guard);
  await nextTurn();
  if (guard.mode === 'shared' && chance(0.3)) await upgrade(guard);
  if (guard.mode === 'exclusive' && chance(0.3)) {
    downgrade(guard);
    await nextTurn();
  }
  leaving(guard);
}
/** Runs what may fail for a reason that is all right here. */
async function tolerant(fn) {
  try {
    await fn();
  } catch (error) {
    if (error.code === 'ERR_LOCK_TIMEOUT') counts.timeouts++;
    else if (error.name === 'AbortError' || error.name === 'TimeoutError') counts.aborts++;
    else throw error;
  }
}

/** The greatest token that was shown by a holder of the lock that is stolen. Those below it say no more, and go. */
function fence() {
  const shown = readdirSync(folder)
    .map((file) => file.split('.'))
    .filter(([kind, where]) => kind === 'fence' && where === segment)
    .map(([, , token]) => BigInt(token));
  const last = shown.sort((a, b) => Number(a - b)).at(-1) ?? 0n;
  for (const token of shown) {
    if (token < last) rmSync(join(folder, `fence.${segment}.${token}`), { force: true });
  }
  return last;
}

/**
 * Two may be inside of the lock that is stolen, but all but one have been robbed. Whoever finds that a greater token was
 * shown learns from its release that it was.
 */
async function useStolen(it) {
  const guard = await it.exclusive();
  const last = fence();
  writeFileSync(join(folder, `fence.${segment}.${guard.token}`), '');
  await nextTurn();
  const overtaken = fence() > guard.token;
  let robbed = false;
  try {
    guard.release();
  } catch (error) {
    if (error.code !== 'ERR_LOCK_LOST') throw error;
    robbed = true;
    counts.robbed++;
  }
  if ((overtaken || last > guard.token) && !robbed)
    violation(`token ${guard.token} is not robbed, and overtaken`);
  if (last === guard.token) violation(`token ${guard.token} twice`);
  counts.grants++;
}

/** For a way that may find itself robbed, or stopped by the end of the namespace. */
async function moving(fn) {
  try {
    await fn();
  } catch (error) {
    if (!isOver(error)) throw error;
    counts.moves++;
    await enter();
  }
}

const ways = [
  () => useStolen(stolenLock),
  async () => {
    try {
      await manager.request(`${name}, stolen`, { steal: true }, nextTurn);
      counts.steals++;
    } catch (error) {
      if (error.name !== 'AbortError') throw error;
      counts.robbed++;
    }
  },
  (it, mode) => it[mode](useLonger),
  async (it, mode) => {
    const guard = await it[mode]();
    try {
      use(guard);
    } finally {
      guard.release();
    }
  },
  (it, mode) => it[`${mode}Sync`](use),
  (it, mode) => {
    const guard = mode === 'shared' ? it.tryShared() : it.tryExclusive();
    if (guard === null) {
      counts.busy++;
      return nextTurn();
    }
    use(guard);
    guard.release();
  },
  (it, mode) => tolerant(() => it[mode]({ timeout: Math.random() * 4 }, useLonger)),
  (it, mode) => tolerant(() => it[`${mode}Sync`]({ timeout: Math.random() * 4 }, use)),
  (it, mode) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), Math.random() * 4);
    return tolerant(() => it[mode]({ signal: controller.signal }, useLonger));
  },
];

async function hammer() {
  await enter();
  for (let round = 0; ; round++) {
    const it = chance(0.2) ? fairLock : lock;
    const way = ways[Math.floor(Math.random() * ways.length)];
    await moving(() => way(it, chance(0.5) ? 'exclusive' : 'shared'));
    if (round % 16 === 0) {
      report({ me, counts });
      await nextTurn();
    }
  }
}

const failed = (error) => {
  violation(`failed: ${error.stack}`);
  process.exit(3);
};

function startWorker() {
  const worker = new Worker(__filename, { workerData: settings });
  let task;
  worker.on('message', (message) => {
    task = message.me;
    report(message);
  });
  worker.on('error', failed);
  worker.on('exit', () => {
    if (task === undefined) return startWorker();
    for (const marker of readdirSync(folder)) {
      if (marker.endsWith(`.${task}`)) rmSync(join(folder, marker), { force: true });
    }
    report({ me: task, gone: true });
    startWorker();
  });
  setTimeout(
    () => {
      counts.terminations++;
      void worker.terminate();
    },
    300 + Math.random() * 3000,
  );
}

/** What the parent wants to happen to this process. */
const events = {
  exec: () => new Function(exec)(),
  /** As a host does that daemonizes: the numbers are those of its files now. */
  lose() {
    const ours = descriptors().filter((fd) => !own.includes(fd));
    if (ours.length === 0 || busy) return;
    [lost, busy] = [true, true];
    counts.losses++;
    for (const fd of ours) fs.closeSync(fd);
    const opened = [];
    while (opened.length === 0 || opened.at(-1) < Math.max(...ours)) opened.push(fs.openSync('/dev/null'));
    setTimeout(() => {
      for (const fd of opened) fs.closeSync(fd);
      busy = false;
    }, 200);
  },
  'be short of'() {
    if (busy) return;
    busy = true;
    counts.shortages++;
    const taken = [];
    const threads = chance(0.5);
    const refused = process.env.REFUSE ?? '';
    if (threads) {
      process.env.REFUSE = `${refused} pthread_create`;
    } else {
      try {
        for (;;) taken.push(fs.openSync('/dev/null'));
      } catch {}
      fs.closeSync(taken.pop());
    }
    setTimeout(() => {
      process.env.REFUSE = refused;
      for (const fd of taken) fs.closeSync(fd);
      busy = false;
    }, Math.random() * 300);
  },
};
/** One thing at a time. */
let busy = false;

if (isMainThread) {
  process.on('message', (message) => events[message.do]());
  process.on('disconnect', () => process.exit(1));
  for (let n = 0; n < workers; n++) startWorker();
}
hammer().catch(failed);
