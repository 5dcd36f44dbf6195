// The checker over etcd. It looks for what is left out only where it is asked for: leases of two seconds make that slow.
import { describeIfAsked, findsNothing, findsWhatIsLeftOut } from '../checker/cases';
import { describeWithServer } from './describe';
import { Fixture, TTL_MS } from './fixture';

const SECONDS = 20;

describeWithServer('the checker', () => {
  const fixture = new Fixture();

  const restart = (how: NodeJS.Signals) => async () => {
    const { server } = fixture;
    await server.restart(server.members[0]!, how);
  };
  const field = fixture.field(TTL_MS, [restart('SIGKILL'), restart('SIGTERM')]);

  findsNothing(field, () => fixture.space(), SECONDS);
  describeIfAsked('where it was asked for', () => findsWhatIsLeftOut(field));
});
