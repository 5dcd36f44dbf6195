// One participant: a forked child, a cluster worker or a worker thread, which writes or audits until it is told to stop.
//
// Commands: `stop`, and `tear`: write the next entry by half, say so, and wait to be killed.
// Reports:  `ready`, `progress`, `told` (a hold began with `abandoned` set), `half-written`, `done`, `failed`.
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, threadId, workerData } from 'node:worker_threads';
import { Ledger } from './ledger.mjs';
import { enter } from './world.mjs';

const REPORT_MS = 100;
const PATIENCE_MS = 5000; // whoever waits longer than this is stuck
const WRITER_PAUSE_MS = 2;
const AUDITOR_PAUSE_MS = 40;
const FOREVER = new Promise(() => {});

const { role, number, path, place } = isMainThread ? JSON.parse(process.env.PROCLOCK_DEMO) : workerData;
const report = isMainThread
  ? (message) => process.send(message)
  : (message) => parentPort.postMessage(message);
const ledger = await Ledger.open(path);
const { lock, close } = await enter(place);

let stopping = false;
let tearing = false;
let count = 0;

function obey(command) {
  if (command === 'stop') stopping = true;
  if (command === 'tear') tearing = true;
}

/** The first thing to do with a guard: was the last exclusive holder able to finish? */
async function heed(guard, at) {
  const torn = await ledger.tornBytes();
  if (guard.abandoned === null) {
    if (torn > 0) throw new Error('found a torn entry, and was not told that somebody died');
    return;
  }
  // Shared holders may only look. An exclusive one repairs, and by releasing says that all is well again.
  const cut = guard.mode === 'exclusive' ? await ledger.repair() : 0;
  report({ type: 'told', at, mode: guard.mode, token: guard.token, abandoned: guard.abandoned, torn, cut });
}

async function write(guard) {
  await heed(guard, process.hrtime.bigint());
  await ledger.append(number, guard.token, async () => {
    if (!tearing) return;
    report({ type: 'half-written', count });
    await FOREVER;
  });
  count++;
}

async function audit(guard) {
  await heed(guard, process.hrtime.bigint());
  const found = await ledger.audit();
  if (found.token > guard.token)
    found.problems.push('an entry has a greater token than the last exclusive holder');
  if (found.problems.length > 0) throw new Error(found.problems.join('; '));
  count++;
}

async function work() {
  const timeout = PATIENCE_MS;
  while (!stopping) {
    if (role === 'writer') await lock.exclusive({ timeout }, write);
    else await lock.shared({ timeout }, audit);
    await sleep(Math.random() * 2 * (role === 'writer' ? WRITER_PAUSE_MS : AUDITOR_PAUSE_MS));
  }
}

if (isMainThread) {
  process.on('message', obey);
  process.on('disconnect', () => process.exit());
  process.on('SIGINT', () => {}); // Ctrl-C reaches the whole group: the main process decides
} else {
  parentPort.on('message', obey);
}
report({ type: 'ready', threadId });
const reporting = setInterval(() => report({ type: 'progress', count }), REPORT_MS);
try {
  await work();
  report({ type: 'done', count });
} catch (error) {
  report({ type: 'failed', message: error.stack });
}
clearInterval(reporting);
await close();
await ledger.close();
if (isMainThread) process.disconnect();
else parentPort.close();
