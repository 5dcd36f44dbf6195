// The checker over etcd. It looks for what is left out only where it is asked for: leases of two seconds make that slow.
import { describeIfAsked, findsNothing, findsWhatIsLeftOut } from '../checker/cases';
import type { Field } from '../checker/run';
import { describeWithServer } from './describe';
import { Fixture, TTL_MS } from './fixture';

const SECONDS = 20;

describeWithServer('the checker', () => {
  const fixture = new Fixture();

  const field: Field = {
    ttlMs: TTL_MS,
    sessionsBreak: false,
    proxy: () => fixture.proxy(),
    opening: ({ port }) => ['etcd', 'connect', [`127.0.0.1:${port}`, { ttl: TTL_MS }]],
    breaks: fixtureBreaks(fixture),
  };

  findsNothing(field, () => fixture.space(), SECONDS);
  describeIfAsked('where it was asked for', () => findsWhatIsLeftOut(field));
});

function fixtureBreaks(fixture: Fixture): Field['breaks'] {
  const restart = (how: NodeJS.Signals) => async () => {
    const { cluster } = fixture;
    await cluster.restart(cluster.members[0]!, how);
  };
  return [restart('SIGKILL'), restart('SIGTERM')];
}
