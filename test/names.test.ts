// Any string is a name, and two different strings are two locks, in every process alike.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { expectIdle } from './support/locks';
import { testNamespace } from './support/namespace';

const long = 'n'.repeat(10_000);
const NAMES = {
  empty: '',
  space: ' ',
  NUL: '\0',
  'two NUL': '\0\0',
  plain: 'a',
  'with a NUL behind': 'a\0',
  'with a NUL before': '\0a',
  'a prefix': 'ledge',
  'the whole': 'ledger',
  'upper case': 'Ledger',
  'a path': '../../etc/passwd',
  slash: '/',
  '10,000 characters': long,
  '10,000 characters, the last one different': `${long.slice(1)}m`,
  '9,999 characters': long.slice(1),
  '10,000 wide characters': 'ж'.repeat(10_000),
  emoji: '🔒',
  'the first half of an emoji': '\ud83d',
  'the second half of an emoji': '\udd12',
  'its halves in the wrong order': '\udd12\ud83d',
  'another lone surrogate': '\ud800',
  'the replacement character': '\ufffd',
  'three question marks': '???',
  'e acute, composed': '\u00e9',
  'e acute, decomposed': 'e\u0301',
  // Each of the next three is, as UTF-16 or UTF-8 bytes, the bytes of another one.
  'latin1 text of the bytes of a UTF-16 text': 'a\0b\0',
  'the UTF-16 text': 'ab',
  'latin1 text of the UTF-8 bytes of e acute': '\u00c3\u00a9',
};

test('each name is a lock of its own: all are held exclusively at once, and each is the same one elsewhere', async () => {
  const namespace = testNamespace();
  const locks = Object.values(NAMES).map((name) => new SharedLock(name, { namespace }));
  const guards = await Promise.all(locks.map((lock) => lock.exclusive({ timeout: 0 })));
  const actors = await Promise.all(ACTOR_KINDS.map((kind) => startActor(kind, { namespace })));
  for (const [i, lock] of locks.entries()) {
    const { name } = lock;
    for (const actor of actors) {
      expect([name, await actor.call('tryAcquire', { name })]).toEqual([name, null]);
    }
    expect(lock.query().held).toEqual([
      expect.objectContaining({ name, mode: 'exclusive', pid: process.pid }),
    ]);
    guards[i]!.release();
    for (const actor of actors) expect(await actor.call('tryAcquire', { name })).not.toBeNull();
    expect(lock.query().held).toHaveLength(actors.length);
    for (const actor of actors) await actor.release(name);
    expectIdle(lock);
  }
});

test('a name is the same however its string came about', () => {
  const namespace = testNamespace();
  // The engine stores what was cut out of a string with wide characters differently from a literal.
  const twins: Array<[string, string]> = [
    ['caf\u00e9', '\u{1f512}caf\u00e9'.slice(2)],
    ['ledger', ['led', 'ger'].join('')],
    ['\ud83d', '\u{1f512}'.charAt(0)],
    ['abcdefghijklmnop', Buffer.from('abcdefghijklmnop', 'utf16le').toString('utf16le')],
  ];
  for (const [one, other] of twins) {
    expect(one).toBe(other);
    const guard = new SharedLock(one, { namespace }).exclusiveSync();
    expect(new SharedLock(other, { namespace }).tryShared()).toBeNull();
    guard.release();
  }
});

test('a handle keeps the name it was given', () => {
  const namespace = testNamespace();
  for (const name of Object.values(NAMES)) {
    const lock = new SharedLock(name, { namespace });
    expect(lock.name).toBe(name);
    expect(lock.namespace).toBe(namespace);
  }
});

describe('an anonymous lock', () => {
  test('has a fresh name, that nobody else has', async () => {
    const namespace = testNamespace();
    const locks = [new SharedLock(undefined, { namespace }), new SharedLock(undefined, { namespace })];
    const actor = await startActor('fork', { namespace });
    const names = [
      ...locks.map(({ name }) => name),
      await actor.run(`return new proclock.SharedLock(undefined, { namespace: '${namespace}' }).name`),
    ];
    expect(new Set(names).size).toBe(names.length);
    const guards = locks.map((lock) => lock.exclusiveSync({ timeout: 0 }));
    for (const guard of guards) guard.release();
  });

  test.each(ACTOR_KINDS)('is shared with a %s actor that is told its name', async (kind) => {
    const namespace = testNamespace();
    const lock = new SharedLock(undefined, { namespace });
    const actor = await startActor(kind, { namespace });
    const guard = await lock.exclusive();
    expect(await actor.call('tryAcquire', { name: lock.name })).toBeNull();
    guard.release();
    await actor.acquire({ name: lock.name, mode: 'exclusive' });
    expect(lock.tryShared()).toBeNull();
    await actor.release(lock.name);
    expectIdle(lock);
  });
});
