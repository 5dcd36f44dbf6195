// What the network may do to locks over PostgreSQL.
import { lostAnswers } from '../faults/lost-answers';
import { network } from '../faults/network';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over PostgreSQL', () => {
  const fixture = new Fixture();
  network(fixture);
  lostAnswers(fixture);
});
