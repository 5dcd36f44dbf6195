// What killed holders leave behind, a mark for each name, does not fill a namespace for ever: when there is no room for new
// names, the oldest marks give way. Those of names that are in use, and the latest ones, stay.
import type { SharedLock } from '../lib';
import { startActor } from './support/actor';
import { lockPerTest, name } from './support/locks';
import { allowPerTest } from './support/namespace';

const NAMES_MAX = 2 ** 18; // of a namespace
const AT_ONCE = 90_000;
const ROUNDS = 4;

allowPerTest(150_000);

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

test('marks of more names than there is room for: new names open, the latest marks are there', async () => {
  expect(ROUNDS * AT_ONCE).toBeGreaterThan(NAMES_MAX);
  const first = await startActor('fork', { namespace });
  await first.acquire({ name, mode: 'exclusive' });
  const { pid } = first;
  await first.kill('SIGKILL'); // a mark on a lock that this process has open

  const warned: unknown[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const dying = await startActor('fork', { namespace });
    const codes = await dying.run(
      `globalThis.kept = [];
       const codes = [];
       process.on('warning', ({ code }) => codes.push(code));
       for (let n = 0; n < args.count; n++) {
         const it = new proclock.SharedLock('job ' + args.round + ' ' + n, { namespace: args.namespace });
         globalThis.kept.push(it, it.tryExclusive());
       }
       await new Promise(setImmediate);
       return codes;`,
      { round, count: AT_ONCE, namespace },
    );
    warned.push(codes);
    await dying.kill('SIGKILL');
  }
  const after = await startActor('fork', { namespace });
  const markOf = async (job: string) => {
    const grant = await after.call('tryAcquire', { name: job, mode: 'exclusive' });
    await after.release(job);
    await after.call('close', { name: job });
    return grant?.abandoned ?? null;
  };
  expect(await markOf(`job ${ROUNDS - 1} 0`)).not.toBeNull();
  expect(await markOf(`job ${ROUNDS - 1} ${AT_ONCE - 1}`)).not.toBeNull();
  expect(await markOf('job 0 0')).toBeNull();
  // Said once, and only by whoever made them give way.
  expect(warned).toEqual([[], [], ['PROCLOCK_ABANDONED_DROPPED'], ['PROCLOCK_ABANDONED_DROPPED']]);
  const guard = lock.tryExclusive();
  expect(guard?.abandoned?.pid).toBe(pid);
  guard?.release();
});
