// Processes that stand still while they hold locks over etcd.
import { standingStill } from '../faults/standing-still';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over etcd', () => standingStill(new Fixture()));
