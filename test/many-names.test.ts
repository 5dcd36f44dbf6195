// A namespace has room for 262,144 names in use. Handles that nobody uses do not count, whether the garbage collector has had
// the time to find them or not: the loop of a program that opens a lock for each key may never let the event loop turn.
import { allowPerTest, testNamespace } from './support/namespace';
import { inProcess } from './support/segment';

const NAMES = 262_144;

allowPerTest(150_000);

test('a lock for each key, in a loop without a turn of the event loop', () => {
  const { code, message, value } = inProcess(
    testNamespace(),
    `const kept = new SharedLock('kept', { namespace });
     const guard = new SharedLock('held', { namespace }).exclusiveSync();
     const pending = new SharedLock('held', { namespace }).shared();
     const before = kept.exclusiveSync();
     before.release();
     for (let i = 0; i < ${NAMES + 10_000}; i++) new SharedLock('key' + i, { namespace }).exclusiveSync().release();
     const after = kept.exclusiveSync(); // was closed meanwhile, and is opened again
     const seen = {
       token: after.token > before.token,
       excludes: new SharedLock('kept', { namespace }).query().held.length,
       held: new SharedLock('held', { namespace }).query(),
     };
     after.release();
     guard.release();
     (await pending).release();
     return { ...seen, held: seen.held.held.length, pending: seen.held.pending.length, idle: kept.query() };`,
  );
  expect({ code, message }).toEqual({ code: '', message: '' });
  expect(value).toEqual({
    token: true,
    excludes: 1,
    held: 1,
    pending: 1,
    idle: { held: [], pending: [] },
  });
});

test('names that are held do count', () => {
  const { code, message } = inProcess(
    testNamespace(),
    `const guards = [];
     for (let i = 0; i < ${NAMES + 1}; i++) guards.push(new SharedLock('key' + i, { namespace }).exclusiveSync());`,
  );
  expect({ code, message }).toEqual({
    code: 'ERR_LOCK_CAPACITY',
    message: expect.stringContaining('is full (at most 2,047 processes, 262,144 names in use'),
  });
});
