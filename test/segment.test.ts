// A namespace is a file in /dev/shm that anybody may have left there, in any state: what can be used is used, what can
// be finished is finished, and everything else is refused with an error that says why.

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { SharedLock } from '../lib';
import { disturbing, needsCompiler, testWith, unshare } from './support/disturb';
import { testNamespace, until } from './support/namespace';
import {
  bytesInUse,
  enter,
  FOLDER,
  Head,
  Helper,
  inProcess,
  readAt,
  segmentFile,
  uint32,
  writeAt,
} from './support/segment';

const IDLE_BYTES_MAX = 64 * 1024;

let namespace: string;
let file: string;
const helpers: Helper[] = [];
const locks: SharedLock[] = [];

beforeEach(() => {
  namespace = testNamespace();
  file = segmentFile(namespace);
});

afterEach(async () => {
  for (const lock of locks.splice(0)) lock.close();
  for (const helper of helpers.splice(0)) await helper.end();
  rmSync(file, { force: true });
});

function open(name: string): SharedLock {
  const lock = new SharedLock(name, { namespace });
  locks.push(lock);
  return lock;
}

async function helper(body: string, command: string[] = []): Promise<Helper> {
  const started = await Helper.start(namespace, body, command);
  helpers.push(started);
  return started;
}

/** Leaves a segment in which nobody lives. */
function leaveSegment(): void {
  expect(enter(namespace).code).toBe('');
}

describe('content', () => {
  test.each([
    ['a text', Buffer.from('this is not a segment, and it is longer than its head would be. '.repeat(100))],
    ['a short text', Buffer.from('short')],
    ['random bytes of the right size', undefined],
  ])('that is not ours (%s) is refused as corrupt and left alone', (_what, content) => {
    if (content === undefined) {
      leaveSegment();
      writeAt(file, 0, Buffer.alloc(4096, 0xa5));
    } else {
      writeFileSync(file, content, { mode: 0o600 });
    }
    const before = readAt(file, 0, 4096);
    expect(enter(namespace)).toMatchObject({
      code: 'ERR_LOCK_CORRUPT',
      message: expect.stringContaining(file),
    });
    expect(readAt(file, 0, 4096)).toEqual(before);
  });

  test.each([
    ['to half its size', (size: number) => size / 2],
    ['by one byte', (size: number) => size - 1],
    ['to its first page', () => 4096],
  ])('truncated %s is refused as corrupt', (_what, shorten) => {
    leaveSegment();
    truncateSync(file, shorten(statSync(file).size));
    expect(enter(namespace).code).toBe('ERR_LOCK_CORRUPT');
  });

  test('cut to nothing while somebody lives in it is refused to newcomers, not made anew beside them', async () => {
    const inside = await helper(`const lock = new SharedLock('x', { namespace }); on.nothing = () => {};`);
    truncateSync(file, 0);
    expect(enter(namespace).code).toBe('ERR_LOCK_CORRUPT');
    await inside.end();
    expect(enter(namespace).code).toBe('');
  });
});

