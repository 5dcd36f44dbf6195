// What PostgreSQL brings to the tests of engines: a server, and in what it differs.
import { connect, type PostgresOptions } from '../../../lib/postgres';
import type { Space } from '../../../lib/remote';
import { EngineFixture } from '../fixture';
import type { NetworkProxy } from '../proxy';
import { PostgresServer } from './server';

export class Fixture extends EngineFixture<PostgresServer, PostgresOptions, string> {
  readonly entry = 'postgres';
  readonly ttlMs = 1500;
  readonly deathMs = 1000;
  readonly sessionsBreak = true;
  readonly serverGrants = true;
  readonly longQueue = 2000;
  readonly apart = [{}, { schema: 'other' }, { namespace: 'other' }];

  /** @param folder that the server is in */
  constructor(settings: Record<string, string | number> = {}, folder?: string) {
    super(() => PostgresServer.start(settings, folder));
  }

  get where(): string {
    return this.server.url();
  }

  through({ port }: NetworkProxy): string {
    return this.server.url('postgres', port);
  }

  traces(): Promise<number> {
    return this.server.traces(this.name);
  }

  leftovers(): Promise<number> {
    return this.server.leftovers();
  }

  protected connect(url: string, options: PostgresOptions): Promise<Space> {
    return connect(url, options);
  }
}
