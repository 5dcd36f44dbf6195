// A process of the benchmark of engines: has locks over an engine, and does what it is told.
import { createRequire } from 'node:module';
import { nowNs, sleep } from '../measure.mjs';

const { SharedLock } = createRequire(import.meta.url)('../../../dist/remote');
let engine;
let target;
let lock;
let guard;
let granted;
let hops;

/** A peer by its name; `null`: proclock. */
async function lockOf(name) {
  if (name !== null) return engine.peers[name](target);
  return {
    acquire: () => lock.exclusive().then((taken) => (guard = taken)),
    release: () => guard.release(),
    close() {},
  };
}

const methods = {
  ready() {},
  async open(module, where, options, name) {
    engine = await import(`./${module}.mjs`);
    target = where;
    lock = new SharedLock(name, { space: await engine.open(where, options) });
  },
  async hold() {
    guard = await lock.exclusive();
  },
  /** Waits for the lock; `granted` tells when it got it. */
  wait() {
    granted = lock.exclusive().then((taken) => {
      guard = taken;
      return nowNs();
    });
  },
  granted: () => granted,
  release: () => guard.release(),
  async listen() {
    let told;
    await engine.hop.listen(target, () => told(nowNs()));
    hops = () => new Promise((resolve) => (told = resolve));
  },
  expect() {
    granted = hops();
  },
  /** How many pairs it does in so many milliseconds. */
  async pairs(name, ms) {
    const one = await lockOf(name);
    const end = performance.now() + ms;
    let count = 0;
    while (performance.now() < end) {
      await one.acquire();
      await one.release();
      count++;
      await sleep(0);
    }
    await one.close();
    return count;
  },
};

process.on('message', ([method, ...args]) => {
  Promise.resolve()
    .then(() => methods[method](...args))
    .then(
      (result) => process.send({ result }),
      (error) => process.send({ error: String(error.stack) }),
    );
});
