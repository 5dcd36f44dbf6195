// Processes that are killed while they hold locks over PostgreSQL, or wait for them; and those who come while the tables do not
// yet say that one is dead.
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { deaths } from '../faults/death';
import { track } from '../stage';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const FORGOTTEN_MS_MAX = 60_000;

describeWithServer('over PostgreSQL', () => {
  const fixture = new Fixture();
  deaths(fixture);

  /** A session whose transactions the test begins and ends. */
  async function bareSession(number: number): Promise<Client> {
    const client = new Client(`${fixture.server.url()}?options=-csearch_path%3Dproclock`);
    await client.connect();
    fixture.atEnd(() => client.end());
    await client.query(`select enter(${number}, 'bare', 1, 0, 'here')`);
    fixture.atEnd(async () => client.query(`select leave(${number}), leave(${number})`));
    return client;
  }

  /** A lock that a child holds, as the tables show it. Nobody looks for the dead but who is told to. */
  async function heldByChild() {
    const { name, server } = fixture;
    const holder = await fixture.child();
    await holder.hold(name);
    const encoded = Buffer.from(name);
    const [row] = await server.sql('select key, owner from proclock.locks where name = $1', [encoded]);
    const { key, owner } = row!;
    const isDead = 'select pg_try_advisory_xact_lock_shared($1) as dead';
    return {
      die: async () => {
        await holder.kill();
        await until(async () => (await server.sql(isDead, [owner]))[0]!.dead === true);
      },
      askedBy: async (client: Client, session: number, how: string): Promise<string> => {
        const question = `select acquire($1, 7, $2, 'default', $3, true, $4) as answer`;
        return (await client.query(question, [session, key, encoded, how])).rows[0].answer.state;
      },
      owner: async () =>
        (await server.sql('select owner from proclock.locks where key = $1', [key]))[0]!.owner,
    };
  }

  test(
    'more sessions that ended without a word than the server has locks keep nobody waiting, and are forgotten',
    async () => {
      const { name, server } = fixture;
      const [first, second] = [await fixture.space(), await fixture.space()];
      const holder = await fixture.child();
      await holder.hold(name);
      const lock = new SharedLock(name, { space: first });
      const waits = lock.exclusive();
      await until(async () => (await lock.query()).pending.length === 1);
      const waitsBehind = new SharedLock(name, { space: second }).exclusive();
      await server.sql(`insert into proclock.sessions (session, client_id, pid, thread_id, host)
      select n, n, 1, 0, 'gone' from generate_series(1, 20000) as n`);
      await holder.kill();
      const guard = await waits;
      const gone = "select count(*)::int as count from proclock.sessions where host = 'gone'";
      const areForgotten = async () => {
        await sleep(100);
        return (await server.sql(gone))[0]!.count === 0;
      };
      await until(areForgotten, { within: FORGOTTEN_MS_MAX });
      await guard.release();
      await (await waitsBehind).release();
    },
    FORGOTTEN_MS_MAX + 30_000,
  );

  test('a killed process keeps nobody waiting who saw it alive, and was seen to wait only when others had looked', async () => {
    const held = await heldByChild();
    const late = await bareSession(1);
    const other = await bareSession(2);
    const look = async (): Promise<boolean> => {
      await other.query("update looks set looked_at = '-infinity'");
      return (await other.query('select look(2) as answer')).rows[0].answer.more;
    };

    await late.query('begin');
    expect(await held.askedBy(late, 1, 'wait')).toBe('queued');
    await held.die();
    const looked = track(look());
    const isLooking =
      "select from pg_stat_activity where wait_event_type = 'Lock' and query like 'select look(%'";
    await until(async () => looked.settled || (await fixture.server.sql(isLooking)).length > 0);
    await late.query('commit');
    await looked.promise;

    while (await look());
    expect(await held.owner()).toBe('1');
  });

  test.each(['wait', 'try'])(
    'a killed process keeps nobody waiting when the next one that asks (%s) is who finds it dead',
    async (how) => {
      const held = await heldByChild();
      expect(await held.askedBy(await bareSession(3), 3, 'wait')).toBe('queued');
      await held.die();
      const answer = await held.askedBy(await bareSession(4), 4, how);
      expect(answer).toBe(how === 'try' ? 'refused' : 'queued');
      expect(await held.owner()).toBe('3');
    },
  );
});
