// The checker over PostgreSQL.
import { until } from '../../support/until';
import { findsNothing, findsWhatIsLeftOut, MUTANT_MS_MAX, wrongWithout } from '../checker/cases';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const TTL = 1000;
const SECONDS = 60;

describeWithServer('the checker', () => {
  const fixture = new Fixture();

  const field = fixture.field(TTL, [
    async () => {
      await fixture.server.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'proclock'",
      );
    },
    () => fixture.server.restart('immediate'),
  ]);

  findsNothing(field, () => fixture.space(), SECONDS);

  test('nothing is left of those that were killed, as soon as somebody waits', async () => {
    const lock = await fixture.lock();
    const guard = await lock.exclusive();
    const waiting = (await fixture.lock()).exclusive();
    await until(async () => (await fixture.server.leftovers()) === 4); // two sessions, a hold, a wait
    await guard.release();
    await (await waiting).release();
  });

  findsWhatIsLeftOut(field);

  test(
    'finds it where everybody else looks dead',
    async () => {
      await (await fixture.lock()).query(); // the schema is there
      const { server } = fixture;
      const [found] = await server.sql(
        "select pg_get_functiondef('proclock.is_alive'::regproc) as definition",
      );
      await server.sql(
        'create or replace function proclock.is_alive(me int8, other int8) returns boolean language sql as $$ select me = other $$',
      );
      const wrong = await wrongWithout(field);
      await server.sql(found!.definition as string);
      expect(wrong).toMatch(/H1/);
    },
    MUTANT_MS_MAX,
  );
});