describe.each([
  ['layout version', Head.VERSION, 'layout version 77'],
  ['ABI fingerprint', Head.ABI, 'unknown libc'],
])('another %s', (_what, offset, named) => {
  const other = uint32(77);

  test('is refused while somebody lives in it, with a message that names both', async () => {
    const inside = await helper(`const lock = new SharedLock('x', { namespace });
      on.use = () => { lock.exclusiveSync().release(); };
      on.query = () => { const { held, pending } = lock.query(); return [held.length, pending.length]; };`);
    writeAt(file, offset, other);
    const refused = enter(namespace);
    expect(refused.code).toBe('ERR_LOCK_INCOMPATIBLE');
    expect(refused.message).toContain(named);
    expect(refused.message).toMatch(/this is layout version \d+ for (glibc|musl|macOS)/);
    expect(readAt(file, offset, 4)).toEqual(other);
    expect(await inside.call('query')).toEqual([0, 0]);
    await inside.call('use');
  });

  test('is made anew when nobody lives in it any more, however they ended', async () => {
    const inside = await helper(`const lock = new SharedLock('x', { namespace });
      on.hold = () => { guards.x = lock.exclusiveSync(); };`);
    await inside.call('hold');
    const own = readAt(file, offset, 4);
    writeAt(file, offset, other);
    expect(await inside.end('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
    expect(enter(namespace).code).toBe('');
    expect(readAt(file, offset, 4)).toEqual(own);
    const guard = open('x').tryExclusive();
    expect(guard).not.toBeNull();
    guard?.release();
  });
});

describe('a creator that was killed half way', () => {
  test.each([
    ['nothing but the name', () => writeFileSync(file, '', { mode: 0o600 })],
    ['a page of zeros', () => writeFileSync(file, Buffer.alloc(4096), { mode: 0o600 })],
    [
      'everything but the magic number',
      () => {
        leaveSegment();
        writeAt(file, Head.MAGIC, Buffer.alloc(8));
      },
    ],
  ])('left %s: the next opener finishes', (_what, leave) => {
    leave();
    expect(enter(namespace).code).toBe('');
    const guard = open('entered').tryExclusive();
    expect(guard).not.toBeNull();
    guard?.release();
  });

  test('at any moment: the next opener finishes', async () => {
    const body = `on.go = () => {
      for (;;) {
        require('node:fs').rmSync(${JSON.stringify(file)}, { force: true });
        new SharedLock('x', { namespace }).close();
      }
    };`;
    for (let round = 0; round < 10; round++) {
      const creator = await helper(body);
      creator.call('go').catch(() => undefined);
      await until(() => statSync(file, { throwIfNoEntry: false }) !== undefined);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
      expect(await creator.end('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
      const lock = open('x');
      const guard = lock.tryExclusive();
      expect(guard).not.toBeNull();
      guard?.release();
      lock.close();
    }
  });
});

describe('a file that is not ours to use', () => {
  test.each([
    ['readable for others', () => chmodSync(file, 0o644)],
    ['of a group', () => chmodSync(file, 0o660)],
    ['read-only', () => chmodSync(file, 0o400)],
  ])('%s is refused', (_what, change) => {
    leaveSegment();
    change();
    expect(enter(namespace)).toMatchObject({
      code: 'ERR_LOCK_PERMISSION',
      message: expect.stringContaining(file),
    });
  });

  const asRoot = process.geteuid?.() === 0;
  if (!asRoot) console.log('not run as root: files of other users are not tested');
  (asRoot ? test : test.skip)('of another user is refused', () => {
    leaveSegment();
    chownSync(file, 1, 1);
    expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
  });

  (asRoot ? test : test.skip)('under our name, but owned by somebody else, is refused', () => {
    const theirs = `${FOLDER}/proclock-65534-${namespace}`;
    leaveSegment();
    renameSync(file, theirs);
    try {
      const refused = inProcess(namespace, `process.setuid(65534); new SharedLock('x', { namespace });`);
      expect(refused.code).toBe('ERR_LOCK_PERMISSION');
    } finally {
      unlinkSync(theirs);
    }
  });

  test('a symbolic link is not followed', () => {
    const target = `${file}.target`;
    writeFileSync(target, 'precious', { mode: 0o600 });
    symlinkSync(target, file);
    try {
      expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
      expect(readFileSync(target, 'utf8')).toBe('precious');
    } finally {
      unlinkSync(target);
    }
  });

  test('a hard link to a file of ours is refused, and the file is left as it is', () => {
    const target = `${file}.target`;
    const zeros = Buffer.alloc(100);
    writeFileSync(target, zeros, { mode: 0o600 });
    linkSync(target, file);
    try {
      expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
      expect(readFileSync(target).equals(zeros)).toBe(true);
    } finally {
      unlinkSync(target);
    }
  });

  test('a dangling symbolic link creates nothing', () => {
    const target = `${file}.target`;
    symlinkSync(target, file);
    expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
    expect(statSync(target, { throwIfNoEntry: false })).toBeUndefined();
  });

  test('a directory is refused', () => {
    mkdirSync(file);
    try {
      expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
    } finally {
      rmdirSync(file);
    }
  });

  testWith(needsCompiler)(
    'a file on which somebody has a lease is refused at once, and can be used when it is given up',
    async () => {
      const AT_ONCE_MS_MAX = 2000; // the kernel would let us wait for 45 s (fs.lease-break-time)
      leaveSegment();
      const leaseholder = await helper(`on.take = () => { ${disturbing(`lease ${file}`)} };`);
      await leaseholder.call('take');
      const from = performance.now();
      expect(() => open('x')).toThrow(expect.objectContaining({ code: 'ERR_LOCK_PERMISSION' }));
      expect(performance.now() - from).toBeLessThan(AT_ONCE_MS_MAX);
      await leaseholder.end();
      const guard = open('x').tryExclusive();
      expect(guard).not.toBeNull();
      guard?.release();
    },
  );

  test('a pipe is refused', () => {
    expect(spawnSync('mkfifo', ['-m', '600', file]).status).toBe(0);
    expect(enter(namespace).code).toBe('ERR_LOCK_PERMISSION');
  });
});

describe('a segment that was removed', () => {
  const REMOVED = expect.objectContaining({ code: 'ERR_LOCK_NAMESPACE_REMOVED' });
  const user = `
    const lock = new SharedLock('x', { namespace });
    let waiting;
    on.hold = () => { guards.x = lock.exclusiveSync(); };
    on.release = () => { guards.x.release(); };
    on.tryNew = () => { const found = new SharedLock('x', { namespace }).tryExclusive(); return found !== null; };
    on.wait = () => {
      waiting = lock.exclusive().then(() => 'granted', (error) => error.code);
    };
    on.waited = () => waiting;
    on.waitSync = () => { try { lock.exclusiveSync(); return 'granted'; } catch (error) { return error.code; } };`;

  test('rejects the waits in every process, asynchronous and synchronous', async () => {
    const lock = open('x');
    const held = await lock.exclusive();
    const asyncWaiter = await helper(user);
    const syncWaiter = await helper(user);
    await asyncWaiter.call('wait');
    const own = expect(lock.shared()).rejects.toEqual(REMOVED);
    const waitedSync = syncWaiter.call('waitSync');
    await until(() => lock.query().pending.length === 3);
    unlinkSync(file);
    await own;
    expect(await asyncWaiter.call('waited')).toBe('ERR_LOCK_NAMESPACE_REMOVED');
    expect(await waitedSync).toBe('ERR_LOCK_NAMESPACE_REMOVED');
    held.release();
  });

  test('rejects every later acquire, and lets what is held be released', async () => {
    const lock = open('x');
    const guard = lock.exclusiveSync();
    const shared = open('y').sharedSync();
    unlinkSync(file);
    expect(() => lock.query()).toThrow(REMOVED);
    const other = open('z'); // which finds out, and enters a new segment
    await expect(lock.exclusive()).rejects.toEqual(REMOVED);
    await expect(lock.exclusive({ timeout: 1 })).rejects.toEqual(REMOVED);
    guard.release();
    expect(() => lock.tryExclusive()).toThrow(REMOVED);
    expect(() => lock.exclusiveSync()).toThrow(REMOVED);
    shared.release();
    expect(() => guard.release()).toThrow(expect.objectContaining({ code: 'ERR_LOCK_NOT_HELD' }));
    other.exclusiveSync().release();
  });

  test('is noticed by a process that only acquires and releases', async () => {
    const lock = open('x');
    lock.exclusiveSync().release();
    unlinkSync(file);
    await until(() => {
      try {
        lock.tryExclusive()?.release();
        return false;
      } catch (error) {
        expect(error).toEqual(REMOVED);
        return true;
      }
    });
  });

  test('is replaced for new handles, old and new processes alike', async () => {
    const old = open('x');
    const guard = old.exclusiveSync();
    unlinkSync(file);
    const fresh = open('x');
    const freshGuard = fresh.tryExclusive();
    expect(freshGuard).not.toBeNull();
    expect(statSync(file).isFile()).toBe(true);
    const newcomer = await helper(user);
    expect(await newcomer.call('tryNew')).toBe(false);
    freshGuard?.release();
    expect(await newcomer.call('tryNew')).toBe(true);
    guard.release();
    expect(fresh.tryShared()).toBeNull();
  });
});

test('sixteen processes that create a namespace at once have one lock', async () => {
  const body = `let guard;
    on.take = () => { guard = new SharedLock('x', { namespace }).tryExclusive(); return guard !== null; };
    on.release = () => { guard?.release(); };`;
  const all = await Promise.all(Array.from({ length: 16 }, () => helper(body)));
  for (let round = 0; round < 5; round++) {
    const taken = await Promise.all(all.map((one) => one.call('take')));
    expect(taken.filter((got) => got)).toHaveLength(1);
    await Promise.all(all.map((one) => one.call('release')));
    rmSync(file);
  }
}, 60_000);

test('an idle namespace takes at most 64 KiB', () => {
  const lock = open('x');
  lock.exclusiveSync().release();
  expect(bytesInUse(file)).toBeLessThanOrEqual(IDLE_BYTES_MAX);
});

describe('processes of different PID namespaces', () => {
  const apart = unshare('--pid', '--mount-proc');
  const body = `const lock = new SharedLock('x', { namespace });
    on.pid = () => process.pid;
    on.try = () => { guards.x = lock.tryExclusive(); return guards.x !== null; };
    on.release = () => guards.x.release();
    on.acquire = async () => {
      guards.x = await lock.exclusive();
      const dead = guards.x.abandoned;
      return { token: String(guards.x.token), abandoned: dead && { pid: dead.pid, token: String(dead.token) } };
    };
    on.acquireSync = () => { guards.x = lock.exclusiveSync(); return guards.x.abandoned?.pid ?? null; };`;

  testWith(apart)('exclude each other', async () => {
    const [one, two] = await Promise.all([helper(body, apart!), helper(body, apart!)]);
    expect([await one.call('pid'), await two.call('pid')]).toEqual([1, 1]);
    expect(await one.call('try')).toBe(true);
    expect(await two.call('try')).toBe(false);
    const waiting = two.call('acquire');
    const lock = open('x');
    await until(() => lock.query().pending.length === 1);
    await one.call('release');
    expect(await waiting).toMatchObject({ abandoned: null });
    expect(lock.tryShared()).toBeNull();
  });

  testWith(apart)('recover each other', async () => {
    const [one, two] = await Promise.all([helper(body, apart!), helper(body, apart!)]);
    const lock = open('x');
    expect(await one.call('try')).toBe(true);
    const waiting = two.call('acquire');
    await until(() => lock.query().pending.length === 1);
    await one.end('SIGKILL');
    const granted = (await waiting) as { token: string; abandoned: { pid: number; token: string } };
    expect(granted.abandoned.pid).toBe(1);
    expect(BigInt(granted.token)).toBeGreaterThan(BigInt(granted.abandoned.token));
    const own = lock.exclusive();
    await two.end('SIGKILL');
    const guard = await own;
    expect(guard.abandoned).toMatchObject({ pid: 1, token: BigInt(granted.token) });
    guard.release();
    const three = await helper(body, apart!);
    const held = lock.exclusiveSync();
    const sync = expect(three.call('acquireSync')).rejects.toMatchObject({ code: 'EXITED' });
    await until(() => lock.query().pending.length === 1);
    await three.end('SIGKILL');
    await sync;
    await until(() => lock.query().pending.length === 0);
    held.release();
  });
});
