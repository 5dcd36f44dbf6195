// What PostgreSQL brings to the conformance suite: a space in a namespace of its own, and peers that are processes.
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect } from '../../../lib/postgres';
import * as proclock from '../../../lib/remote';
import type { EngineSpace } from '../../../lib/remote/space';
import { startChild } from '../child';
import type { Classes, Infrastructure, Peer, World } from '../infrastructure';
import type { PostgresServer } from './server';

/** What tests alone use of a space: the socket of its session, if it has one at the moment. */
interface Connected {
  connection?: { session: { wire: { client: { connection: { stream: Socket } } } } };
}

/** @param server is asked for when the first test begins */
export function engineOnPostgres(server: () => PostgresServer): Infrastructure {
  return {
    kind: 'PostgreSQL',
    traits: { breaks: true, tellsLoss: true, upgrades: true, remote: true, deathMs: 2000 },

    async open(): Promise<World> {
      const url = server().url();
      const namespace = randomBytes(6).toString('hex');
      const space = await connect(url, { namespace });
      // Sees what is left when `space` was closed.
      const observer = await connect(url, { namespace });
      const peers: Peer[] = [];
      return {
        classes: proclock as unknown as Classes,
        namespace,
        options: { space },
        query: () => observer.query(),
        marks: () => (observer as unknown as EngineSpace).marks(),
        async startPeer() {
          const peer = await startChild({ namespace, space: ['postgres', 'connect', [url, { namespace }]] });
          peers.push(peer);
          return peer;
        },
        interrupt: async (why) => {
          const { connection } = space as unknown as Connected;
          connection?.session.wire.client.connection.stream.destroy(why);
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
