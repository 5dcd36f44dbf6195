'use strict';
// One process of the storm: its main thread, and its workers, use one lock in every way there is, and check whoever else
// is inside by files in a folder that the lock knows nothing of.
//
//   x.<pid>.<thread>   is there while that thread holds exclusively
//   s.<pid>.<thread>   is there while that thread holds shared
//
// A marker is made after the grant and removed before the release. One of a process that was killed stays; the parent
// removes it when it has seen the process end, and until then nobody believes it: its process is not alive.
const { readdirSync, readFileSync, rmSync, writeFileSync, appendFileSync } = require('node:fs');
const { join } = require('node:path');
const { Worker, isMainThread, threadId, workerData } = require('node:worker_threads');
const { SharedLock } = require('../../dist');

const DYING_MS = 3000;
const settings = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { folder, namespace, name, workers } = settings;
const lock = new SharedLock(name, { namespace });
const fairLock = new SharedLock(name, { namespace, fair: true });
const me = `${process.pid}.${threadId}`;
const self = { shared: join(folder, `s.${me}`), exclusive: join(folder, `x.${me}`) };
const counts = { grants: 0, exclusive: 0, timeouts: 0, aborts: 0, busy: 0, abandoned: 0 };

const report = isMainThread
  ? (message) => process.send(message)
  : (message) => require('node:worker_threads').parentPort.postMessage(message);

function violation(text) {
  appendFileSync(join(folder, 'violations'), `${me}: ${text}\n`);
}

/** Zombies are dead: they run no more. */
function isAlive(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !['Z', 'X'].includes(stat[stat.lastIndexOf(')') + 2]);
  } catch {
    return false;
  }
}

/** Between the kernel's last look at a process's files, which frees its locks, and its end there is a moment. */
function isDying(pid) {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (const end = Date.now() + DYING_MS; Date.now() < end; Atomics.wait(never, 0, 0, 5)) {
    if (!isAlive(pid)) return true;
  }
  return false;
}

function check(mode) {
  for (const marker of readdirSync(folder)) {
    const [kind, pid, thread] = marker.split('.');
    if (`${pid}.${thread}` === me || !(kind === 'x' || (kind === 's' && mode === 'exclusive'))) continue;
    if (!isDying(pid)) violation(`is inside (${mode}) together with ${marker}`);
  }
}

let owned = 0;
function entered(guard) {
  if (owned++ !== 0 && guard.mode === 'exclusive') violation('is inside twice');
  writeFileSync(self[guard.mode], '');
  check(guard.mode);
  counts.grants++;
  if (guard.mode === 'exclusive') {
    counts.exclusive++;
    if (guard.abandoned) counts.abandoned++;
    const file = join(folder, 'token');
    const last = BigInt(readFileSync(file, 'utf8') || '0');
    // Half written by one that was killed it is smaller, never greater.
    if (guard.token <= last) violation(`token ${guard.token} after ${last}`);
    writeFileSync(file, String(guard.token));
  }
}
function leaving(guard) {
  owned--;
  check(guard.mode);
  rmSync(self[guard.mode], { force: true });
}
function downgrade(guard) {
  writeFileSync(self.shared, '');
  rmSync(self.exclusive, { force: true });
  guard.downgrade();
  check('shared');
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));
const chance = (part) => Math.random() < part;

function use(guard) {
  entered(guard);
  if (guard.mode === 'exclusive' && chance(0.3)) downgrade(guard);
  leaving(guard);
}
async function useLonger(guard) {
  entered(guard);
  await nextTurn();
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

const ways = [
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
  for (let round = 0; ; round++) {
    const it = chance(0.2) ? fairLock : lock;
    await ways[Math.floor(Math.random() * ways.length)](it, chance(0.5) ? 'exclusive' : 'shared');
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

if (isMainThread) {
  process.on('disconnect', () => process.exit(1));
  for (let n = 0; n < workers; n++) {
    const worker = new Worker(__filename, { workerData: settings });
    worker.on('message', report);
    worker.on('error', failed);
  }
}
hammer().catch(failed);
