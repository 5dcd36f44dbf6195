// The conformance suite over etcd; but for what conformance-deaths.test.ts has, so that both run side by side.
import { all } from '../cases';
import { conform } from '../stage';
import { describeWithServer } from './describe';
import { engineOnEtcd, SLOW_TOPICS } from './engine';
import { EtcdCluster } from './server';

// A random story waits for a disk some hundreds of times, and for leases besides.
jest.setTimeout(120_000);

describeWithServer('over a member of its own', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await EtcdCluster.start();
  });
  afterAll(() => cluster?.stop());

  conform(
    engineOnEtcd(() => cluster),
    Object.fromEntries(Object.entries(all).filter(([topic]) => !SLOW_TOPICS.includes(topic))),
  );
});
