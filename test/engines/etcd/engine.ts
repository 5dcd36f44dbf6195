// What etcd brings to the conformance suite: a space in a namespace of its own, and peers that are processes.
import { randomBytes } from 'node:crypto';
import { unavailableError } from '../../../lib/common/errors';
import { connect } from '../../../lib/etcd';
import { startChild } from '../child';
import type { Infrastructure, World } from '../infrastructure';
import { spaceWorld, TRAITS } from '../space-world';
import type { EtcdCluster } from './server';

/** What tests alone use of a space: its session, if it has one at the moment. */
interface Connected {
  connection?: { session: { failed(why: Error): void } };
}

/** The shortest that etcd grants. */
const TTL_MS = 2000;
/** Longer than any process stands still on a busy machine. */
const LONG_TTL_MS = 30_000;

/** Topics of the suite in which processes are killed: each of them has to wait for leases to end. */
export const SLOW_TOPICS = ['deaths', 'abandoned', 'upgrades', 'a random story'];

/**
 * A process that gets no turn for as long as its lease lasts loses what it holds, and its waits queue again: on a busy machine
 * that is soon if the lease is short. So only peers have short leases, because they may be killed. With `revokes` all leases are
 * long, and that of a process that is killed is revoked: so its end is as sudden as in shared memory, and nothing else ends a
 * session.
 *
 * @param cluster is asked for when the first test begins
 */
export function engineOnEtcd(cluster: () => EtcdCluster, revokes: boolean): Infrastructure {
  return {
    kind: 'etcd',
    traits: { ...TRAITS, deathMs: TTL_MS + 2000 },

    async open(): Promise<World> {
      const { endpoints } = cluster();
      const namespace = randomBytes(6).toString('hex');
      const options = { namespace, ttl: LONG_TTL_MS };
      const ofPeers = { namespace, ttl: revokes ? LONG_TTL_MS : TTL_MS };
      const space = await connect(endpoints, options);
      return spaceWorld(space, await connect(endpoints, options), {
        async startPeer() {
          const peer = await startChild({ namespace, space: ['etcd', 'connect', [endpoints, ofPeers]] });
          if (!revokes) return peer;
          const { party } = peer;
          const leave = () => peer.leave();
          const kill = async () => {
            await peer.kill();
            await cluster().revokeLeaseOf(namespace, party.pid);
          };
          return { party, kill, leave };
        },
        interrupt: async (why) => {
          const { connection } = space as unknown as Connected;
          connection?.session.failed(unavailableError('keep the connection', why));
        },
      });
    },
  };
}
