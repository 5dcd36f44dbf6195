// Waiting costs neither the event loop nor the thread pool, and a process needs two native threads, and per namespace
// one file descriptor and one mapping, whatever it locks.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { SharedLock } from '../lib';
import { startActor } from './support/actor';
import { expectIdle, name, untilPending } from './support/locks';
import { testNamespace } from './support/namespace';
import { isDescriptor, segmentFile } from './support/segment';

const THREADS_MAX = 2;
const WAITS = 10;

const threads = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/task`).map((task) =>
    readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8').trim(),
  );

const ours = (pid: number): string[] => threads(pid).filter((comm) => comm.startsWith('proclock'));

const descriptors = (pid: number, file: string): number =>
  readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return isDescriptor(fd) && readlinkSync(`/proc/${pid}/fd/${fd}`) === file;
    } catch {
      return false; // closed meanwhile
    }
  }).length;

/** Parts of one mapping whose protection or flags differ are lines of their own: counted are those that begin the file. */
const mappings = (pid: number, file: string): number =>
  readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .filter((line) => line.endsWith(` ${file}`) && line.split(' ')[2] === '00000000').length;

test('ten pending waits leave a thread pool of one thread, and the timers, to others', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const guard = lock.exclusiveSync();
  const actor = await startActor('fork', { namespace, env: { UV_THREADPOOL_SIZE: '1' } });
  const waits = [];
  for (let n = 0; n < WAITS; n++) {
    waits.push(await actor.queue({ name, as: `guard ${n}`, mode: n % 2 ? 'exclusive' : 'shared' }));
  }
  await untilPending(lock, WAITS);
  const done = await actor.run<number>(`
    const { readFile } = require('node:fs/promises');
    const { setTimeout: sleep } = require('node:timers/promises');
    let done = 0;
    for (let n = 0; n < 50; n++) {
      await Promise.all([readFile('/proc/self/stat'), sleep(1), new Promise((resolve) => setImmediate(resolve))]);
      done++;
    }
    await new Promise((resolve) => require('node:crypto').pbkdf2('a', 'b', 10, 10, 'sha1', resolve));
    return done;`);
  expect(done).toBe(50);
  expect(waits.some(({ settled }) => settled)).toBe(false);
  guard.release();
  for (const [n, { promise }] of waits.entries()) {
    await promise;
    await actor.release(`guard ${n}`);
  }
  expectIdle(lock);
  lock.close();
});

test('two native threads at most, whatever is waited for, in how many names, namespaces and threads', async () => {
  const namespaces = [testNamespace(), testNamespace(), testNamespace()];
  const names = Array.from({ length: 20 }, (_, n) => `lock ${n}`);
  const held = namespaces.flatMap((namespace) =>
    names.map((one) => new SharedLock(one, { namespace }).exclusiveSync()),
  );
  const actor = await startActor('fork', { namespace: namespaces[0]! });
  const before = threads(actor.pid).length;
  // Without a wait, none: neither opening nor holding takes a thread.
  await actor.run(
    `globalThis.locks = args.namespaces.flatMap((namespace) =>
       args.names.map((name) => new proclock.SharedLock(name, { namespace })));
     const own = new proclock.SharedLock('own', { namespace: args.namespaces[0] });
     own.exclusiveSync().release();
     (await own.shared()).release();`,
    { names, namespaces },
  );
  expect(ours(actor.pid)).toEqual([]);
  expect(threads(actor.pid)).toHaveLength(before);
  await actor.run(`
    globalThis.waits = globalThis.locks.flatMap((it) => [it.exclusive(), it.shared(), it.exclusive({ timeout: 60_000 })]);`);
  expect(ours(actor.pid).length).toBeLessThanOrEqual(THREADS_MAX);
  expect(threads(actor.pid).length).toBeLessThanOrEqual(before + THREADS_MAX);
  for (const guard of held) guard.release();
  await actor.run('for (const wait of globalThis.waits) (await wait).release();');
  expect(ours(actor.pid).length).toBeLessThanOrEqual(THREADS_MAX);
  for (const guard of held) guard.lock.close();
});

test('one descriptor and one mapping per process and namespace, shared by its worker threads', async () => {
  const namespaces = [testNamespace(), testNamespace()];
  const names = Array.from(
    { length: 200 },
    (_, n) => `lock ${n} with a name that does not fit into its entry`,
  );
  const actor = await startActor('fork', { namespace: namespaces[0]! });
  const source = `
    const { SharedLock } = require(args.dist);
    globalThis.locks = args.namespaces.flatMap((namespace) => args.names.map((name) => new SharedLock(name, { namespace })));
    for (const it of globalThis.locks) it.sharedSync();`;
  const dist = `${__dirname}/../dist`;
  await actor.run(source, { names, namespaces, dist });
  const workers = 3;
  const bodies = await actor.run<number>(
    `const { Worker } = require('node:worker_threads');
     const code = "const args = require('node:worker_threads').workerData;" + args.source +
       "require('node:worker_threads').parentPort.postMessage(1); setInterval(() => {}, 1000);";
     globalThis.workers = Array.from({ length: args.workers }, () => new Worker(code, { eval: true, workerData: args }));
     await Promise.all(globalThis.workers.map((worker) => new Promise((resolve, reject) => {
       worker.once('message', resolve); worker.once('error', reject);
     })));
     return globalThis.workers.length;`,
    { source, workers, names, namespaces, dist },
  );
  expect(bodies).toBe(workers);
  const counts = () =>
    namespaces.map((namespace) => [
      descriptors(actor.pid, segmentFile(namespace)),
      mappings(actor.pid, segmentFile(namespace)),
    ]);
  expect(counts()).toEqual([
    [1, 1],
    [1, 1],
  ]);
  await actor.run('await Promise.all(globalThis.workers.map((worker) => worker.terminate()));');
  expect(counts()).toEqual([
    [1, 1],
    [1, 1],
  ]);
  // The workers' holds are gone, those of the main thread are not.
  const lock = new SharedLock(names[0], { namespace: namespaces[0]! });
  expect(lock.query().held).toHaveLength(1);
  lock.close();
});
