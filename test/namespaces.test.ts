// A namespace is a world of its own, in a file of its own, open to this user alone or to a group.
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { Lock, SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { expectIdle, name, withCode } from './support/locks';
import { segmentFiles, testNamespace } from './support/namespace';
import { segmentFile } from './support/segment';

const euid = process.geteuid!();

test.each(ACTOR_KINDS)('the same name in two namespaces is two locks, for a %s actor too', async (kind) => {
  const [one, other] = [testNamespace(), testNamespace()];
  const guard = await new SharedLock(name, { namespace: one }).exclusive();
  const lock = new SharedLock(name, { namespace: other });
  const actor = await startActor(kind, { namespace: other });
  expectIdle(lock);
  await actor.acquire({ name, mode: 'exclusive', timeout: 0 });
  expect(lock.query().held).toMatchObject([{ pid: actor.pid }]);
  await actor.release(name);
  guard.release();
});

test('its file is named after the user and the namespace, and only the user can use it', () => {
  const namespace = testNamespace();
  const umask = process.umask(0o777);
  try {
    new SharedLock(name, { namespace }).close();
  } finally {
    process.umask(umask);
  }
  expect(segmentFiles(namespace)).toEqual([segmentFile(namespace)]);
  const { mode, uid } = statSync(segmentFiles(namespace)[0]!);
  expect(mode & 0o7777).toBe(0o600);
  expect(uid).toBe(euid);
});

test('the default namespace is called default', () => {
  const file = segmentFile('default');
  const wasThere = existsSync(file); // somebody's own: then it stays
  const lock = new SharedLock(`test-${process.pid}-${Math.random()}`);
  expect(lock.namespace).toBe('default');
  const guard = new SharedLock(lock.name, { namespace: 'default' }).exclusiveSync({ timeout: 0 });
  expect(lock.tryShared()).toBeNull();
  guard.release();
  if (!wasThere) rmSync(file);
});

describe('what is no namespace', () => {
  const texts = ['', 'a b', 'a/b', '..\0', 'ä', 'a\n', '🔒', 'n'.repeat(65)];
  test.each(texts.map((text) => [JSON.stringify(text), text]))('%s', (_, namespace) => {
    for (const Class of [SharedLock, Lock]) {
      const open = () => new Class(name, { namespace: namespace! });
      expect(open).toThrow(TypeError);
      expect(open).toThrow(withCode('ERR_INVALID_ARG_VALUE'));
    }
  });

  test.each([null, 1, {}, Symbol('namespace')])('%p is not even a string', (namespace) => {
    const open = () => new SharedLock(name, { namespace: namespace as string });
    expect(open).toThrow(TypeError);
    expect(open).toThrow(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test('but every character that is allowed is', () => {
    const length = 64 - testNamespace().length;
    const namespace = testNamespace('AZaz09._-'.repeat(8).slice(0, length).padEnd(length, '-'));
    expect(namespace).toHaveLength(64);
    new SharedLock(name, { namespace }).exclusiveSync().release();
  });
});

describe('with a group', () => {
  const groups = readFileSync('/etc/group', 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(':'))
    .map(([group, , gid]) => ({ group: group!, gid: Number(gid) }));
  const { group, gid } = groups.find((found) => found.gid !== process.getegid!()) ?? groups[0]!;
  // Only root, or a member, can give a file to a group.
  const testIfMember = euid === 0 || process.getgroups!().includes(gid) ? test : test.skip;
  if (testIfMember !== test) console.log(`skipped: this user can not give a file to group ${group}`);

  testIfMember('the segment belongs to the group, whose members may read and write it', () => {
    const namespace = testNamespace();
    const umask = process.umask(0o777);
    try {
      new SharedLock(name, { namespace, group: gid }).close();
    } finally {
      process.umask(umask);
    }
    expect(segmentFiles(namespace)).toEqual([segmentFile(namespace, gid)]);
    const stats = statSync(segmentFiles(namespace)[0]!);
    expect(stats.mode & 0o7777).toBe(0o660);
    expect(stats.gid).toBe(gid);
  });

  testIfMember('a group by name and by id is the same; with and without one are two namespaces', () => {
    const namespace = testNamespace();
    const byName = new SharedLock(name, { namespace, group });
    const byId = new SharedLock(name, { namespace, group: gid });
    const without = new SharedLock(name, { namespace });
    const guard = byName.exclusiveSync();
    expect(byId.tryShared()).toBeNull();
    without.exclusiveSync({ timeout: 0 }).release();
    guard.release();
    expect(segmentFiles(namespace)).toHaveLength(2);
  });

  test('what is no group is refused', () => {
    const namespace = testNamespace();
    const open = (wanted: unknown) => () => new SharedLock(name, { namespace, group: wanted as string });
    for (const wanted of ['', 'no such group', 'a\0b'])
      expect(open(wanted)).toThrow(withCode('ERR_INVALID_ARG_VALUE'));
    for (const wanted of [null, {}, true]) expect(open(wanted)).toThrow(withCode('ERR_INVALID_ARG_TYPE'));
    for (const wanted of [-1, 0.5, Number.NaN, 2 ** 32 - 1])
      expect(open(wanted)).toThrow(withCode('ERR_OUT_OF_RANGE'));
    expect(segmentFiles(namespace)).toEqual([]);
  });
});
