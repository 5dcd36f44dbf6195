// Whoever takes and releases locks on command, wherever it is: what it can be told, and how. The commands are obeyed in
// performer.js.

type Mode = 'shared' | 'exclusive';

/** Which lock: `handle` names the handle in the actor, so that it can have several of one name. */
export interface LockArgs {
  name: string;
  /** @default that of the actor */
  namespace?: string;
  class?: 'SharedLock' | 'SharedRLock' | 'Lock' | 'RLock';
  fair?: boolean;
  handle?: string;
}

export interface AcquireArgs extends LockArgs {
  /** @default 'shared' */
  mode?: Mode;
  timeout?: number;
  /** The key of the guard for later commands. @default the name of the lock */
  as?: string;
  /** The key of the guard on whose behalf this one is acquired. */
  within?: string;
}

export interface Abandoned {
  pid: number;
  threadId: number;
  /** In milliseconds since the epoch. */
  since: number;
  token: string;
}

export interface Grant {
  token: string;
  abandoned: Abandoned | null;
  mode: Mode;
}

export interface Info {
  name: string;
  mode: Mode;
  clientId: string;
  pid: number;
  threadId: number;
  /** In milliseconds since the epoch. */
  since: number;
}

export interface Snapshot {
  held: Info[];
  pending: Info[];
}

/** A request of a LockManager, whose callback keeps the lock until the actor is told how it ends. */
export interface RequestArgs {
  namespace: string;
  name: string;
  /** The key of the request for later commands. */
  as: string;
  options?: { mode?: Mode; ifAvailable?: boolean; steal?: boolean };
  /** Whether it can be aborted. */
  signal?: boolean;
}

/** How the callback of a request was called. */
export interface Call {
  args: Array<{ name: string; mode: Mode } | null>;
  /** Before `request()` had returned. */
  synchronous: boolean;
}

export interface Commands {
  ping: [object, number];
  run: [{ source: string; args?: unknown }, unknown];
  acquire: [AcquireArgs, Grant];
  acquireSync: [AcquireArgs, Grant];
  tryAcquire: [AcquireArgs, Grant | null];
  abort: [{ guard: string; reason?: string }, undefined];
  release: [{ guard: string }, undefined];
  downgrade: [{ guard: string }, undefined];
  /** `abort` with the same guard ends the wait for it. */
  upgrade: [{ guard: string; timeout?: number }, Grant];
  tryUpgrade: [{ guard: string }, boolean];
  forget: [{ guard: string }, undefined];
  query: [LockArgs, Snapshot];
  request: [RequestArgs, unknown];
  /** Answers when the callback was called, or never will be: `null`. */
  called: [{ request: string }, Call | null];
  /** How often the callback was called so far. */
  calls: [{ request: string }, number];
  fulfil: [{ request: string; value?: unknown }, undefined];
  fail: [{ request: string; message: string }, undefined];
  queryAll: [{ namespace: string }, Snapshot];
  close: [LockArgs, undefined];
  unref: [object, undefined];
  busy: [{ ms: number }, undefined];
  exit: [{ code: number }, undefined];
  throw: [{ message: string }, undefined];
}

/** An answer that is still to come. */
export interface Pending<T> {
  promise: Promise<T>;
  readonly settled: boolean;
}

export type CommandName = keyof Commands;

/** An error as it comes over a channel. */
export interface PlainError {
  name: string;
  message: string;
  code?: string;
  cycle?: Info[];
  cause?: PlainError;
}

/** The error that was thrown there, but for its class. */
export function errorOf(plain: PlainError): Error {
  return Object.assign(new Error(plain.message), plain);
}

export abstract class Party {
  abstract readonly pid: number;
  abstract readonly threadId: number;

  /** Gives a command; resolves with its result, rejects with its error. Commands begin in the order in which they are given. */
  abstract call<K extends CommandName>(command: K, args?: Commands[K][0]): Promise<Commands[K][1]>;

  /** Sends a command whose answer is to come later. A rejection that nobody looks at is no error. */
  begin<K extends CommandName>(command: K, args?: Commands[K][0]): Pending<Commands[K][1]> {
    const pending = { promise: this.call(command, args), settled: false };
    const settle = () => {
      pending.settled = true;
    };
    pending.promise.then(settle, settle);
    return pending;
  }

  acquire(args: AcquireArgs): Promise<Grant> {
    return this.call('acquire', args);
  }

  /** Begins an acquire; resolves when it is queued (or granted). */
  async queue(args: AcquireArgs): Promise<Pending<Grant>> {
    const pending = this.begin('acquire', args);
    await this.call('ping');
    return pending;
  }

  release(guard: string): Promise<void> {
    return this.call('release', { guard });
  }

  query(args: LockArgs): Promise<Snapshot> {
    return this.call('query', args);
  }

  /** Runs the body of an async function of `require, proclock, lock, guards, args` in the actor. */
  run<T>(source: string, args?: unknown): Promise<T> {
    return this.call('run', { source, args }) as Promise<T>;
  }
}
