// Whether the cost of an operation grows with what else is in the namespace. Each figure is taken together with the same
// operation in an empty namespace, and their ratio is what counts.
import { Actor } from './actor.mjs';
import { bytesOf, dropNamespace, freshNamespace, nowNs, perCall, proclock, summarize } from './measure.mjs';

const { SharedLock } = proclock;

export async function run({ quick }) {
  return {
    names: await names(quick ? [1, 1000, 20000] : [1, 1000, 20000, 200000], quick),
    waiters: await waiters(quick ? [10, 1000] : [10, 100, 1000, 10000], quick),
    processes: await processes(quick ? [1, 8] : [1, 10, 50], quick),
  };
}

/** A pair on a lock of the namespace under test, and on one that is alone in its own. */
async function pairCost(namespace, quick) {
  const alone = freshNamespace();
  const lock = new SharedLock('measured', { namespace });
  const control = new SharedLock('measured', { namespace: alone });
  const result = await perCall(
    {
      pair: () => lock.exclusiveSync().release(),
      control: () => control.exclusiveSync().release(),
    },
    quick ? 5 : 15,
  );
  lock.close();
  control.close();
  dropNamespace(alone);
  return { ...result, ratio: result.pair.median / result.control.median };
}

/** Names that are open at the same time: the pair, opening one more, memory per name. */
async function names(counts, quick) {
  const namespace = freshNamespace();
  const open = [];
  const rows = {};
  new SharedLock('first', { namespace }).close();
  const emptyBytes = bytesOf(namespace);
  try {
    for (const count of counts) {
      while (open.length < count) open.push(new SharedLock(`account-${open.length}`, { namespace }));
      const bytesPerName = (bytesOf(namespace) - emptyBytes) / count;
      const openNs = summarize(Array.from({ length: 500 }, (_, i) => openOnce(namespace, i)));
      rows[count] = { ...(await pairCost(namespace, quick)), openNs, bytesPerName };
    }
    rows.emptyNamespaceBytes = emptyBytes;
    const beginNs = nowNs();
    for (const lock of open) lock.close();
    rows.closeNs = (nowNs() - beginNs) / open.length;
  } finally {
    dropNamespace(namespace);
  }
  return rows;
}

function openOnce(namespace, i) {
  const beginNs = nowNs();
  const lock = new SharedLock(`one more ${i}`, { namespace });
  const takenNs = nowNs() - beginNs;
  lock.close();
  return takenNs;
}

/** Waits that are pending on one lock: the pair on another one; what a wait costs to begin, and to be served. */
async function waiters(counts, quick) {
  const namespace = freshNamespace();
  const busy = new SharedLock('busy', { namespace });
  const rows = {};
  try {
    for (const count of counts) {
      // Of no owner, so that a try of this thread is refused by the lock, not by the rule about nested acquires.
      const guard = await busy.exclusive();
      let beginNs = nowNs();
      const waits = Array.from({ length: count }, async () => (await busy.exclusive()).release());
      const beginWaitNs = (nowNs() - beginNs) / count;
      const refused = await perCall({ refused: () => busy.tryShared() }, quick ? 2 : 5);
      const pair = await pairCost(namespace, quick);
      beginNs = nowNs();
      guard.release();
      await Promise.all(waits);
      rows[count] = { ...pair, ...refused, beginWaitNs, servedNs: (nowNs() - beginNs) / count };
    }
  } finally {
    busy.close();
    dropNamespace(namespace);
  }
  return rows;
}

/** Processes that are attached to the namespace, each with the measured lock open. */
async function processes(counts, quick) {
  const namespace = freshNamespace();
  const actors = [];
  const rows = {};
  try {
    for (const count of counts) {
      while (actors.length + 1 < count) {
        const actor = await Actor.start();
        actors.push(actor);
        await actor.call('open', 'measured', namespace);
      }
      rows[count] = await pairCost(namespace, quick);
    }
  } finally {
    await Promise.all(actors.map((actor) => actor.end()));
    dropNamespace(namespace);
  }
  return rows;
}
