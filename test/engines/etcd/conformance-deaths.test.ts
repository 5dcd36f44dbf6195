// The rest of the conformance suite over etcd: that in which processes are killed.
import { all } from '../cases';
import { conform } from '../stage';
import { describeWithServer } from './describe';
import { engineOnEtcd, SLOW_TOPICS } from './engine';
import { EtcdCluster } from './server';

// A random story waits for a disk some hundreds of times.
jest.setTimeout(120_000);

/** That a lease which runs out is a death like any other is shown by these. */
const RUN_OUT = 'deaths';
const of = (topics: string[]) =>
  Object.fromEntries(Object.entries(all).filter(([topic]) => topics.includes(topic)));

describeWithServer('over a member of its own', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await EtcdCluster.start();
  });
  afterAll(() => cluster?.stop());

  describe('leases run out', () => {
    conform(
      engineOnEtcd(() => cluster, false),
      of([RUN_OUT]),
    );
  });

  // Sooner, and no session ends but by a death, of which alone the model of a random story knows.
  describe('leases are revoked', () => {
    conform(
      engineOnEtcd(() => cluster, true),
      of(SLOW_TOPICS.filter((topic) => topic !== RUN_OUT)),
    );
  });
});
