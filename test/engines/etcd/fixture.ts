// What etcd brings to the tests of engines: a cluster, and in what it differs.
import { checkSettings } from '../../../lib/engines/etcd/config';
import { SpaceKeys } from '../../../lib/engines/etcd/keys';
import { EtcdSession } from '../../../lib/engines/etcd/session';
import { connect, type EtcdOptions } from '../../../lib/etcd';
import type { Space } from '../../../lib/remote';
import { EngineFixture } from '../fixture';
import type { NetworkProxy } from '../proxy';
import { type ClusterOptions, EtcdCluster } from './server';

/** etcd gives no lease a shorter time. */
export const TTL_MS = 2000;
/** Longer than any process stands still on a busy machine. */
const LONG_TTL_MS = 30_000;

const KEYS = new SpaceKeys('proclock/', 'default');

export class Fixture extends EngineFixture<EtcdCluster, EtcdOptions, string[]> {
  readonly entry = 'etcd';
  readonly ttlMs = TTL_MS;
  /** A lease has to end first. */
  readonly deathMs = TTL_MS + 1000;
  readonly sessionsBreak = false;
  readonly serverGrants = false;
  readonly longQueue = 1000;
  readonly apart = [{}, { prefix: 'other/' }, { prefix: '' }, { namespace: 'other' }];
  protected override readonly defaults = { ttl: LONG_TTL_MS };
  protected override readonly mortal = { ttl: TTL_MS };

  constructor(options: ClusterOptions = {}) {
    super(() => EtcdCluster.start(options));
  }

  get where(): string[] {
    return this.server.endpoints;
  }

  /** In front of the first member. */
  through({ port }: NetworkProxy): string[] {
    return [`127.0.0.1:${port}`];
  }

  /** A theft that nobody was told of is under the session of the robbed one. */
  async traces(): Promise<number> {
    const ours = KEYS.all(this.name).key.toString();
    const keys = await this.server.keys();
    return keys.filter((key) => key.startsWith(ours) || /\/session\/\w+\//.test(key)).length;
  }

  /** The token of a name outlives a session that did not release what it held. */
  async leftovers(): Promise<number> {
    return (await this.server.keys()).filter((key) => !key.endsWith('/token')).length;
  }

  /** What watchers were told of. */
  override events(): Promise<number> {
    return this.server.metric('etcd_debugging_mvcc_events_total');
  }

  /** Without a space above it; and which of its waits it was told to be granted, and of its holds to be robbed. */
  async session(): Promise<{
    session: EtcdSession;
    granted: ReadonlySet<number>;
    robbed: ReadonlySet<number>;
  }> {
    const granted = new Set<number>();
    const robbed = new Set<number>();
    const session = await EtcdSession.open(checkSettings(this.where, this.defaults), {
      granted: (id) => granted.add(id),
      robbed: (id) => robbed.add(id),
      certainFor() {},
      answered() {},
      ended() {},
    });
    this.atEnd(() => session.close());
    return { session, granted, robbed };
  }

  protected connect(endpoints: string[], options: EtcdOptions): Promise<Space> {
    return connect(endpoints, options);
  }
}
