// What becomes of locks when the disk of the server is full.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedLock } from '../../../lib/remote';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

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
