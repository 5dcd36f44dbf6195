// A host program that daemonizes closes all descriptors, ours too, and its own files get their numbers. Whatever is asked
// of such a number says nothing about the segment: nobody is taken for dead because of it, and nothing is done to the file
// that it names now.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedLock } from '../lib';
import { type Actor, startActors } from './support/actor';
import { disturbing, expectLoadBelow, needsCompiler, testWith, timeOf } from './support/disturb';
import { expectIdle, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { DIST, segmentFile } from './support/segment';
import { until } from './support/until';

let namespace: string;
let host: Actor;
let holder: Actor;

beforeEach(async () => {
  namespace = testNamespace();
  [host, holder] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
});

/** The actor closes the descriptor of the segment and opens a file, which gets the same number. */
function reuse(actor: Actor, file: string): Promise<void> {
  return actor.run(
    `const fs = require('node:fs');
     const links = fs.readdirSync('/proc/self/fd').map((fd) => [Number(fd), (() => {
       try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch { return ''; }
     })()]);
     const [[fd]] = links.filter(([, link]) => link === args.segment);
     fs.closeSync(fd);
     globalThis.reused = [];
     while (globalThis.reused.at(-1) !== fd) globalThis.reused.push(fs.openSync(args.file, 'r'));`,
    { segment: segmentFile(namespace), file },
  );
}

describe.each(['/dev/null', process.execPath])('the number of the descriptor names %s', (file) => {
  test('a holder in another process is not taken for dead, by a try, a query, a wait or a new handle', async () => {
    await host.run('lock({ name: args })', name);
    const held = await holder.acquire({ name, mode: 'exclusive' });
    await reuse(host, file);
    for (const mode of ['exclusive', 'shared'] as const)
      expect(await host.call('tryAcquire', { name, mode })).toBeNull();
    await expect(host.query({ name })).rejects.toMatchObject(withCode('ERR_LOCK_UNSUPPORTED'));
    await expect(host.acquire({ name, mode: 'exclusive' })).rejects.toMatchObject(
      withCode('ERR_LOCK_UNSUPPORTED'),
    );
    expect(await host.call('tryAcquire', { name, handle: 'new', mode: 'exclusive' })).toBeNull();

    using lock = new SharedLock(name, { namespace });
    expect(lock.query()).toEqual(state(['exclusive'], []));
    expect(lock.tryShared()).toBeNull();
    await holder.release(name);
    const next = await host.acquire({ name, handle: 'new', mode: 'exclusive' });
    expect(next.abandoned).toBeNull();
    expect(BigInt(next.token)).toBeGreaterThan(BigInt(held.token));
    await host.release(name);
    expectIdle(lock);
  });

  test('what the host holds stays held, and its file stays open when the handle is closed', async () => {
    await host.acquire({ name, mode: 'exclusive' });
    await reuse(host, file);
    expect(await holder.call('tryAcquire', { name, mode: 'shared' })).toBeNull();
    const waiting = await holder.queue({ name, mode: 'exclusive' });
    await host.call('ping');
    expect(waiting.settled).toBe(false);
    await host.release(name);
    expect((await waiting.promise).abandoned).toBeNull();
    await holder.release(name);
    await host.call('close', { name });
    expect(
      await host.run(
        `lock({ name: 'other', handle: 'other' }).close();
         return globalThis.reused.map((fd) => require('node:fs').readlinkSync('/proc/self/fd/' + fd));`,
      ),
    ).toEqual(expect.arrayContaining([file]));
  });

  test('its death is noticed all the same', async () => {
    const held = await host.acquire({ name, mode: 'exclusive' });
    await reuse(host, file);
    const waiting = await holder.queue({ name, mode: 'exclusive' });
    await host.kill('SIGKILL');
    expect((await waiting.promise).abandoned).toMatchObject({ pid: host.pid, token: held.token });
    await holder.release(name);
  });
});

test('a host that has closed its standard descriptors gets none of ours in their place', () => {
  const program = `
    const fs = require('node:fs');
    const { SharedLock } = require(process.argv[1]);
    const standard = [0, 1, 2];
    for (const fd of standard) fs.closeSync(fd);
    const lock = new SharedLock('lock', { namespace: process.argv[2] });
    const guard = lock.exclusiveSync();
    lock.shared({ timeout: 50 }).catch(() => { // who waits has threads, which have descriptors
      guard.release();
      process.exitCode = standard.filter((fd) => {
        try { fs.fstatSync(fd); return true; } catch { return false; }
      }).length;
    });`;
  const args = ['-e', program, DIST, namespace];
  expect(spawnSync(process.execPath, args, { stdio: 'ignore' })).toMatchObject({ status: 0, signal: null });
});

describe('a host that closes all descriptors that are not its own, and uses the numbers for its file', () => {
  const LOAD_MAX = 20; // percent
  const DEATH_MS_MAX = 3000;
  let folder: string;
  let file: string;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'proclock-host-'));
    file = join(folder, 'of the host');
    writeFileSync(file, '');
    // What the host has before it has anything of ours.
    await host.run(`
      const fs = require('node:fs');
      // Without that of the listing, which is gone.
      globalThis.all = () => fs.readdirSync('/proc/self/fd').map(Number).filter((fd) => {
        try { return Boolean(fs.fstatSync(fd)); } catch { return false; }
      });
      globalThis.own = globalThis.all();
      globalThis.reuse = (keep, file) => {
        const closed = globalThis.all().filter((fd) => !keep.includes(fd) && fd > 2);
        for (const fd of closed) fs.closeSync(fd);
        const opened = [];
        while (opened.length === 0 || opened.at(-1) < Math.max(...closed)) {
          let fd = fs.openSync(file, 'r+');
          if (globalThis.own.includes(fd)) {
            fs.closeSync(fd);
            fd = fs.openSync(file + ', by numbers of Node', 'w');
          }
          opened.push(fd);
        }
        return opened;
      };`);
  });
  afterEach(() => {
    expect(readFileSync(file)).toHaveLength(0);
    rmSync(folder, { recursive: true });
  });

  const threads = ({ pid }: Actor): string[] =>
    readdirSync(`/proc/${pid}/task`).map((task) =>
      readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8').trim(),
    );
  const daemonize = () =>
    host
      .run<number[]>('return globalThis.reuse(globalThis.own, args);', file)
      .then((opened) => expect(opened.length).toBeGreaterThan(1));

  test('while it waits: it gets the lock or a LockError, uses no processor time, and its death is noticed', async () => {
    await holder.acquire({ name, mode: 'exclusive' });
    const waiting = host.begin('acquire', { name, mode: 'exclusive' });
    waiting.promise.catch(() => undefined);
    await host.call('ping');
    // Whom it waits for is watched by now.
    await until(() => threads(host).includes('proclock-watch'));
    await daemonize();
    await expectLoadBelow(LOAD_MAX, host);
    await holder.release(name);
    const end = await waiting.promise.then(
      () => 'granted',
      ({ code }) => code,
    );
    expect(['granted', 'ERR_LOCK_UNSUPPORTED']).toContain(end);
    const next = await holder.queue({ name, mode: 'exclusive' });
    await host.kill('SIGKILL');
    expect(await timeOf(next.promise)).toBeLessThan(DEATH_MS_MAX);
    await holder.release(name);
  });

  test('while it holds: it keeps the lock, its file is left alone, and its death is noticed', async () => {
    // It has waited before.
    await holder.acquire({ name, mode: 'exclusive' });
    const first = await host.queue({ name, mode: 'exclusive' });
    await until(() => threads(host).includes('proclock-watch'));
    await holder.release(name);
    await first.promise;
    await daemonize();
    const waiting = await holder.queue({ name, mode: 'exclusive' });
    await expectLoadBelow(LOAD_MAX, host);
    expect(waiting.settled).toBe(false);
    await host.kill('SIGKILL');
    expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    expect((await waiting.promise).abandoned).toMatchObject({ pid: host.pid });
    await holder.release(name);
  });

  test('it enters the namespace anew, waits there, and notices a death', async () => {
    await host.run('lock({ name: args });', name);
    await holder.acquire({ name, mode: 'exclusive' });
    const lost = host.begin('acquire', { name, mode: 'exclusive' });
    lost.promise.catch(() => undefined);
    await until(() => threads(host).includes('proclock-watch'));
    await daemonize();
    await expect(lost.promise).rejects.toMatchObject(withCode('ERR_LOCK_UNSUPPORTED'));
    const waiting = await host.queue({ name, handle: 'new', mode: 'exclusive' });
    await holder.kill('SIGKILL');
    expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    expect((await waiting.promise).abandoned).toMatchObject({ pid: holder.pid });
    await expectLoadBelow(LOAD_MAX, host);
    await host.release(name);
  });

  testWith(needsCompiler)(
    'while a child of its has them all, so that nothing of ours is closed for good: its file is left alone',
    async () => {
      await holder.acquire({ name, mode: 'exclusive' });
      const waiting = host.begin('acquire', { name, mode: 'exclusive' });
      waiting.promise.catch(() => undefined);
      await until(() => threads(host).includes('proclock-watch'));
      await host.run(`${disturbing('clone')} return null;`);
      const children = readFileSync(`/proc/${host.pid}/task/${host.pid}/children`, 'utf8').trim().split(' ');
      try {
        await daemonize();
        // Somebody new, whom the host would have watched.
        const [next] = await startActors(['fork'], { namespace });
        await next!.call('tryAcquire', { name, mode: 'shared' });
        await host.queue({ name: 'another', handle: 'another', mode: 'exclusive' });
        await expectLoadBelow(LOAD_MAX, host, 1500);
      } finally {
        for (const child of children) process.kill(Number(child), 'SIGKILL');
      }
      await holder.release(name);
    },
  );

  // All of them: those of Node as well. There is no event loop any more. V8 and libuv go on to write to the eventfds that
  // they had, with or without us; so the numbers that were Node's name another file, and what is in there is not looked at.
  test.each(['waits', 'holds'])('and all of those of Node, while it %s synchronously', async (what) => {
    const seen = join(folder, 'seen');
    // It has waited before: there is a watcher, and with it a pipe of ours.
    await holder.acquire({ name, mode: 'exclusive' });
    const first = await host.queue({ name, mode: 'exclusive' });
    await until(() => threads(host).includes('proclock-watch'));
    await holder.release(name);
    await first.promise;
    await host.release(name);
    if (what === 'waits') await holder.acquire({ name, mode: 'exclusive' });
    const running = host.run(
      `const fs = require('node:fs');
       const it = lock({ name: args.name });
       if (args.what === 'holds') globalThis.kept = it.exclusiveSync();
       globalThis.reuse([], args.file);
       let end;
       try {
         end = args.what === 'holds' ? 'held' : it.exclusiveSync({ timeout: 1000 }) && 'granted';
       } catch (error) {
         end = error.code;
       }
       fs.writeFileSync(args.seen, end);
       const never = new Int32Array(new SharedArrayBuffer(4));
       for (;;) Atomics.wait(never, 0, 0, 1000);`,
      { name, file, seen, what },
    );
    running.catch(() => undefined);
    await until(() => existsSync(seen) && readFileSync(seen).length > 0);
    expect(['held', 'granted', 'ERR_LOCK_UNSUPPORTED', 'ERR_LOCK_TIMEOUT']).toContain(
      readFileSync(seen, 'utf8'),
    );
    if (what === 'waits') await holder.release(name);
    const next = await holder.queue({ name, mode: 'exclusive' });
    process.kill(host.pid, 'SIGKILL');
    expect(await timeOf(next.promise)).toBeLessThan(DEATH_MS_MAX);
    await holder.release(name);
    await host.ended;
  });
});
