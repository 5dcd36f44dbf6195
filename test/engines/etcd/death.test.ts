// Processes that are killed while they hold locks over etcd, or wait for them.
import { deaths } from '../faults/death';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over etcd', () => deaths(new Fixture()));
