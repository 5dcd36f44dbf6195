// Shared memory of this machine. Its locks are fair here: strictly first in, first out, as those of all other engines.
import * as proclock from '../../lib';
import { testNamespace } from '../support/namespace';
import { startChild } from './child';
import type { Classes, Infrastructure, Peer, World } from './infrastructure';

export const shm: Infrastructure = {
  kind: 'shared memory',
  traits: { breaks: false, tellsLoss: true, upgrades: true, remote: false, passesOver: true, deathMs: 1000 },

  async open(): Promise<World> {
    const namespace = testNamespace();
    const peers: Peer[] = [];
    return {
      classes: proclock as unknown as Classes,
      namespace,
      options: { namespace, fair: true },
      query: () => new proclock.LockManager({ namespace }).query(),
      async startPeer() {
        const peer = await startChild({ namespace });
        peers.push(peer);
        return peer;
      },
      destroy: async () => {
        for (const peer of peers) await peer.leave();
      },
    };
  },
};
