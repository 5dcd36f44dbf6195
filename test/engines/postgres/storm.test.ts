// Random operations and random faults. Whatever happens, no two spaces are certain of the lock at the same time unless both
// hold it shared; tokens grow in the order of the grants; in the end the lock is free. (Thefts are left out: the robbed one
// hears of them when it is too late.)
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../../lib/postgres';
import { type LockGuard, SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import type { NetworkProxy } from '../proxy';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const SECONDS = Number(process.env.PROCLOCK_STORM_S ?? 12);
const SEED = Number(process.env.PROCLOCK_STORM_SEED ?? Date.now() % 1_000_000);
const SPACES = 6;
const NAMES = 2;
const TTL = 1000;
/** How much later than the server this process may hear that a connection has ended. */
const HEARD_MS = 100;

/** Mulberry32. */
function dice(seed: number) {
  let state = seed;
  return (sides: number): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

/** From when until when somebody was certain. */
interface Interval {
  name: string;
  mode: 'shared' | 'exclusive';
  from: number;
  to: number;
  token: bigint;
}

describeWithServer('a storm', () => {
  const fixture = new Fixture();
  const history: Interval[] = [];
  let over = false;

  /** Notes until when the guard is certain in this mode. */
  function note(name: string, guard: LockGuard): { end(): void } {
    const entry: Interval = {
      name,
      mode: guard.mode,
      from: performance.now(),
      to: Number.POSITIVE_INFINITY,
      token: guard.token,
    };
    history.push(entry);
    const end = (): void => {
      entry.to = Math.min(entry.to, performance.now());
    };
    const lose = (): void => {
      // A lease that ran out is known here first. That a connection has ended, the server may know first.
      const { cause } = guard.lost.reason.cause as Error;
      entry.to = Math.min(entry.to, performance.now() - (cause === undefined ? 0 : HEARD_MS));
    };
    if (guard.lost.aborted) lose();
    else guard.lost.addEventListener('abort', lose);
    return { end };
  }

  async function user(space: Space, roll: (sides: number) => number): Promise<void> {
    while (!over) {
      const name = `storm ${roll(NAMES)}`;
      const lock = new SharedLock(name, { space });
      try {
        await turn(name, lock, roll);
      } catch (error) {
        const { code } = error as { code?: string };
        expect([
          'ERR_LOCK_TIMEOUT',
          'ERR_LOCK_LOST',
          'ERR_LOCK_UNAVAILABLE',
          'ERR_LOCK_UPGRADE',
          20, // an AbortError
          23, // a TimeoutError
        ]).toContain(code);
      }
    }
  }

  async function turn(name: string, lock: SharedLock, roll: (sides: number) => number) {
    const kind = roll(12);
    if (kind === 0) {
      await lock.query();
      return;
    }
    const options = {
      timeout: roll(3) === 0 ? roll(50) : 20_000,
      ...(roll(4) === 0 ? { signal: AbortSignal.timeout(1 + roll(40)) } : {}),
    };
    const mode = roll(2) === 0 ? 'shared' : 'exclusive';
    const guard = kind === 2 ? await lock.tryExclusive() : await lock[mode](options);
    if (guard === null) return;
    let noted = note(name, guard);
    try {
      await sleep(roll(8));
      if (guard.mode === 'exclusive' && roll(3) === 0) {
        noted.end();
        await guard.downgrade();
        noted = note(name, guard);
      } else if (guard.mode === 'shared' && roll(3) === 0) {
        const upgraded =
          roll(2) === 0 ? await guard.tryUpgrade() : await guard.upgrade({ timeout: 50 }).then(() => true);
        if (upgraded) {
          noted.end();
          noted = note(name, guard);
        }
      }
      await sleep(roll(4));
    } finally {
      noted.end();
      await guard.release();
    }
  }

  async function faults(proxies: NetworkProxy[], roll: (sides: number) => number): Promise<void> {
    while (!over) {
      await sleep(50 + roll(300));
      const proxy = proxies[roll(proxies.length)]!;
      switch (roll(5)) {
        case 0:
          proxy.reset();
          continue;
        case 1:
          // While nothing else is wrong: who does not hear of it can not know.
          await fixture.server.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'proclock' order by random() limit 1",
          );
          continue;
        case 2:
          proxy.stall(...(roll(2) === 0 ? (['up'] as const) : (['up', 'down'] as const)));
          break;
        case 3:
          proxy.stall('down');
          break;
        default:
          proxy.delay(roll(60));
      }
      await sleep(roll(2 * TTL));
      proxy.delay(0);
      proxy.resume();
    }
  }

  test(
    `of ${SECONDS} s (PROCLOCK_STORM_SEED=${SEED})`,
    async () => {
      const roll = dice(SEED);
      const proxies: NetworkProxy[] = [];
      const spaces: Space[] = [];
      for (let index = 0; index < SPACES; index++) {
        const proxy = await fixture.proxy();
        proxies.push(proxy);
        spaces.push(await connect(fixture.server.url('postgres', proxy.port), { ttl: TTL }));
      }
      const users = spaces.flatMap((space, index) => [
        user(space, dice(SEED + 10 * index + 1)),
        user(space, dice(SEED + 10 * index + 2)),
      ]);
      const faulty = faults(proxies, dice(SEED + 1000));
      await sleep(SECONDS * 1000 + roll(100));
      over = true;
      await faulty;
      for (const proxy of proxies) proxy.resume();
      await Promise.all(users);
      for (const space of spaces) await space.close();

      expect(history.length).toBeGreaterThan(100);
      for (let name = 0; name < NAMES; name++) {
        const grants = history
          .filter((entry) => entry.name === `storm ${name}` && entry.from < entry.to)
          .sort((one, other) => one.from - other.from);
        let lastEnd = 0; // of all that came before
        let lastExclusiveEnd = 0;
        let lastToken = 0n;
        for (const { mode, from, to, token } of grants) {
          expect(from).toBeGreaterThanOrEqual(mode === 'exclusive' ? lastEnd : lastExclusiveEnd);
          if (mode === 'exclusive') {
            expect(token).toBeGreaterThan(lastToken);
            lastExclusiveEnd = Math.max(lastExclusiveEnd, to);
          } else expect(token).toBeGreaterThanOrEqual(lastToken);
          lastToken = token;
          lastEnd = Math.max(lastEnd, to);
        }
      }
      const check = await fixture.space();
      for (let name = 0; name < NAMES; name++) {
        await (
          await new SharedLock(`storm ${name}`, { space: check }).exclusive({ timeout: 10_000 })
        ).release();
      }
      await check.close();
      await until(async () => (await fixture.server.leftovers()) === 0 || sweep());
    },
    SECONDS * 1000 + 120_000,
  );

  /** Somebody has to look for sessions that died with nobody waiting. */
  async function sweep(): Promise<boolean> {
    const space = await connect(fixture.server.url());
    const [one, two] = [new SharedLock('sweep', { space }), new SharedLock('sweep', { space })];
    const guard = await one.exclusive();
    await two.exclusive({ timeout: 500 }).catch(() => {});
    await guard.release();
    await space.close();
    return false;
  }
});
