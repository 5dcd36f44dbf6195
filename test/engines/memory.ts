// The engine in memory: other parties are in this process as well, each in a space of its own.
import { memory } from '../../lib/memory';
import * as proclock from '../../lib/remote';
import type { EngineSpace } from '../../lib/remote/space';
import { type CommandName, type Commands, errorOf, Party, type PlainError } from '../support/party';
import { createPerformer } from '../support/performer';
import type { Classes, Infrastructure, Peer, World } from './infrastructure';

type Space = ReturnType<typeof memory>;

/** Performs commands in this process. Arguments and answers are copied, as if they had come over a channel. */
class InProcess extends Party {
  readonly pid = process.pid;
  readonly threadId = 0;
  private readonly perform;
  private over: Error | undefined = undefined;

  constructor(space: Space) {
    super();
    this.perform = createPerformer({ proclock, lockOptions: () => ({ space }) });
  }

  async call<K extends CommandName>(command: K, args?: Commands[K][0]): Promise<Commands[K][1]> {
    if (this.over !== undefined) throw this.over;
    const answer = await this.perform(command, copyOf(args ?? {}));
    if (this.over !== undefined) throw this.over;
    const { error, result } = copyOf(answer) as { error?: PlainError; result: Commands[K][1] };
    if (error !== undefined) throw errorOf(error);
    return result;
  }

  /** From now on it answers nothing. */
  end(): void {
    this.over = new Error('this party was ended');
  }
}

const copyOf = <T>(value: T): T => JSON.parse(JSON.stringify(value));

class InMemory implements Peer {
  readonly party: InProcess;

  constructor(private readonly space: Space) {
    this.party = new InProcess(space);
  }

  async kill(): Promise<void> {
    this.party.end();
    this.space.kill();
  }

  async leave(): Promise<void> {
    this.party.end();
    await this.space.close();
  }
}

/** What tests alone use of a space. */
interface Interruptible {
  interrupt(why: Error): void;
}

export const engineInMemory: Infrastructure = {
  kind: 'memory',
  traits: { breaks: true, tellsLoss: true, upgrades: true, remote: true, deathMs: 1000 },

  async open(): Promise<World> {
    const space = memory();
    // Sees what is left when `space` was closed.
    const observer = space.peer();
    const peers: InMemory[] = [];
    return {
      classes: proclock as unknown as Classes,
      namespace: space.namespace,
      options: { space },
      query: () => observer.query(),
      marks: () => (observer as unknown as EngineSpace).marks(),
      async startPeer() {
        const peer = new InMemory(space.peer());
        peers.push(peer);
        return peer;
      },
      interrupt: async (why) => (space as unknown as Interruptible).interrupt(why),
      closeSpace: () => space.close(),
      destroy: async () => {
        for (const peer of peers) await peer.leave();
        await space.close();
        await observer.close();
      },
    };
  },
};
