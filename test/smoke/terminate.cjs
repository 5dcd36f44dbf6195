'use strict';
// Workers are terminated while they wait for a lock, while it is granted to them, and while they release it. Neither the
// process nor the lock may suffer from it. `node terminate.cjs [rounds]`; the last line is "N passed, N failed".
const assert = require('node:assert');
const { rmSync } = require('node:fs');
const { join } = require('node:path');
const { isMainThread, parentPort, Worker, workerData } = require('node:worker_threads');
const { SharedLock } = require('proclock');
const { folder } = require('./actors.cjs');

const PATIENCE = { timeout: 60_000 };

if (isMainThread) main(Number(process.argv[2] ?? 1000));
else work(new SharedLock(workerData.name, { namespace: workerData.namespace }));

async function work(lock) {
  parentPort.postMessage('began');
  for (;;) {
    const guard = await lock.exclusive();
    guard.release();
  }
}

async function main(rounds) {
  const namespace = `terminate-${process.pid}-${Date.now().toString(36)}`;
  const begin = async (name) => {
    const worker = new Worker(__filename, { workerData: { name, namespace } });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    return worker;
  };
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const moments = {
    async wait(lock) {
      const guard = lock.exclusiveSync(PATIENCE);
      const worker = await begin(lock.name);
      while (lock.query().pending.length === 0) await pause(1);
      await worker.terminate();
      guard.release();
    },
    async grant(lock, round) {
      const guard = lock.exclusiveSync(PATIENCE);
      const worker = await begin(lock.name);
      while (lock.query().pending.length === 0) await pause(1);
      const ended = round % 2 === 0 ? worker.terminate() : undefined;
      guard.release();
      await (ended ?? worker.terminate());
    },
    async release(lock) {
      const worker = await begin(lock.name);
      await pause(Math.random() * 3);
      await worker.terminate();
    },
  };
  const names = Object.keys(moments);
  const locks = Object.fromEntries(names.map((name) => [name, new SharedLock(name, { namespace })]));
  try {
    for (let round = 0; round < rounds; round++) {
      await Promise.all(
        names.map(async (name) => {
          await moments[name](locks[name], round);
          (await locks[name].exclusive(PATIENCE)).release();
          assert.deepStrictEqual(locks[name].query(), { held: [], pending: [] });
        }),
      );
    }
    console.log(`${rounds} rounds of ${names.join(', ')}\n1 passed, 0 failed`);
  } finally {
    rmSync(join(folder, `proclock-${process.geteuid()}-${namespace}`), { force: true });
  }
}
