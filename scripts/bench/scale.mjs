// Whether the cost of an operation grows with what else is in the namespace, and what memory that takes. Each figure is
// taken together with the same operation in an empty namespace, and their ratio is what counts.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Actor } from './actor.mjs';
import {
  bytesOf,
  dropNamespace,
  freshNamespace,
  nowNs,
  perCall,
  proclock,
  segmentNameOf,
  summarize,
} from './measure.mjs';

const { SharedLock } = proclock;
const PROCESSES = fileURLToPath(new URL('../../build/Release/proclock_bench_processes', import.meta.url));

export async function run({ quick }) {
  return {
    names: await inNamespace((namespace) =>
      names(namespace, quick ? [1, 1000, 20000] : [1, 1000, 20000, 200000], quick),
    ),
    holds: await inNamespace((namespace) =>
      holds(namespace, quick ? [1, 10000] : [1, 100, 10000, 60000], quick),
    ),
    waiters: await inNamespace((namespace) =>
      waiters(namespace, quick ? [1, 100, 1000] : [1, 100, 1000, 10000], quick),
    ),
    processes: await inNamespace((namespace) =>
      processes(namespace, quick ? [1, 100] : [1, 10, 100, 2000], quick),
    ),
    namespaces: await namespaces(quick ? [20, 200] : [20, 200, 1000]),
    opening: await opening(quick ? 20 : 100),
  };
}

async function inNamespace(measure) {
  const namespace = freshNamespace();
  try {
    return await measure(namespace);
  } finally {
    dropNamespace(namespace);
  }
}

/** A pair on a lock of the namespace under test, and on one that is alone in its own. */
async function pairCost(namespace, quick, more = {}) {
  const alone = freshNamespace();
  const lock = new SharedLock('measured', { namespace });
  const control = new SharedLock('measured', { namespace: alone });
  const result = await perCall(
    {
      pair: () => lock.exclusiveSync().release(),
      control: () => control.exclusiveSync().release(),
      ...more,
    },
    quick ? 5 : 15,
  );
  lock.close();
  control.close();
  dropNamespace(alone);
  return { ...result, ratio: result.pair.low / result.control.low };
}

/** What `count` calls take, per call. */
function timed(count, call) {
  const beginNs = nowNs();
  for (let i = 0; i < count; i++) call(i);
  return (nowNs() - beginNs) / count;
}

const nameOf = (i) => `account-${String(i).padStart(8, '0')}`;

/** Names that are open at the same time: the pair, opening one more, memory per name. */
async function names(namespace, counts, quick) {
  const open = [];
  const rows = [];
  new SharedLock('first', { namespace }).close();
  const emptyBytes = bytesOf(namespace);
  for (const count of counts) {
    while (open.length < count) open.push(new SharedLock(nameOf(open.length), { namespace }));
    const bytesEach = (bytesOf(namespace) - emptyBytes) / count;
    const openNs = summarize(
      Array.from({ length: 500 }, (_, i) => {
        const beginNs = nowNs();
        const lock = new SharedLock(`one more ${i}`, { namespace });
        const takenNs = nowNs() - beginNs;
        lock.close();
        return takenNs;
      }),
    );
    rows.push({ count, ...(await pairCost(namespace, quick)), openNs, bytesEach });
  }
  const closeNs = timed(open.length, (i) => open[i].close());
  return { rows, emptyBytes, closeNs, nameBytes: nameOf(0).length };
}

/** Shared guards of one lock that are open at the same time: the pair on another lock, one more of the same. */
async function holds(namespace, counts, quick) {
  const lock = new SharedLock('shared by many', { namespace });
  const guards = [];
  const rows = [];
  const emptyBytes = bytesOf(namespace);
  for (const count of counts) {
    // By await: each is an owner of its own, where nested sync calls would be refused.
    while (guards.length < count) guards.push(await lock.shared());
    const bytesEach = (bytesOf(namespace) - emptyBytes) / count;
    const oneMore = async () => (await lock.shared()).release();
    rows.push({ count, ...(await pairCost(namespace, quick, { oneMore })), bytesEach });
  }
  const releaseNs = timed(guards.length, (i) => guards[i].release());
  lock.close();
  return { rows, releaseNs };
}

