// A peer that is another process: for engines that several processes share.
import { setTimeout as sleep } from 'node:timers/promises';
import { type Actor, type ActorOptions, startActor } from '../support/actor';
import type { Peer } from './infrastructure';

const EXIT_MS = 5000;

class ChildPeer implements Peer {
  constructor(readonly party: Actor) {}

  async kill(): Promise<void> {
    expect(await this.party.kill()).toEqual({ code: null, signal: 'SIGKILL' });
  }

  async leave(): Promise<void> {
    if (this.party.hasEnded) return;
    const given = new AbortController();
    const late = sleep(EXIT_MS, undefined, { signal: given.signal }).then(
      () => this.party.destroy(),
      () => undefined,
    );
    const ended = await this.party.exit(0);
    given.abort();
    await late;
    expect(ended).toEqual({ code: 0, signal: null });
  }
}

/** Starts one; with `space` in the options, its locks are those of `proclock/remote` in that space. */
export async function startChild(options: ActorOptions): Promise<Peer> {
  return new ChildPeer(await startActor('fork', options));
}
