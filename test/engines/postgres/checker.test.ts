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

  test.each([
    ['everybody else looks dead', 'is_alive', ' or not pg_try_advisory_xact_lock_shared(other)', ''],
    ['no name says that it has slots', 'add_slot', 'set may_have_slots = true', 'set may_have_slots = false'],
  ])(
    'finds it where %s',
    async (_, name, right, wrong) => {
      await (await fixture.lock()).query(); // the schema is there
      const { server } = fixture;
      const [row] = await server.sql(`select pg_get_functiondef('proclock.${name}'::regproc) as definition`);
      const definition = row!.definition as string;
      expect(definition).toContain(right);
      await server.sql(definition.replace(right, wrong));
      const found = await wrongWithout(field);
      await server.sql(definition);
      expect(found).toMatch(/H1/);
    },
    MUTANT_MS_MAX,
  );
});
