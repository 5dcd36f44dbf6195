// The conformance suite over etcd.
import { all } from '../cases';
import { conform } from '../stage';
import { engineOnEtcd } from './engine';
import { describeWithServer, EtcdCluster } from './server';

describeWithServer('over a member of its own', () => {
  let cluster: EtcdCluster;
  beforeAll(async () => {
    cluster = await EtcdCluster.start();
  });
  afterAll(() => cluster?.stop());

  conform(
    engineOnEtcd(() => cluster),
    all,
  );
});
