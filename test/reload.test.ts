// A copy of the package that was loaded anew and that nobody uses any more is garbage, with all that it has natively: hot
// reload, and the module registry that a test runner has for each file. One that is still in use is not.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { name, testNamespace } from './support/namespace';
import { DIST } from './support/segment';

const ROOT = join(__dirname, '..');

/** Runs in a process of its own, which can load copies and collect garbage: what it returns. */
function withCopies(body: string): unknown {
  const program = `
    const [name, namespace] = ${JSON.stringify([name, testNamespace()])};
    const turn = () => new Promise((resolve) => setTimeout(resolve, 10));
    const load = () => {
      for (const key of Object.keys(require.cache)) if (key.startsWith(${JSON.stringify(DIST)})) delete require.cache[key];
      const copy = require(${JSON.stringify(DIST)});
      for (const key of Object.keys(require.cache)) if (key.startsWith(${JSON.stringify(DIST)})) delete require.cache[key];
      module.children.length = 0;
      return copy;
    };
    const until = async (condition) => {
      for (let i = 0; i < 300 && !condition(); i++) { await turn(); gc(); }
      return condition();
    };
    let collected = 0;
    const registry = new FinalizationRegistry(() => collected++);
    (async () => { ${body} })().then((value) => console.log(JSON.stringify(value)));`;
  const folder = mkdtempSync(join(tmpdir(), 'proclock-reload-'));
  try {
    const file = join(folder, 'program.cjs');
    writeFileSync(file, program);
    const { stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', file], {
      encoding: 'utf8',
      timeout: 100_000,
      killSignal: 'SIGKILL',
    });
    return JSON.parse(stdout.trim().split('\n').at(-1) || JSON.stringify(`no answer: ${stderr}`));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const USES = {
  'a sync acquire': 'lock.exclusiveSync().release();',
  'a callback': 'await lock.exclusive(() => {});',
  'an asynchronous callback': 'await lock.exclusive(async () => turn());',
  'a callback that has something left': 'await lock.exclusive(() => void setTimeout(() => {}, 5));',
  'a wait with a timeout and a signal':
    'const guard = await lock.exclusive(); const { signal } = new AbortController();' +
    'await lock.exclusive({ timeout: 10, signal }).catch(() => {}); guard.release();',
  'a wait that was granted':
    'const guard = await lock.exclusive(); const next = lock.exclusive(); guard.release(); (await next).release();',
  'a guard that was watched':
    'const guard = lock.exclusiveSync(); await turn(); await turn(); guard.release();',
  'a request, a robbed one and a query':
    'const manager = new copy.LockManager({ namespace }); const robbed = manager.request("r", () => new Promise(() => {}));' +
    'await turn(); await manager.request("r", { steal: true }, () => {}); await robbed.catch(() => {}); await manager.query();',
};

test.each(Object.entries(USES))('collected: one with %s', (_, use) => {
  const outcome = withCopies(`
    const once = async () => {
      const copy = load();
      registry.register(copy.SharedLock);
      const lock = new copy.SharedLock(name, { namespace });
      ${use}
      lock.close();
    };
    for (let i = 0; i < 5; i++) await once();
    return until(() => collected === 5);`);
  expect(outcome).toBe(true);
});

test('what a copy held that was dropped is released', () => {
  const outcome = withCopies(`
    const keeper = new (load().SharedLock)(name, { namespace });
    (() => { new (load().SharedLock)(name, { namespace }).exclusiveSync(); })();
    const held = keeper.query().held.length;
    return [held, await until(() => keeper.query().held.length === 0)];`);
  expect(outcome).toEqual([1, true]);
});

test('one that waits is not collected, and nobody else has to know of it', () => {
  const outcome = withCopies(`
    const keeper = new (load().SharedLock)(name, { namespace });
    const guard = keeper.exclusiveSync();
    const granted = new Promise((resolve) => {
      const copy = load();
      registry.register(copy.SharedLock);
      new copy.SharedLock(name, { namespace }).exclusive().then((guard) => { guard.release(); resolve('granted'); });
    });
    await until(() => keeper.query().pending.length === 1);
    for (let i = 0; i < 10; i++) { await turn(); gc(); }
    const early = collected;
    guard.release();
    return [early, await granted, await until(() => collected === 1)];`);
  expect(outcome).toEqual([0, 'granted', true]);
});

test('a thread may end while copies are in use, dropped, and collected', () => {
  const outcome = withCopies(`
    const { Worker } = require('node:worker_threads');
    const source = 'const { workerData: [dist, name, namespace] } = require("node:worker_threads");' +
      'for (let i = 0; i < 20; i++) {' +
      '  for (const key of Object.keys(require.cache)) if (key.startsWith(dist)) delete require.cache[key];' +
      '  const lock = new (require(dist).SharedLock)(name, { namespace });' +
      '  lock.shared(); lock.exclusive(); if (i % 5 === 0) gc();' +
      '} setImmediate(() => process.exit(7));';
    const codes = [];
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(source, { eval: true, workerData: [${JSON.stringify(DIST)}, name, namespace] });
      codes.push(await new Promise((resolve) => worker.once('exit', resolve)));
    }
    const lock = new (load().SharedLock)(name, { namespace });
    return [codes, await until(() => lock.query().held.length === 0)];`);
  expect(outcome).toEqual([[7, 7, 7, 7, 7], true]);
});

// From Node 24 on, a thread-safe function keeps the AsyncLocalStorage stores of whoever made it where nobody can reach them, and
// jest runs each test in a store of its own.
const keepsStores = Number.parseInt(process.versions.node, 10) >= 24;
if (keepsStores) console.log('jest --detectLeaks is left out: this Node keeps the stores of the test');
(keepsStores ? test.skip : test)('jest --detectLeaks finds nothing', () => {
  const folder = mkdtempSync(join(tmpdir(), 'proclock-leaks-'));
  try {
    writeFileSync(join(folder, 'package.json'), '{ "jest": { "testEnvironment": "node" } }');
    const namespace = testNamespace();
    for (const file of ['one', 'two']) {
      writeFileSync(
        join(folder, `${file}.test.js`),
        `const { RLock } = require(${JSON.stringify(DIST)});
         test('uses a lock', async () => {
           const lock = new RLock('x', { namespace: ${JSON.stringify(namespace)} });
           await lock.acquire(async () => lock.acquire(() => {}));
           lock.close();
         });`,
      );
    }
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(ROOT, 'node_modules/jest/bin/jest.js'), '--detectLeaks', '--runInBand', '--rootDir', folder],
      {
        cwd: folder,
        encoding: 'utf8',
        timeout: 100_000,
        env: { ...process.env, NODE_OPTIONS: '--expose-gc' },
      },
    );
    expect({ status, stderr }).toMatchObject({ status: 0, stderr: expect.stringContaining('2 passed') });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
