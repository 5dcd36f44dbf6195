// Without `fair` a running process may get ahead of those who sleep, but not for long: nobody starves.
import { SharedLock } from '../lib';
import { type Actor, PROCESS_KINDS, startActors } from './support/actor';
import { as, MODES, name, untilPending, who } from './support/locks';
import { testNamespace, until } from './support/namespace';

/** Takes and gives back the lock, again and again, until `globalThis.stopped`; counts. */
const STREAM = `
  const it = lock({ name: args.name });
  globalThis.count = 0;
  while (!globalThis.stopped) {
    const guard = args.mode === 'shared' ? await it.shared() : it.exclusiveSync();
    globalThis.count++;
    const end = performance.now() + args.holdMs;
    while (performance.now() < end);
    if (globalThis.count % 8 === 0) await new Promise(setImmediate); // hear the command to stop, still holding
    guard.release();
  }
  return globalThis.count;`;

async function stream(actors: Actor[], mode: string, holdMs: number) {
  const ends = actors.map((actor) => actor.begin('run', { source: STREAM, args: { name, mode, holdMs } }));
  for (const actor of actors)
    await until(async () => (await actor.run<number>('return globalThis.count')) > 10);
  return async () => {
    await Promise.all(actors.map((actor) => actor.run('globalThis.stopped = true')));
    await Promise.all(ends.map((end) => end.promise));
  };
}

describe.each(MODES)('against an endless stream of %s holders in other processes', (streamed) => {
  test.each(MODES)('a waiter (%s) gets the lock, again and again', async (wanted) => {
    const namespace = testNamespace();
    const actors = await startActors([...PROCESS_KINDS, 'fork'], { namespace });
    const stop = await stream(actors, streamed, 0.5);
    const lock = new SharedLock(name, { namespace });
    for (let round = 0; round < 10; round++) {
      const options = { exclusive: wanted === 'exclusive', timeout: 10_000 };
      (await lock.acquire(options)).release();
      lock.acquireSync(options).release();
    }
    await stop();
  });
});

test('who comes after the barrier went up queues behind the waiting writer', async () => {
  const namespace = testNamespace();
  const [reader, writer, late] = (await startActors(['fork', 'cluster', 'fork'], { namespace })) as [
    Actor,
    Actor,
    Actor,
  ];
  const lock = new SharedLock(name, { namespace });
  await reader.acquire({ name });
  const written = await writer.queue({ name, mode: 'exclusive' });
  // Up to a millisecond after the writer came, another reader may still get in.
  await until(() => {
    const guard = lock.tryShared();
    guard?.release();
    return guard === null;
  });

  expect(lock.tryShared()).toBeNull();
  const read = await late.queue({ name });
  expect(who(lock.query().pending as never)).toEqual([as(writer, 'exclusive'), as(late, 'shared')]);
  await reader.release(name);
  await written.promise;
  expect(read.settled).toBe(false);
  await writer.release(name);
  await read.promise;
});

test('a front waiter whose event loop is busy does not hold up those behind it, and keeps its place', async () => {
  const namespace = testNamespace();
  const [busy, behind] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
  const lock = new SharedLock(name, { namespace });
  const first = await lock.exclusive();
  const stuck = await busy.queue({ name, mode: 'exclusive' });
  await busy.stop();
  const passing = await behind.queue({ name, mode: 'exclusive' });
  await untilPending(lock, 2);
  first.release();
  await passing.promise;
  expect(who(lock.query().pending as never)).toEqual([as(busy, 'exclusive')]);
  await behind.release(name);
  busy.cont();
  await stuck.promise;
});
