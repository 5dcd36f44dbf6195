// Connections that break all the time, in the middle of questions and answers: nobody is granted what another one has, every
// answer that comes is true, and in the end nothing is left. `PROCLOCK_RESETS_S` says for how long; a few seconds in CI.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LockGuard, SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const SECONDS = Number(process.env.PROCLOCK_RESETS_S ?? 4);
const WORKERS = 6;

/** Longer than any break of a connection. */
const TTL_MS = 60_000;

/** Who is inside, as the guards of this process say. */
class Inside {
  private readonly all = new Set<LockGuard>();
  private token = 0n;
  grants = 0;

  enter(guard: LockGuard): void {
    this.grants++;
    this.all.add(guard);
    this.check(guard);
  }

  check(guard: LockGuard): void {
    const others = [...this.all].filter((other) => other !== guard && !other.lost.aborted);
    if (guard.mode === 'exclusive') {
      expect(others).toEqual([]);
      expect(guard.token).toBeGreaterThan(this.token);
    } else {
      expect(others.filter(({ mode }) => mode === 'exclusive')).toEqual([]);
      expect(guard.token).toBeGreaterThanOrEqual(this.token);
    }
    this.token = guard.token;
  }

  leave(guard: LockGuard): void {
    this.all.delete(guard);
  }
}

describeWithServer('connections that break', () => {
  const fixture = new Fixture();

  test(
    'lose nothing, and leave nothing behind',
    async () => {
      const proxy = await fixture.proxy();
      const near = await fixture.lock({ ttl: TTL_MS });
      const inside = new Inside();
      const end = performance.now() + SECONDS * 1000;
      const isOver = () => performance.now() > end;

      async function work(lock: SharedLock): Promise<void> {
        while (!isOver()) {
          const mode = Math.random() < 0.5 ? 'exclusive' : 'shared';
          const patient = Math.random() < 0.7;
          const guard = await lock[mode](patient ? {} : { timeout: Math.random() * 50 }).catch((error) => {
            expect(error.code).toMatch(/ERR_LOCK_(TIMEOUT|UNAVAILABLE)/);
          });
          if (guard === undefined) continue;
          inside.enter(guard);
          await sleep(Math.random() * 5);
          inside.leave(guard);
          if (mode === 'exclusive' && Math.random() < 0.3) {
            await guard.downgrade();
            inside.enter(guard);
            inside.leave(guard);
          } else if (mode === 'shared' && Math.random() < 0.3) {
            const upgraded = await guard.upgrade({ timeout: Math.random() * 100 }).then(
              () => true,
              (error) => {
                expect(error.code).toMatch(/ERR_LOCK_(TIMEOUT|UPGRADE|UNAVAILABLE)/);
                return false;
              },
            );
            if (upgraded) {
              inside.enter(guard);
              inside.leave(guard);
            }
          }
          expect(guard.lost.aborted).toBe(false);
          expect(guard.abandoned).toBeNull();
          await guard.release();
        }
      }

      const locks = await Promise.all(
        Array.from({ length: WORKERS }, () => fixture.lock({ ttl: TTL_MS }, fixture.through(proxy))),
      );
      const working = Promise.all(locks.map(work));
      const breaking = (async () => {
        while (!isOver()) {
          if (Math.random() < 0.5) proxy.stall(Math.random() < 0.5 ? 'up' : 'down');
          await sleep(Math.random() * 30);
          proxy.reset();
          proxy.resume();
          await sleep(Math.random() * 400);
        }
      })();
      await Promise.all([working, breaking]);
      expect(inside.grants).toBeGreaterThan(0);
      await until(async () => Object.values(await near.query()).flat().length === 0);
      await near.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
      expect(await fixture.server.keys('proclock/default/lock/')).toEqual([]);
    },
    (SECONDS + 30) * 1000,
  );
});
