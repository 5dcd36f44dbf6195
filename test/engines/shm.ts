// Shared memory of this machine. Its locks are fair here: strictly first in, first out, as those of all other engines.
import * as proclock from '../../lib';
import { type Actor, startActor } from '../support/actor';
import { testNamespace } from '../support/namespace';
import type { Classes, Infrastructure, Peer, World } from './infrastructure';

const KILLED = { code: null, signal: 'SIGKILL' };

/** A child process. */
class Child implements Peer {
  constructor(readonly party: Actor) {}

  async kill(): Promise<void> {
    expect(await this.party.kill()).toEqual(KILLED);
  }

  async leave(): Promise<void> {
    if (this.party.hasEnded) return;
    expect(await this.party.exit(0)).toEqual({ code: 0, signal: null });
  }
}

export const shm: Infrastructure = {
  kind: 'shared memory',
  traits: { breaks: false, tellsLoss: false, upgrades: false, remote: false, deathMs: 1000 },

  async open(): Promise<World> {
    const namespace = testNamespace();
    const children: Child[] = [];
    return {
      classes: proclock as unknown as Classes,
      namespace,
      options: { namespace, fair: true },
      query: () => new proclock.LockManager({ namespace }).query(),
      async startPeer() {
        const child = new Child(await startActor('fork', { namespace }));
        children.push(child);
        return child;
      },
      destroy: async () => {
        for (const child of children) await child.leave();
      },
    };
  },
};
