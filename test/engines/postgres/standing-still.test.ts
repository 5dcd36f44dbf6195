// Processes that stand still while they hold locks over PostgreSQL.
import { standingStill } from '../faults/standing-still';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over PostgreSQL', () => standingStill(new Fixture()));
