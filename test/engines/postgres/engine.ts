// What PostgreSQL brings to the conformance suite: a space in a namespace of its own, and peers that are processes.
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect } from '../../../lib/postgres';
import { startChild } from '../child';
import type { Infrastructure, World } from '../infrastructure';
import { spaceWorld, TRAITS } from '../space-world';
import type { PostgresServer } from './server';

/** What tests alone use of a space: the socket of its session, if it has one at the moment. */
interface Connected {
  connection?: { session: { wire: { client: { connection: { stream: Socket } } } } };
}

/** @param server is asked for when the first test begins */
export function engineOnPostgres(server: () => PostgresServer): Infrastructure {
  return {
    kind: 'PostgreSQL',
    traits: { ...TRAITS, deathMs: 2000 },

    async open(): Promise<World> {
      const url = server().url();
      const options = { namespace: randomBytes(6).toString('hex') };
      const space = await connect(url, options);
      return spaceWorld(space, await connect(url, options), {
        startPeer: () => startChild({ ...options, space: ['postgres', 'connect', [url, options]] }),
        interrupt: async (why) => {
          const { connection } = space as unknown as Connected;
          connection?.session.wire.client.connection.stream.destroy(why);
        },
      });
    },
  };
}
