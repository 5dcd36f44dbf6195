import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { LockError } from '../../common/errors';
import type { Engine, Grant, Leaving, Session, SessionEvents, Slot } from '../../remote/engine';
import { checkSpaceOptions, EngineSpace, type Space, type SpaceOptions } from '../../remote/space';
import { type Client, Server } from './server';

/** A space within one process, for unit tests, and for where there is nothing that processes could share. */
export interface MemorySpace extends Space {
  /** Another space of the same engine, as if another process had connected to it. */
  peer(): MemorySpace;
  /**
   * As if the process that has this space were killed: what it holds exclusively is abandoned for the next holder, its waits
   * leave the queue. Nothing more can be done with it, as after `close()`.
   */
  kill(): void;
}

/** One session. All that is asked of it is done at once, and answered a turn of the microtask queue later. */
class MemorySession implements Session, Client {
  readonly clientId = randomUUID();
  readonly pid = process.pid;
  readonly threadId = threadId;
  readonly host = hostname();
  private over: Error | undefined = undefined;

  constructor(
    private readonly server: Server,
    private readonly events: SessionEvents,
  ) {
    server.enter(this);
  }

  granted(id: number, grant: Grant): void {
    this.tell(() => this.events.granted(id, grant));
  }

  robbed(id: number, thief: string): void {
    this.tell(() => this.events.robbed(id, thief));
  }

  async acquire({ id, name, mode }: Slot, how: 'wait' | 'try' | 'steal') {
    this.check();
    return this.server.acquire(this, id, name, mode, how);
  }

  async withdraw({ id }: Slot) {
    this.check();
    return this.server.withdraw(this, id);
  }

  async release({ id }: Slot, leaving: Leaving) {
    this.check();
    return this.server.release(this, id, leaving);
  }

  async downgrade({ id }: Slot, repaired: boolean) {
    this.check();
    return this.server.downgrade(this, id, repaired);
  }

  async upgrade({ id }: Slot, how: 'wait' | 'try') {
    this.check();
    return this.server.upgrade(this, id, how);
  }

  async query(name?: string) {
    this.check();
    return this.server.query(name);
  }

  async marks() {
    this.check();
    return this.server.marks();
  }

  async close() {
    this.end(new LockError('ERR_LOCK_CLOSED', 'the session was closed'), false);
  }

  drop() {
    this.end(new LockError('ERR_LOCK_UNAVAILABLE', 'the session was given up'), true);
  }

  /** Ends it as if its process, or its connection, had ended. */
  break(why: Error): void {
    if (this.over !== undefined) return;
    this.over = why;
    this.events.ended(why);
    this.server.leave(this, true);
  }

  private tell(event: () => void): void {
    // Not queueMicrotask(), which fake timers replace.
    void Promise.resolve().then(() => {
      if (this.over === undefined) event();
    });
  }

  private end(why: Error, died: boolean): void {
    this.over ??= why;
    this.server.leave(this, died);
  }

  private check(): void {
    if (this.over !== undefined) throw this.over;
  }
}

class MemoryEngine implements Engine {
  readonly kind = 'memory';
  readonly origin: string;
  /** The session there is now. */
  session: MemorySession | undefined = undefined;

  constructor(
    readonly namespace: string,
    readonly server: Server,
  ) {
    this.origin = String(server.number);
  }

  async open(events: SessionEvents): Promise<Session> {
    this.session = new MemorySession(this.server, events);
    return this.session;
  }
}

class SpaceInMemory extends EngineSpace implements MemorySpace {
  constructor(private readonly memory: MemoryEngine) {
    super(memory);
  }

  peer(): MemorySpace {
    return new SpaceInMemory(new MemoryEngine(this.memory.namespace, this.memory.server));
  }

  kill(): void {
    this.interrupt(new Error('its process was killed'));
    void this.close();
  }

  /** @internal Ends the session as if the connection had broken. */
  interrupt(why: Error): void {
    this.memory.session?.break(why);
  }
}

/**
 * The whole contract of `proclock/remote` in one process: nothing is loaded, connected to or timed, so a test of code that
 * takes locks needs no server and is over in microseconds. Each call makes an engine of its own; `peer()` makes another
 * client of the same one, and `kill()` lets one die. `ttl` means nothing here: there is nobody whom it could keep waiting.
 *
 * @example
 * ```ts
 * const space = memory();
 * const other = space.peer();
 * await new Lock('ledger', { space: other }).acquire();
 * other.kill();
 * const guard = await new Lock('ledger', { space }).acquire();
 * assert(guard.abandoned);
 * ```
 * @throws {TypeError} `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`
 * @throws {RangeError} `ERR_OUT_OF_RANGE`
 */
export function memory(options: SpaceOptions = {}): MemorySpace {
  const { namespace } = checkSpaceOptions(options);
  return new SpaceInMemory(new MemoryEngine(namespace, new Server()));
}
