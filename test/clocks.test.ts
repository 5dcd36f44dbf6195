// Clocks of two processes can not be compared: they may be in two time namespaces (containers that were moved with CRIU, or
// `unshare --time`). A lock that is free, whose first waiter is stopped, and behind it one whose monotonic clock is far ahead,
// or behind: that one is granted as soon as any other would be, and nobody overtakes for longer than for a moment.
import type { SharedLock } from '../lib';
import { startActor, startActors } from './support/actor';
import { testWith, timeOf, unshare } from './support/disturb';
import { expectIdle, lockPerTest, name } from './support/locks';

const GRANTED_MS_MAX = 2000;
const OVERTAKEN_MS_MAX = 1000;

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

// Back only if the machine has been up for as long.
const clocks = [600, 36_000_000, -600].map((seconds) => ({
  seconds,
  via: unshare('--time', `--monotonic=${seconds}`),
}));

describe.each(clocks)('a clock that is $seconds s ahead', ({ via }) => {
  testWith(via)('passes a stopped process, and is passed when it is stopped', async () => {
    const [here, holder] = await startActors(['fork', 'fork'], { namespace });
    const there = await startActor('fork', { namespace, via: via! });
    for (const [front, next] of [
      [here!, there],
      [there, here!],
    ] as const) {
      await holder!.acquire({ name, mode: 'exclusive' });
      const first = await front.queue({ name, mode: 'exclusive' });
      const second = await next.queue({ name, mode: 'exclusive' });
      await front.stop();
      await holder!.release(name);
      expect(await timeOf(second.promise)).toBeLessThan(GRANTED_MS_MAX);
      await next.release(name);
      front.cont();
      await first.promise;
      await front.release(name);
    }
    expectIdle(lock);
  });

  testWith(via).each(['there', 'here'])(
    'a waiter is not overtaken for long by one that never stops taking the lock (the waiter is %s)',
    async (where) => {
      const [here, there] = await Promise.all([
        startActor('fork', { namespace }),
        startActor('fork', { namespace, via: via! }),
      ]);
      const [waiter, greedy] = where === 'there' ? [there, here] : [here, there];
      await greedy.run(
        `const it = lock({ name: args });
         globalThis.greedy = true;
         (async () => {
           while (globalThis.greedy) {
             for (let n = 0; n < 1000; n++) it.tryExclusive()?.release();
             await new Promise((resolve) => setImmediate(resolve));
           }
         })();`,
        name,
      );
      for (let round = 0; round < 5; round++) {
        const waiting = waiter.begin('acquire', { name, mode: 'exclusive' });
        expect(await timeOf(waiting.promise)).toBeLessThan(OVERTAKEN_MS_MAX);
        await waiter.release(name);
      }
      await greedy.run('globalThis.greedy = false;');
    },
  );

  testWith(via)('timeouts last as long as they do elsewhere, and a death is noticed', async () => {
    const [holder, there] = await Promise.all([
      startActor('fork', { namespace }),
      startActor('fork', { namespace, via: via! }),
    ]);
    await holder.acquire({ name, mode: 'exclusive' });
    const late = await timeOf(
      there.acquire({ name, timeout: 100 }).catch((error) => expect(error.code).toBe('ERR_LOCK_TIMEOUT')),
    );
    expect(late).toBeGreaterThan(90);
    expect(late).toBeLessThan(GRANTED_MS_MAX);
    const waiting = await there.queue({ name, mode: 'exclusive' });
    await holder.kill('SIGKILL');
    expect(await timeOf(waiting.promise)).toBeLessThan(GRANTED_MS_MAX);
    await there.release(name);
  });
});
