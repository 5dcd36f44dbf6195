// A cluster for all tests of a file; spaces, children and proxies that end with each test.
import { checkSettings } from '../../../lib/engines/etcd/config';
import { EtcdSession } from '../../../lib/engines/etcd/session';
import { connect, type EtcdOptions } from '../../../lib/etcd';
import { SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import { NetworkProxy } from '../proxy';
import { Worker } from '../worker';
import { type ClusterOptions, EtcdCluster } from './server';

/** etcd gives no lease a shorter time. */
export const TTL_MS = 2000;

export class Fixture {
  cluster!: EtcdCluster;
  /** Of the test: a name of its own. */
  name = '';
  private number = 0;
  private readonly ends: Array<() => Promise<unknown>> = [];

  /** To be called where tests are described. */
  constructor(options: ClusterOptions = {}) {
    beforeAll(async () => {
      this.cluster = await EtcdCluster.start(options);
    });
    afterAll(() => this.cluster?.stop());
    beforeEach(() => {
      this.name = `lock ${++this.number}`;
    });
    afterEach(async () => {
      for (const end of this.ends.splice(0).reverse()) await end();
    });
  }

  /** Done when the test is over. */
  atEnd(end: () => Promise<unknown>): void {
    this.ends.push(end);
  }

  async space(options: EtcdOptions = {}, endpoints = this.cluster.endpoints): Promise<Space> {
    const space = await connect(endpoints, { ttl: TTL_MS, ...options });
    this.atEnd(() => space.close());
    return space;
  }

  async lock(options: EtcdOptions = {}, endpoints = this.cluster.endpoints): Promise<SharedLock> {
    return new SharedLock(this.name, { space: await this.space(options, endpoints) });
  }

  /** Without a space above it; and which of its waits it was told to be granted. */
  async session(): Promise<{ session: EtcdSession; granted: ReadonlySet<number> }> {
    const granted = new Set<number>();
    const session = await EtcdSession.open(checkSettings(this.cluster.endpoints, { ttl: TTL_MS }), {
      granted: (id) => granted.add(id),
      robbed() {},
      certainUntil() {},
      ended() {},
    });
    this.atEnd(() => session.close());
    return { session, granted };
  }

  async child(options: EtcdOptions = {}, endpoints = this.cluster.endpoints): Promise<Worker> {
    const child = await Worker.start('etcd', endpoints, { ttl: TTL_MS, ...options });
    this.atEnd(async () => {
      if (!child.hasEnded) await child.kill();
    });
    return child;
  }

  /** In front of the first member. */
  async proxy(): Promise<NetworkProxy> {
    const proxy = await NetworkProxy.start(this.cluster.port);
    this.atEnd(() => proxy.stop());
    return proxy;
  }

  /** Waits until so many wait for the lock of the test. */
  async untilPending(lock: SharedLock, count: number): Promise<void> {
    await until(async () => (await lock.query()).pending.length === count, { within: 30_000 });
  }
}
