// A script that cron starts every minute, and that must not run twice at a time. If the last run is still at it, this one
// ends. If the last run was killed its lock went with it: there is no stale lock file to be removed by hand.
//
//     * * * * *  node import-orders.mjs
//
// Here the program plays cron as well, and starts itself three times.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Lock } from 'proclock';

async function importOrders(work) {
  const guard = new Lock('import-orders').tryAcquire(); // never waits
  if (guard === null) {
    console.log('skipped: the last run is still at it');
    return;
  }
  try {
    console.log(guard.abandoned ? 'running, from the start: the last run was killed' : 'running');
    await work();
  } finally {
    guard.release();
  }
}

/** Starts the script as cron does: a process that has nothing to do with the last one. */
async function start(work) {
  const script = spawn(process.execPath, [fileURLToPath(import.meta.url), work]);
  const exit = once(script, 'exit');
  const [output] = await once(script.stdout.setEncoding('utf8'), 'data');
  console.log(`pid ${script.pid}: ${output.trim()}`);
  return { script, exit, output };
}

switch (process.argv[2]) {
  case 'long':
    await importOrders(() => new Promise(() => setInterval(() => {}, 1000)));
    break;
  case 'short':
    await importOrders(() => {});
    break;
  default: {
    const first = await start('long');
    const second = await start('short');
    first.script.kill('SIGKILL');
    await Promise.all([first.exit, second.exit]);
    const third = await start('short');
    await third.exit;
    const ok = second.output.startsWith('skipped') && third.output.includes('killed');
    process.exitCode = ok ? 0 : 1;
  }
}
