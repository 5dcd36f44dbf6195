// A world of locks in a space: what the worlds of all engines of `proclock/remote` have in common.
import * as proclock from '../../lib/remote';
import type { EngineSpace } from '../../lib/remote/space';
import type { Classes, Peer, World } from './infrastructure';

/** Where engines differ, those of spaces do not. */
export const TRAITS = {
  breaks: true,
  tellsLoss: true,
  upgrades: true,
  remote: true,
  passesOver: false,
} as const;

/** @param observer another space, which sees what is left when the first one was closed */
export function spaceWorld(
  space: proclock.Space,
  observer: proclock.Space,
  { startPeer, interrupt }: Required<Pick<World, 'startPeer' | 'interrupt'>>,
): World {
  const peers: Peer[] = [];
  return {
    classes: proclock as unknown as Classes,
    namespace: space.namespace,
    options: { space },
    query: () => observer.query(),
    marks: () => (observer as unknown as EngineSpace).marks(),
    async startPeer() {
      const peer = await startPeer();
      peers.push(peer);
      return peer;
    },
    interrupt,
    closeSpace: () => space.close(),
    destroy: async () => {
      for (const peer of peers) await peer.leave();
      await space.close();
      await observer.close();
    },
  };
}
