// What is rare: a disk that is full, a pooler that breaks its promise, a lease that runs out over and over; and what a process
// that goes leaves in the tables.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedLock } from '../../../lib/remote';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';
import { ConnectionSwitch } from './switch';

const LEASES = Number(process.env.PROCLOCK_LEASES ?? 4);
const AT_A_TIME = 4;
const TTL = 3000;

describeWithServer('a lease', () => {
  const fixture = new Fixture();

  test('of a process that ends by itself leaves nothing in the tables', async () => {
    const leaves = async (source: string) => {
      const child = await fixture.child();
      child.run(`${source}; await space.close(); setImmediate(() => process.disconnect())`).catch(() => {});
      expect(await child.ended).toEqual({ code: 0, signal: null });
      const [row] = await fixture.server.sql(
        `select (select count(*) from proclock.slots)::int + (select count(*) from proclock.sessions)::int
          + (select count(*) from proclock.locks where owner is not null or holder is not null or abandoned is not null)::int as rows`,
      );
      expect(row!.rows).toBe(0);
    };
    await leaves('');
    await leaves(
      "await lock('one').exclusive(); await lock('two').shared(); lock('one').shared().catch(() => {}); await lock('one').query()",
    );
    await leaves(
      "await Promise.all(Array.from({ length: 250 }, (_, i) => Promise.all([lock('a ' + i).exclusive(), lock('b ' + i).shared()])))",
    );
  });

  test(
    `that runs out over a stalled connection is lost before the next grant, ${LEASES} times of ${LEASES}`,
    async () => {
      for (let done = 0; done < LEASES; done += AT_A_TIME) {
        await Promise.all(
          Array.from({ length: Math.min(AT_A_TIME, LEASES - done) }, async (_, index) => {
            const proxy = await fixture.proxy();
            const far = await fixture.child({ ttl: TTL }, fixture.server.url('postgres', proxy.port));
            const near = await fixture.child({ ttl: TTL });
            const name = `lease ${done + index}`;
            await far.hold(name);
            // One clock for all processes.
            await far.run(
              `globalThis.lost = new Promise((resolve) => guards.get(args).lost.addEventListener('abort', () =>
                resolve(String(process.hrtime.bigint()))))`,
              name,
            );
            proxy.stall();
            const granted = near.run<string>(
              'guards.set(args, await lock(args).exclusive()); return String(process.hrtime.bigint())',
              name,
            );
            const lost = await far.run<string>('return lost');
            expect(BigInt(lost)).toBeLessThan(BigInt(await granted));
            await near.run('await space.close()');
            await Promise.all([far.kill(), near.kill()]);
            await proxy.stop();
          }),
        );
      }
    },
    30_000 + LEASES * 4000,
  );
});

describeWithServer('a pooler in session mode', () => {
  const fixture = new Fixture();

  test('that changes the connection in the middle of a session is found out by the next question', async () => {
    const { port } = fixture.server;
    const pooler = await ConnectionSwitch.start(port);
    fixture.atEnd(() => pooler.stop());
    const lock = await fixture.lock(
      { pooler: 'session', ttl: 60_000 },
      fixture.server.url('postgres', pooler.port),
    );
    const guard = await lock.exclusive();
    await pooler.change();
    await expect(guard.release()).rejects.toMatchObject({
      code: 'ERR_LOCK_LOST',
      cause: { code: 'ERR_LOCK_UNSUPPORTED', message: expect.stringContaining('pool_mode = session') },
    });
    expect(guard.lost.aborted).toBe(true);
  });
});

/** A file system of our own, of so many megabytes; `undefined` where that is not allowed. */
function smallDisk(megabytes: number): string | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'proclock-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'proclock', folder], {
      stdio: 'ignore',
    });
    return folder;
  } catch {
    rmSync(folder, { recursive: true });
    return undefined;
  }
}

const DISK_MB = 160;
const disk = smallDisk(DISK_MB);
if (disk === undefined) console.log('skipped: a full disk, for no file system can be mounted here');

(disk === undefined ? describe.skip : describeWithServer)('a disk that is full', () => {
  const fixture = new Fixture({ max_wal_size: '32MB', min_wal_size: '32MB' }, disk);
  afterAll(() => {
    execFileSync('umount', [disk as string]);
    rmSync(disk as string, { recursive: true });
  });

  test('is told, with nothing held; and when there is room again, all goes on', async () => {
    const space = await fixture.space();
    const before = await new SharedLock('before', { space }).exclusive();
    const { bavail, bsize } = statfsSync(disk as string);
    const ballast = join(disk as string, 'ballast');
    writeFileSync(ballast, Buffer.alloc(bavail * bsize));
    // Ever new and long names: the table has to grow.
    let failure: unknown;
    for (let index = 0; index < 1000 && failure === undefined; index++) {
      const name = `${index} ${randomBytes(1500).toString('hex')}`;
      const guard = await new SharedLock(name, { space }).tryExclusive().catch((error) => {
        failure = error;
        return null;
      });
      await guard?.release();
    }
    expect(failure).toMatchObject({ name: 'LockError', code: 'ERR_LOCK_NO_SPACE' });
    expect((await space.query()).held.map(({ name }) => name)).toEqual(['before']);
    rmSync(ballast);
    await before.release();
    await (await new SharedLock('after', { space }).exclusive()).release();
  });
});
