// What belongs to the entries `proclock/remote` and `proclock/memory` alone: they work where there is no native part, and
// `memory()` checks its options.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { memory } from '../../lib/memory';
import { SharedLock } from '../../lib/remote';
import { type Actor, running, startActor } from '../support/actor';
import { DIST } from '../support/segment';

const USE = `
  const space = memory();
  const other = space.peer();
  const lock = new SharedLock('ledger', { space });
  await lock.exclusive(async () => {
    if ((await new RLock('ledger', { space: other }).tryAcquire()) !== null) throw new Error('both have it');
  });
  await new LockManager({ space }).request('ledger', () => {});
  await space.close();
  await other.close();
  console.log('done');`;

const PROGRAMS = {
  CommonJS: `
    const { LockManager, RLock, SharedLock } = require(process.env.DIST + '/remote.js');
    const { memory } = require(process.env.DIST + '/memory.js');
    (async () => { ${USE} })();`,
  'an ES module': `
    const { LockManager, RLock, SharedLock } = await import(process.env.DIST + '/remote.mjs');
    const { memory } = await import(process.env.DIST + '/memory.mjs');
    ${USE}`,
};

/** What runs before the program. */
const CONDITIONS = {
  'where no native code may be loaded': `
    process.dlopen = (_, file) => { console.log('loaded ' + file); process.exit(1); };`,
  'on another platform': `
    Object.defineProperty(process, 'platform', { value: 'win32' });
    Object.defineProperty(process, 'arch', { value: 'mips' });`,
};

describe.each(Object.entries(PROGRAMS))('%s', (kind, program) => {
  test.each(Object.entries(CONDITIONS))('works %s, and ends by itself', (_, condition) => {
    const type = kind === 'CommonJS' ? 'commonjs' : 'module';
    const args = ['--no-addons', `--input-type=${type}`, '-e', `${condition}\n${program}`];
    const env = { ...process.env, DIST };
    expect(execFileSync(process.execPath, args, { encoding: 'utf8', env, timeout: 20_000 })).toBe('done\n');
  });
});

describe('a process', () => {
  /** The program has a lock that a peer holds as well, shared. */
  const run = (program: string) => {
    const source = `
      const { SharedLock } = require(process.env.DIST + '/remote.js');
      const { memory } = require(process.env.DIST + '/memory.js');
      (async () => {
        const space = memory();
        const guard = await new SharedLock('x', { space: space.peer() }).shared();
        const lock = new SharedLock('x', { space });
        process.on('exit', () => console.log('ended'));
        ${program}
      })();`;
    const env = { ...process.env, DIST };
    return execFileSync(process.execPath, ['-e', source], { encoding: 'utf8', env, timeout: 20_000 });
  };
  const SAY = `.catch(({ code }) => console.log(code))`;

  test('is kept alive by an acquire that waits', () => {
    expect(run(`await lock.exclusive({ timeout: 100 })${SAY};`)).toBe('ERR_LOCK_TIMEOUT\nended\n');
  });

  test('is kept alive by an upgrade that waits', () => {
    const program = `await (await lock.shared()).upgrade({ timeout: 100 })${SAY};`;
    expect(run(program)).toBe('ERR_LOCK_TIMEOUT\nended\n');
  });

  test('is not kept alive by what it holds, nor by a space that is open', () => {
    expect(run(`globalThis.kept = [guard, await lock.shared(), (await lock.shared()).lost];`)).toBe(
      'ended\n',
    );
  });
});

