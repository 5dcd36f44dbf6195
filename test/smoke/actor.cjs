'use strict';
// A child process that does what its parent tells it over IPC, one step at a time.
const { closeSync, openSync, unlinkSync } = require('node:fs');
const { SharedLock } = require('proclock');

const [namespace] = process.argv.slice(2);
let opened;
let guard;

/** At the first step, and again if that failed. */
function lock() {
  opened ??= new SharedLock('smoke', { namespace });
  return opened;
}

const steps = {
  async exclusive() {
    guard = await lock().exclusive();
  },
  async shared() {
    guard = await lock().shared();
  },
  tryExclusive() {
    guard = lock().tryExclusive();
    return guard !== null;
  },
  release() {
    guard.release();
  },
  /** What it knows of its guard, and whom it sees. */
  look() {
    const pids = (infos) => infos.map(({ pid }) => pid);
    const { held, pending } = lock().query();
    const { abandoned = null, token = 0n } = guard ?? {};
    return {
      abandoned: abandoned?.pid ?? null,
      token: `${token}`,
      held: pids(held),
      pending: pids(pending),
    };
  },
  /** Releases when somebody waits. */
  async yield() {
    while (lock().query().pending.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    guard.release();
  },
  /** Takes the lock over and over; the file exists while somebody has it. Ends with an error, or by being killed. */
  async loop(file) {
    process.send({ began: true });
    for (;;) {
      guard = await lock().exclusive();
      if (guard.abandoned) unlinkIfThere(file);
      closeSync(openSync(file, 'wx'));
      unlinkSync(file);
      guard.release();
    }
  },
};

function unlinkIfThere(file) {
  try {
    unlinkSync(file);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
}

process.on('disconnect', () => process.exit());
process.on('message', async ([step, argument]) => {
  try {
    process.send({ result: (await steps[step](argument)) ?? null });
  } catch (error) {
    process.send({ error: `${step}: ${error.stack}`, code: error.code });
  }
});
process.send({ ready: true });
