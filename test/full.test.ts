// When shared memory is full, or a file-size limit is in the way, that is an error to be handled, never a signal; what is
// held and open already goes on to work, and with space everything does again.
import { spawnSync } from 'node:child_process';
import { testNamespace } from './support/namespace';
import { enter, inProcess } from './support/segment';

/** Runs a program with a /dev/shm of its own, of this size. */
const small = (size: string) => [
  'unshare',
  '--mount',
  'sh',
  '-c',
  `mount -t tmpfs -o size=${size} tmpfs /dev/shm && exec "$@"`,
  'sh',
];

const FULL = /^ERR_LOCK_(NO_SPACE|CAPACITY)$/;
const trial = spawnSync('unshare', ['--mount', 'sh', '-c', 'mount -t tmpfs tmpfs /dev/shm'], {
  encoding: 'utf8',
});
const canMount = trial.status === 0;
if (!canMount) console.log(`a small /dev/shm can not be made here: ${trial.error ?? trial.stderr}`);
const testSmall = canMount ? test : test.skip; // the reason was printed

// For the bodies of the programs.
const tools = `
  const { spawnSync } = require('node:child_process');
  const fs = require('node:fs');
  const resize = (size) => {
    const { status, stderr } = spawnSync('mount', ['-o', 'remount,size=' + size, '/dev/shm'], { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  };
  const codeOf = async (fn) => { try { await fn(); return ''; } catch (error) { return error.code; } };
  const fill = () => {
    const fd = fs.openSync('/dev/shm/filler', 'w');
    try { for (;;) fs.writeSync(fd, Buffer.alloc(4096)); } catch (error) { if (error.code !== 'ENOSPC') throw error; }
    fs.closeSync(fd);
  };
  const unfill = () => fs.unlinkSync('/dev/shm/filler');`;

let namespace: string;
beforeEach(() => {
  namespace = testNamespace();
});

testSmall('a namespace for which there is no room at all is refused, and entered once there is', () => {
  const { code, value } = inProcess(
    namespace,
    `${tools}
     const lock = () => new SharedLock('x', { namespace });
     const codes = [await codeOf(lock), await codeOf(lock)];
     resize('1m');
     lock().exclusiveSync().release();
     return codes;`,
    small('16k'),
  );
  expect({ code, value }).toEqual({ code: '', value: ['ERR_LOCK_NO_SPACE', 'ERR_LOCK_NO_SPACE'] });
});

testSmall.each(['0', '4k', '8k', '20k', '24k', '28k'])('with %s of shared memory nothing crashes', (size) => {
  // tmpfs takes a size of 0 for no limit: fill it up instead.
  const { code, value } = inProcess(
    namespace,
    `${tools}
     if (${size === '0'}) fill();
     return codeOf(() => new SharedLock('x', { namespace }).exclusiveSync().release());`,
    small(size === '0' ? '64k' : size),
  );
  expect(code).toBe('');
  expect(['', 'ERR_LOCK_NO_SPACE']).toContain(value);
});

testSmall('when names run out of space, the open ones work, and later new ones again', () => {
  const { code, message, value } = inProcess(
    namespace,
    `${tools}
     const locks = [];
     const long = 'a name that takes more than its entry '.repeat(5);
     const open = () => { locks.push(new SharedLock(long + locks.length, { namespace })); };
     let failed = '';
     while (failed === '' && locks.length < 100_000) failed = await codeOf(open);
     const opened = locks.length;
     const use = async () => {
       for (const lock of locks) {
         const guard = lock.exclusiveSync();
         if (new SharedLock(lock.name, { namespace }).tryShared() !== null) throw new Error('not excluded');
         guard.downgrade();
         guard.release();
         (await lock.shared({ timeout: 1000 })).release();
       }
     };
     await use();
     const again = await codeOf(open);
     resize('4m');
     open();
     await use();
     return { failed, again, opened, more: locks.length - opened };`,
    small('128k'),
  );
  expect({ code, message }).toEqual({ code: '', message: '' });
  expect(value).toEqual({
    failed: expect.stringMatching(FULL),
    again: expect.stringMatching(FULL),
    opened: expect.any(Number),
    more: 1,
  });
  expect((value as { opened: number }).opened).toBeGreaterThan(10);
});

testSmall(
  'when holds and waits run out of space, those that are there go on, and later new ones again',
  () => {
    const { code, message, value } = inProcess(
      namespace,
      `${tools}
     const lock = new SharedLock('x', { namespace });
     const other = new SharedLock('y', { namespace });
     const guards = [];
     fill();
     let failed = '';
     const acquire = async () => { guards.push(await lock.shared({ timeout: 1000 })); };
     while (failed === '' && guards.length < 100_000) failed = await codeOf(acquire);
     const held = guards.length;
     guards.pop().release();
     await acquire();
     const more = await codeOf(acquire);
     const pairs = await codeOf(() => other.exclusiveSync().release());
     const seen = lock.query();
     unfill();
     await acquire();
     for (const guard of guards) guard.release();
     const guard = lock.tryExclusive();
     const free = guard !== null;
     guard?.release();
     return { failed, more, pairs, all: seen.held.length === held, waiting: seen.pending.length, free, left: lock.query().held.length };`,
      small('128k'),
    );
    expect({ code, message }).toEqual({ code: '', message: '' });
    expect(value).toEqual({
      failed: expect.stringMatching(FULL),
      more: expect.stringMatching(FULL),
      pairs: '',
      all: true,
      waiting: 0,
      free: true,
      left: 0,
    });
  },
);

testSmall('in a full shared memory, the death of a holder is recovered from', () => {
  const { code, message, value } = inProcess(
    namespace,
    `${tools}
     const lock = new SharedLock('x', { namespace });
     lock.sharedSync().release();
     const deaths = [];
     const source = 'const { SharedLock } = require(process.argv[1]);' +
       'new SharedLock("x", { namespace: process.argv[2] }).exclusiveSync();' +
       'process.kill(process.pid, "SIGKILL"); for (;;);';
     const dist = Object.keys(require.cache).find((file) => file.endsWith('dist/index.js'));
     fill();
     for (let n = 0; n < 5; n++) {
       const { pid, signal } = spawnSync(process.execPath, ['-e', source, dist, namespace]);
       const guard = await lock.exclusive({ timeout: 5000 });
       deaths.push([signal, guard.abandoned?.pid === pid]);
       guard.release();
     }
     return deaths;`,
    small('128k'),
  );
  expect({ code, message }).toEqual({ code: '', message: '' });
  expect(value).toEqual(Array.from({ length: 5 }, () => ['SIGKILL', true]));
});

const canLimit = spawnSync('prlimit', ['--fsize=100000', 'true']).status === 0;
if (!canLimit) console.log('a file-size limit can not be set here (prlimit)');
const testLimit = canLimit ? test : test.skip; // the reason was printed

testLimit.each([0, 4096, 100_000, 10_000_000])(
  'a file-size limit of %d bytes is an error, not a signal',
  (bytes) => {
    const refused = inProcess(
      namespace,
      `const codes = [];
     for (let n = 0; n < 2; n++) {
       try { new SharedLock('x', { namespace }); codes.push(''); } catch (error) { codes.push(error.code); }
     }
     return codes;`,
      ['prlimit', `--fsize=${bytes}`],
    );
    expect(refused).toMatchObject({ code: '', value: ['ERR_LOCK_NO_SPACE', 'ERR_LOCK_NO_SPACE'] });
    expect(enter(namespace).code).toBe('');
  },
);