test('no file of lib/remote or lib/engines names what lib/shm has', () => {
  const lib = join(__dirname, '../../lib');
  const files = ['remote', 'engines'].flatMap((folder) =>
    readdirSync(join(lib, folder), { recursive: true })
      .map((file) => join(lib, folder, String(file)))
      .filter((file) => file.endsWith('.ts')),
  );
  expect(files.length).toBeGreaterThan(5);
  expect(files.filter((file) => /\/shm\/|node-gyp-build|\.node'/.test(readFileSync(file, 'utf8')))).toEqual(
    [],
  );
});

describe('memory()', () => {
  test('has a kind and a namespace, which its locks and peers have as well', async () => {
    await using space = memory();
    expect(space).toMatchObject({ kind: 'memory', namespace: 'default' });
    await using named = memory({ namespace: 'a.B_9-' });
    expect(named.namespace).toBe('a.B_9-');
    expect(named.peer().namespace).toBe('a.B_9-');
    expect(new SharedLock('x', { space: named }).namespace).toBe('a.B_9-');
  });

  test('each call makes a world of its own, whatever the namespace', async () => {
    await using one = memory({ namespace: 'same' });
    await using two = memory({ namespace: 'same' });
    await new SharedLock('x', { space: one }).exclusive(async () => {
      expect(await new SharedLock('x', { space: two }).tryExclusive()).not.toBeNull();
    });
  });

  test.each([
    [null, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [1, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [{ namespace: 1 }, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [{ namespace: null }, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [{ namespace: '' }, 'TypeError', 'ERR_INVALID_ARG_VALUE'],
    [{ namespace: 'a/b' }, 'TypeError', 'ERR_INVALID_ARG_VALUE'],
    [{ namespace: 'x'.repeat(65) }, 'TypeError', 'ERR_INVALID_ARG_VALUE'],
    [{ ttl: '10000' }, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [{ ttl: null }, 'TypeError', 'ERR_INVALID_ARG_TYPE'],
    [{ ttl: 999 }, 'RangeError', 'ERR_OUT_OF_RANGE'],
    [{ ttl: -1 }, 'RangeError', 'ERR_OUT_OF_RANGE'],
    [{ ttl: Number.NaN }, 'RangeError', 'ERR_OUT_OF_RANGE'],
    [{ ttl: Number.POSITIVE_INFINITY }, 'RangeError', 'ERR_OUT_OF_RANGE'],
  ])('refuses the options %j', (options, name, code) => {
    expect(() => memory(options as never)).toThrow(expect.objectContaining({ name, code }));
  });

  test.each([undefined, {}, { ttl: 1000 }, { ttl: 2 ** 31 - 1 }, { namespace: 'x'.repeat(64) }])(
    'takes the options %j',
    async (options) => memory(options).close(),
  );

  test('after kill() it is as after close(), and both may be called again', async () => {
    const space = memory();
    const peer = space.peer();
    const lock = new SharedLock('x', { space });
    await lock.exclusive();
    const waiting = new SharedLock('x', { space: peer }).exclusive();
    space.kill();
    space.kill();
    expect((await waiting).abandoned).toMatchObject({ pid: process.pid });
    await expect(lock.tryShared()).rejects.toMatchObject({ code: 'ERR_LOCK_CLOSED' });
    await expect(space.query()).rejects.toMatchObject({ code: 'ERR_LOCK_CLOSED' });
    await space.close();
    await peer.close();
  });

  test('a peer of a peer, and of a space that was closed or killed, is a peer', async () => {
    const space = memory();
    const peer = space.peer().peer();
    const guard = await new SharedLock('x', { space: peer }).exclusive();
    await space.close();
    await using later = space.peer();
    expect(await new SharedLock('x', { space: later }).tryShared()).toBeNull();
    await guard.release();
    expect(await new SharedLock('x', { space: later }).tryShared()).not.toBeNull();
    await peer.close();
  });
});

describe('an actor over a space', () => {
  const ended = (actor: Actor) => actor.exit(0);

  afterEach(async () => {
    for (const actor of running) await actor.destroy();
  });

  test.each(['fork', 'thread'] as const)(
    '%s: obeys the commands with the locks of that space',
    async (kind) => {
      const space = ['memory', 'memory', [{ namespace: 'of-the-actor' }]] as const;
      const actor = await startActor(kind, { space });
      const first = await actor.acquire({ name: 'x', mode: 'exclusive' });
      expect(await actor.call('tryAcquire', { name: 'x', mode: 'shared' })).toBeNull();
      const next = await actor.queue({ name: 'x', mode: 'shared', as: 'next' });
      const { held, pending } = await actor.query({ name: 'x' });
      expect([held, pending]).toMatchObject([[{ mode: 'exclusive' }], [{ mode: 'shared' }]]);
      await actor.release('x');
      expect((await next.promise).token).toBe(first.token);
      expect((await actor.call('upgrade', { guard: 'next' })).mode).toBe('exclusive');
      expect(await actor.run('return lock({ name: "x" }).namespace')).toBe('of-the-actor');
      expect(await ended(actor)).toMatchObject({ code: 0 });
    },
  );

  test('says why its space could not be opened', async () => {
    const space = ['memory', 'memory', [{ namespace: 'a/b' }]] as const;
    await expect(startActor('fork', { space })).rejects.toThrow('ERR_INVALID_ARG_VALUE');
  });
});
