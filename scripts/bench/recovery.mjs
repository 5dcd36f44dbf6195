// From the SIGKILL of an exclusive holder to the grant of the lock to a waiter in another process. The kernel needs some
// of that time to take the dead process apart; nobody can be granted the lock before that.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, probe, proclock, sleep, summarize } from './measure.mjs';

const NEW_PID_NAMESPACE = ['unshare', '--pid', '--fork'];
const CASES = {
  'async waiter': { method: 'waitAsync', launcher: [] },
  'sync waiter': { method: 'waitSync', launcher: [] },
  'async waiter, holder in another PID namespace': { method: 'waitAsync', launcher: NEW_PID_NAMESPACE },
};

export async function run({ quick }) {
  const namespace = freshNamespace();
  const kills = quick ? 6 : 50;
  const rows = {};
  const missing = {};
  const lock = new proclock.SharedLock('recovery', { namespace });
  const waiter = await Actor.start();
  try {
    for (const [name, { method, launcher }] of Object.entries(CASES)) {
      const reason = whyNot(launcher);
      if (reason !== null) {
        missing[name] = reason;
        continue;
      }
      const row = { toGrant: [], toExit: [], afterExit: [], wrong: 0 };
      for (let i = 0; i < kills; i++) {
        const holder = await Actor.start(launcher); // one at a time: nothing else runs while it is killed
        const pidSeenByHolder = await holder.call('realPid');
        const token = BigInt(await holder.call('hold', 'recovery', namespace));
        const answer = waiter.call(method, 'recovery', namespace);
        while (lock.query().pending.length === 0) await sleep(1);
        const [sentNs, goneNs] = probe.kill(launcher.length === 0 ? holder.pid : childOf(holder.pid));
        const { grantedNs, token: granted, abandonedPid } = await answer;
        await holder.end();
        row.toGrant.push((grantedNs - sentNs) / 1e6);
        if (goneNs >= 0) row.toExit.push((goneNs - sentNs) / 1e6);
        if (goneNs >= 0) row.afterExit.push((grantedNs - goneNs) / 1e6);
        if (abandonedPid !== pidSeenByHolder || BigInt(granted) <= token) row.wrong++;
      }
      rows[name] = row;
    }
  } finally {
    await waiter.end();
    lock.close();
    dropNamespace(namespace);
  }
  const figures = Object.entries(rows).map(([kind, { wrong, ...lists }]) => [
    kind,
    { ...Object.fromEntries(Object.entries(lists).map(([name, list]) => [name, summarize(list)])), wrong },
  ]);
  return { cases: Object.fromEntries(figures), missing };
}

/** What keeps this command from starting Node; null if it works. */
function whyNot([command, ...args]) {
  if (command === undefined) return null;
  const { status, stderr, error } = spawnSync(command, [...args, process.execPath, '--version'], {
    encoding: 'utf8',
  });
  return status === 0 ? null : (error?.message ?? stderr.trim());
}

function childOf(pid) {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'));
}
