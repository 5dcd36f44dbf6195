// A program that becomes another user after it has opened a lock goes on in the namespace that it entered, for as long as
// anything of it is open: a name never has two holders in one process. Other namespaces are those of the new user.
import { rmSync } from 'node:fs';
import { testNamespace } from './support/namespace';
import { FOLDER, inProcess } from './support/segment';

const NOBODY = 65534;

const isRoot = process.geteuid?.() === 0;
if (!isRoot) console.log('nobody but root can become another user');
const testAsRoot = isRoot ? test : test.skip;

const WAYS = {
  'seteuid()': `process.seteuid(${NOBODY});`,
  'setuid() and setgid()': `process.setgroups([]); process.setgid(${NOBODY}); process.setuid(${NOBODY});`,
};

describe.each(Object.entries(WAYS))('after %s', (_, become) => {
  const outcome = (body: string) => {
    const namespace = testNamespace();
    try {
      const program = `
        const { LockManager } = require(Object.keys(require.cache).find((file) => file.endsWith('dist/index.js')));
        const of = (name) => new SharedLock(name, { namespace });
        ${body}`;
      return inProcess(namespace, program).value;
    } finally {
      for (const name of [`${NOBODY}-${namespace}`, `0-${namespace}.other`]) {
        rmSync(`${FOLDER}/proclock-${name}`, { force: true });
      }
    }
  };

  testAsRoot('a new handle of a name that is open is the same lock', () => {
    const body = `const guard = of('x').exclusiveSync(); ${become}
      const taken = of('x').tryExclusive(); guard.release();
      return [taken, of('x').tryExclusive() !== null];`;
    expect(outcome(body)).toEqual([null, true]);
  });

  testAsRoot('a LockManager and the other classes exclude each other, with names old and new', () => {
    const body = `const manager = new LockManager({ namespace });
      await manager.request('old', () => {}); ${become}
      const seen = [];
      for (const name of ['old', 'new']) {
        await manager.request(name, () => seen.push(of(name).tryExclusive()));
        const guard = of(name).exclusiveSync();
        seen.push(await new LockManager({ namespace }).request(name, { ifAvailable: true }, (lock) => lock));
        seen.push(await manager.request(name, { ifAvailable: true }, (lock) => lock));
        guard.release();
      }
      return seen;`;
    expect(outcome(body)).toEqual([null, null, null, null, null, null]);
  });

  testAsRoot('so is that of a thread that opens its first lock afterwards', () => {
    const body = `const { Worker } = require('node:worker_threads');
      const guard = of('x').exclusiveSync();
      const worker = new Worker(\`
        const { parentPort, workerData } = require('node:worker_threads');
        const { SharedLock } = require(workerData.file);
        parentPort.on('message', () => {
          const lock = new SharedLock('x', { namespace: workerData.namespace });
          parentPort.postMessage(lock.tryExclusive() === null);
        });
        parentPort.postMessage('ready');\`, { eval: true, workerData: { namespace,
          file: Object.keys(require.cache).find((file) => file.endsWith('dist/index.js')) } });
      const next = () => new Promise((resolve) => worker.once('message', resolve));
      await next(); ${become}
      const seen = [];
      for (const release of [() => {}, () => guard.release()]) {
        release();
        const answer = next();
        worker.postMessage('try');
        seen.push(await answer);
      }
      await worker.terminate();
      return seen;`;
    expect(outcome(body)).toEqual([true, false]);
  });

  testAsRoot('waits go on, and holds can be released', () => {
    const body = `const lock = of('x'); const guard = lock.exclusiveSync(); const next = lock.exclusive(); ${become}
      guard.release(); (await next).release(); return of('x').query();`;
    expect(outcome(body)).toEqual({ held: [], pending: [] });
  });

  testAsRoot('a namespace that nothing is open of is that of the new user', () => {
    const body = `of('x').close(); const other = new SharedLock('x', { namespace: namespace + '.other' });
      ${become} of('x').exclusiveSync();
      return require('node:fs').existsSync('/dev/shm/proclock-${NOBODY}-' + namespace);`;
    expect(outcome(body)).toBe(true);
  });
});
