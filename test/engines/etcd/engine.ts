// What etcd brings to the conformance suite: a space in a namespace of its own, and peers that are processes.
import { randomBytes } from 'node:crypto';
import { unavailableError } from '../../../lib/common/errors';
import { connect } from '../../../lib/etcd';
import * as proclock from '../../../lib/remote';
import { startChild } from '../child';
import type { Classes, Infrastructure, Peer, World } from '../infrastructure';
import type { EtcdCluster } from './server';

/** What tests alone use of a space: its session, if it has one at the moment. */
interface Connected {
  connection?: { session: { failed(why: Error): void } };
}

const TTL_MS = 2000;

/** Topics of the suite in which processes are killed: each of them has to wait for leases to end. */
export const SLOW_TOPICS = ['deaths', 'abandoned', 'upgrades', 'a random story'];

/** @param cluster is asked for when the first test begins */
export function engineOnEtcd(cluster: () => EtcdCluster): Infrastructure {
  return {
    kind: 'etcd',
    traits: { breaks: true, tellsLoss: true, upgrades: true, remote: true, deathMs: TTL_MS + 2000 },

    async open(): Promise<World> {
      const { endpoints } = cluster();
      const options = { namespace: randomBytes(6).toString('hex'), ttl: TTL_MS };
      const space = await connect(endpoints, options);
      // Sees what is left when `space` was closed.
      const observer = await connect(endpoints, options);
      const peers: Peer[] = [];
      return {
        classes: proclock as unknown as Classes,
        namespace: options.namespace,
        options: { space },
        query: () => observer.query(),
        async startPeer() {
          const { namespace } = options;
          const peer = await startChild({ namespace, space: ['etcd', 'connect', [endpoints, options]] });
          peers.push(peer);
          return peer;
        },
        interrupt: async (why) => {
          const { connection } = space as unknown as Connected;
          connection?.session.failed(unavailableError('keep the connection', why));
        },
        closeSpace: () => space.close(),
        destroy: async () => {
          for (const peer of peers) await peer.leave();
          await space.close();
          await observer.close();
        },
      };
    },
  };
}
