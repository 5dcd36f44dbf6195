// A server for all tests of a file; spaces, children and proxies that end with each test.
import { connect, type PostgresOptions } from '../../../lib/postgres';
import { SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import { NetworkProxy } from '../proxy';
import { Worker } from '../worker';
import { PostgresServer } from './server';

export class Fixture {
  server!: PostgresServer;
  /** Of the test: a name of its own. */
  name = '';
  private number = 0;
  private readonly ends: Array<() => Promise<unknown>> = [];

  /** To be called where tests are described. @param folder that the server is in */
  constructor(settings: Record<string, string | number> = {}, folder?: string) {
    beforeAll(async () => {
      this.server = await PostgresServer.start(settings, folder);
    });
    afterAll(() => this.server?.stop());
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

  async space(options: PostgresOptions = {}, url = this.server.url()): Promise<Space> {
    const space = await connect(url, options);
    this.atEnd(() => space.close());
    return space;
  }

  async lock(options: PostgresOptions = {}, url = this.server.url()): Promise<SharedLock> {
    return new SharedLock(this.name, { space: await this.space(options, url) });
  }

  async child(options: PostgresOptions = {}, url = this.server.url()): Promise<Worker> {
    const child = await Worker.start('postgres', url, options);
    this.atEnd(async () => {
      if (!child.hasEnded) await child.kill();
    });
    return child;
  }

  async proxy(): Promise<NetworkProxy> {
    const proxy = await NetworkProxy.start(this.server.port);
    this.atEnd(() => proxy.stop());
    return proxy;
  }

  /** Waits until so many wait for the lock of the test. */
  async untilPending(lock: SharedLock, count: number): Promise<void> {
    await until(async () => (await lock.query()).pending.length === count);
  }
}
