// The checker over PostgreSQL: whatever happens, the history of all processes is one that a lock may have. And where something
// is left out that this rests on, the checker finds it.
//
// PROCLOCK_CHECKER_S runs it, for so many seconds. Without, it is skipped: its longer runs still find what nobody has
// explained yet (CONTRIBUTING.md), and storm.test.ts searches in a smaller space.
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../../../lib/remote';
import { judge } from '../checker/history';
import { check, type Field } from '../checker/run';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const SECONDS = Number(process.env.PROCLOCK_CHECKER_S ?? 20);
const MUTANT_SECONDS = 8;
const SEED = Number(process.env.PROCLOCK_CHECKER_SEED ?? Date.now() % 1_000_000);
const TTL = 1000;

const describeIfAsked = process.env.PROCLOCK_CHECKER_S === undefined ? describe.skip : describeWithServer;

describeIfAsked('the checker', () => {
  const fixture = new Fixture();

  const field: Field = {
    ttlMs: TTL,
    proxy: () => fixture.proxy(),
    opening: ({ port }) => ['postgres', 'connect', [fixture.server.url('postgres', port), { ttl: TTL }]],
    breaks: [
      async () => {
        await fixture.server.sql(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'proclock'",
        );
      },
      () => fixture.server.restart('immediate'),
    ],
  };

  test(
    `finds nothing in ${SECONDS} s (PROCLOCK_CHECKER_SEED=${SEED})`,
    async () => {
      const seen = await check(field, { seconds: SECONDS, seed: SEED });
      expect(seen.failures).toEqual([]);
      expect(judge(seen)).toEqual([]);
      expect(seen.entries.length).toBeGreaterThan(10 * SECONDS);
      expect(seen.thefts.length).toBeGreaterThan(0);
      // Whoever was killed is in nobody's way, and who went in good order has left nothing.
      const space = await fixture.space();
      for (const { name } of new Map(seen.entries.map((entry) => [entry.name, entry])).values()) {
        const guard = await new SharedLock(name, { space }).exclusive({ timeout: 10_000 });
        await guard.release();
      }
      expect(await space.query()).toEqual({ held: [], pending: [] });
    },
    (SECONDS + 120) * 1000,
  );

  test(
    'finds it where nobody gives up by its own clock',
    async () => {
      const run = { seconds: MUTANT_SECONDS, seed: SEED, mutant: 'no deadline', stallsOnly: true };
      expect(judge(await check(field, run)).join('\n')).toMatch(/H1/);
    },
    (MUTANT_SECONDS + 120) * 1000,
  );

  test('finds it where everybody else looks dead', async () => {
    await (await fixture.lock()).tryShared();
    const { server } = fixture;
    const [found] = await server.sql("select pg_get_functiondef('proclock.is_alive'::regproc) as definition");
    await server.sql(
      'create or replace function proclock.is_alive(me int8, other int8) returns boolean language sql as $$ select me = other $$',
    );
    const seen = await check(field, { seconds: 3, seed: SEED, stallsOnly: true });
    await server.sql(found!.definition as string);
    expect(judge(seen).join('\n')).toMatch(/H1/);
    await sleep(TTL);
  }, 120_000);
});
