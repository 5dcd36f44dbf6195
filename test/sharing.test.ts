// Shared holders do not exclude each other, and an exclusive one waits for the last of them.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActors } from './support/actor';
import { as, expectIdle, name, who } from './support/locks';
import { testNamespace } from './support/namespace';

test('processes and threads hold a lock shared at the same time; the writer comes after the last of them', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const readers = await startActors([...ACTOR_KINDS, 'fork'], { namespace });
  const [writer] = await startActors(['fork'], { namespace });

  const own = await lock.shared();
  for (const reader of readers) await reader.acquire({ name });
  expect(lock.query().held).toHaveLength(readers.length + 1);

  const granted = await writer!.queue({ name, mode: 'exclusive' });
  own.release();
  for (const reader of readers) {
    expect(granted.settled).toBe(false);
    await writer!.call('ping');
    expect(granted.settled).toBe(false);
    await reader.release(name);
  }
  await granted.promise;
  expect(who((await readers[0]!.query({ name })).held)).toEqual([as(writer!, 'exclusive')]);
  await writer!.release(name);
  expectIdle(lock);
});

test('one thread may hold it shared many times, each guard counts', async () => {
  const lock = new SharedLock(name, { namespace: testNamespace() });
  const guards = await Promise.all([lock.shared(), lock.shared(), lock.shared()]);
  for (const guard of guards) {
    expect(lock.tryExclusive()).toBeNull();
    guard.release();
  }
  lock.tryExclusive()!.release();
  expectIdle(lock);
});

test('an end of an exclusive hold lets all waiting readers in together', async () => {
  const namespace = testNamespace();
  const lock = new SharedLock(name, { namespace });
  const readers = await startActors(ACTOR_KINDS, { namespace });
  const writer = await lock.exclusive();
  const waits = await Promise.all(readers.map((reader) => reader.queue({ name })));
  expect(lock.query().pending).toHaveLength(readers.length);
  writer.release();
  await Promise.all(waits.map((wait) => wait.promise));
  expect(lock.query()).toMatchObject({ held: readers.map(() => ({ mode: 'shared' })), pending: [] });
});
