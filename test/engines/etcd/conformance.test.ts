// The conformance suite over etcd; but for what conformance-deaths.test.ts has, so that both run side by side.
import { all } from '../cases';
import { conform } from '../stage';
import { describeWithServer } from './describe';
import { engineOnEtcd, SLOW_TOPICS } from './engine';
import { EtcdCluster } from './server';

// Most of them wait for a disk.
jest.setTimeout(120_000);

describeWithServer('over a member of its own', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await EtcdCluster.start();
  });
  afterAll(() => cluster?.stop());

  conform(
    engineOnEtcd(() => cluster, true),
    Object.fromEntries(Object.entries(all).filter(([topic]) => !SLOW_TOPICS.includes(topic))),
  );
});