/** Waits that are pending on one lock: the pair on another one; what a wait costs to begin, and to be served. */
async function waiters(namespace, counts, quick) {
  const busy = new SharedLock('busy', { namespace });
  const rows = [];
  for (const count of counts) {
    // Of no owner, so that a try of this thread is refused by the lock, not by the rule about nested acquires.
    const guard = await busy.exclusive();
    const waits = [];
    const beginWaitNs = timed(count, () => waits.push(busy.exclusive().then((granted) => granted.release())));
    const refused = () => busy.tryShared();
    const pair = await pairCost(namespace, quick, { refused });
    const beginNs = nowNs();
    guard.release();
    await Promise.all(waits);
    const servedNs = (nowNs() - beginNs) / count;
    rows.push({ count, ...pair, beginWaitNs, servedNs, givenUpNs: await givingUp(busy, count) });
  }
  busy.close();
  return { rows };
}

/** Readers that all give up at once, several times. */
async function givingUp(busy, count) {
  const guard = await busy.exclusive();
  const eachNs = [];
  for (let round = 0; round < 7; round++) {
    const controller = new AbortController();
    const { signal } = controller;
    const waits = Array.from({ length: count }, () => busy.shared({ signal }).catch(() => {}));
    eachNs.push(timed(1, () => controller.abort()) / count);
    await Promise.all(waits);
  }
  guard.release();
  return summarize(eachNs).median;
}

/** A wait in each of so many namespaces. */
async function namespaces(counts) {
  const rows = [];
  for (const count of counts) {
    const locks = Array.from(
      { length: count },
      () => new SharedLock('busy', { namespace: freshNamespace() }),
    );
    const guards = [];
    for (const lock of locks) guards.push(await lock.exclusive());
    const waits = [];
    const beginWaitNs = timed(count, (i) =>
      waits.push(locks[i].exclusive().then((granted) => granted.release())),
    );
    const beginNs = nowNs();
    for (const guard of guards) guard.release();
    await Promise.all(waits);
    rows.push({ count, beginWaitNs, servedNs: (nowNs() - beginNs) / count });
    for (const lock of locks) {
      lock.close();
      dropNamespace(lock.namespace);
    }
  }
  return { rows };
}

/** Processes that are attached to the namespace, each with the measured lock open. */
async function processes(namespace, counts, quick) {
  const started = [];
  const rows = [];
  let attached = 1;
  new SharedLock('first', { namespace }).close();
  const emptyBytes = bytesOf(namespace);
  try {
    for (const count of counts) {
      if (count > attached) started.push(await attend(namespace, 'measured', count - attached));
      attached = count;
      const bytesEach = (bytesOf(namespace) - emptyBytes) / count;
      rows.push({ count, ...(await pairCost(namespace, quick)), bytesEach });
    }
  } finally {
    for (const child of started) {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'exit');
    }
  }
  return { rows };
}

async function attend(namespace, name, count) {
  const child = spawn(PROCESSES, [segmentNameOf(namespace), name, String(count)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [ready] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  if (String(ready) !== 'ready\n') throw new Error(`${count} more processes could not be attached`);
  return child;
}

/** Namespaces: made, entered by a process that was not there before, and what stays of one that nobody is in. */
async function opening(count) {
  const namespaces = Array.from({ length: count }, freshNamespace);
  const visitor = await Actor.start();
  try {
    const createNs = namespaces.map((namespace) =>
      timed(1, () => new SharedLock('first', { namespace }).close()),
    );
    return {
      createNs: summarize(createNs),
      enterNs: summarize(await visitor.call('enter', 'first', namespaces)),
    };
  } finally {
    await visitor.end();
    for (const namespace of namespaces) dropNamespace(namespace);
  }
}
