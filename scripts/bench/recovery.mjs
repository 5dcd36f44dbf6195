// From the SIGKILL of an exclusive holder to the grant of the lock to a waiter in another process. The kernel needs some
// of that time to take the dead process apart; nobody can be granted the lock before that.
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, probe, proclock, sleep, summarize } from './measure.mjs';

const WAITERS = { 'async waiter': 'waitAsync', 'sync waiter': 'waitSync' };

export async function run({ quick }) {
  const namespace = freshNamespace();
  const kills = quick ? 10 : 200;
  const rows = {};
  const lock = new proclock.SharedLock('recovery', { namespace });
  const waiter = await Actor.start();
  let next = Actor.start(); // while one holder is killed, another one starts
  try {
    for (const kind of Object.keys(WAITERS))
      rows[kind] = { toGrant: [], toExit: [], afterExit: [], wrong: 0 };
    for (let i = 0; i < kills; i++) {
      for (const [kind, method] of Object.entries(WAITERS)) {
        const holder = await next;
        next = Actor.start();
        const token = BigInt(await holder.call('hold', 'recovery', namespace));
        const answer = waiter.call(method, 'recovery', namespace);
        while (lock.query().pending.length === 0) await sleep(1);
        const [sentNs, goneNs] = probe.kill(holder.pid);
        const { grantedNs, token: granted, abandonedPid } = await answer;
        rows[kind].toGrant.push((grantedNs - sentNs) / 1e6);
        if (goneNs >= 0) rows[kind].toExit.push((goneNs - sentNs) / 1e6);
        if (goneNs >= 0) rows[kind].afterExit.push((grantedNs - goneNs) / 1e6);
        if (abandonedPid !== holder.pid || BigInt(granted) <= token) rows[kind].wrong++;
      }
    }
  } finally {
    await (await next).end();
    await waiter.end();
    lock.close();
    dropNamespace(namespace);
  }
  return Object.fromEntries(
    Object.entries(rows).map(([kind, { wrong, ...lists }]) => [
      kind,
      { ...Object.fromEntries(Object.entries(lists).map(([name, list]) => [name, summarize(list)])), wrong },
    ]),
  );
}
