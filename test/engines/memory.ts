// The engine in memory: other parties are in this process as well, each in a space of its own.
import { memory } from '../../lib/memory';
import * as proclock from '../../lib/remote';
import { type CommandName, type Commands, errorOf, Party, type PlainError } from '../support/party';
import { createPerformer } from '../support/performer';
import type { Infrastructure, Peer, World } from './infrastructure';
import { spaceWorld, TRAITS } from './space-world';

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
  traits: { ...TRAITS, deathMs: 1000 },

  async open(): Promise<World> {
    const space = memory();
    return spaceWorld(space, space.peer(), {
      startPeer: async () => new InMemory(space.peer()),
      interrupt: async (why) => (space as unknown as Interruptible).interrupt(why),
    });
  },
};
