// A host program that daemonizes closes all descriptors, ours too, and its own files get their numbers. Whatever is asked
// of such a number says nothing about the segment: nobody is taken for dead because of it, and nothing is done to the file
// that it names now.
import { SharedLock } from '../lib';
import { type Actor, startActors } from './support/actor';
import { expectIdle, name, state, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { segmentFile } from './support/segment';

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
