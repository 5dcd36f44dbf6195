// What an engine brings to the conformance suite. The properties are in cases/; they know locks by what those of this
// machine and those beyond it have in common: whatever a lock answers may be a promise, and is awaited.
import type { Abandoned, LockInfo, LockMode, LockSnapshot, WaitOptions } from '../../lib/common/types';
import type { LockManagerSnapshot, LockRequestOptions, WebLock } from '../../lib/common/web-locks';
import type { Party } from '../support/party';

export type { Abandoned, LockInfo, LockMode, LockSnapshot };

/** What an engine is like, where engines differ. */
export interface Traits {
  /** A hold can end while its holder lives: the connection to the engine breaks. Then {@link World.interrupt} is there. */
  readonly breaks: boolean;
  /** `guard.lost` tells of every loss, and the error of it has a `cause`. */
  readonly tellsLoss: boolean;
  /** `guard.upgrade()` and `guard.tryUpgrade()` are there. */
  readonly upgrades: boolean;
  /** The classes are those of `proclock/remote`: the locks are in a space, which can be closed, and no call blocks. */
  readonly remote: boolean;
  /** A waiter whose process does not react for some time, because the machine is busy, is passed over, and keeps its place. */
  readonly passesOver: boolean;
  /** For so long at most a party that was killed stands in the way of others. */
  readonly deathMs: number;
}

export interface Infrastructure {
  readonly kind: string;
  readonly traits: Traits;
  /** A world of locks that nobody has been in. */
  open(): Promise<World>;
}

/** One world of locks, and this process in it. */
export interface World {
  readonly classes: Classes;
  /** What locks and managers of this world are made with. */
  readonly options: object;
  /** Of the locks. */
  readonly namespace: string;
  /** Every lock that is held or waited for, by whomever. */
  query(): Promise<LockSnapshot>;
  /** The marks of dead holders that nobody has cleared, where {@link Traits.remote} is. */
  marks?(): Promise<Array<{ name: string; abandoned: Abandoned }>>;
  /** Another party: another process, or something that looks like one. */
  startPeer(): Promise<Peer>;
  /** What this process holds and waits for ends as if the connection had broken for this reason. */
  interrupt?(why: Error): Promise<void>;
  /** `space.close()`, where {@link Traits.remote} is. */
  closeSpace?(): Promise<void>;
  /** Ends it all, whatever is left of it, peers as well. */
  destroy(): Promise<void>;
}

export interface Peer {
  readonly party: Party;
  /** As `kill -9`. Resolves when it is dead; the others may not know yet. */
  kill(): Promise<void>;
  /** In good order: it tells the engine that it goes. Does nothing if it has ended before. */
  leave(): Promise<void>;
}

// ---- the locks

export type Awaitable<T> = T | Promise<T>;

export interface Guard {
  readonly lock: object;
  readonly mode: LockMode;
  readonly token: bigint;
  readonly abandoned: Abandoned | null;
  readonly released: boolean;
  /** See {@link Traits.tellsLoss}. */
  readonly lost: AbortSignal;
  release(): Awaitable<void>;
  downgrade(): Awaitable<void>;
  /** See {@link Traits.upgrades}. */
  upgrade(options?: WaitOptions): Promise<void>;
  /** See {@link Traits.upgrades}. */
  tryUpgrade(): Awaitable<boolean>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface AcquireOptions extends WaitOptions {
  within?: Guard;
  exclusive?: boolean;
}

type Work<T> = (guard: Guard) => T | PromiseLike<T>;

/** How every acquire is called. */
export interface AcquireCall {
  (options?: AcquireOptions): Promise<Guard>;
  <T>(fn: Work<T>): Promise<T>;
  <T>(options: AcquireOptions | undefined, fn: Work<T>): Promise<T>;
}

/** A `Lock`, or any other. */
export interface NamedLock {
  readonly name: string;
  readonly namespace: string;
  readonly acquire: AcquireCall;
  tryAcquire(options?: { exclusive?: boolean }): Awaitable<Guard | null>;
  query(): Awaitable<LockSnapshot>;
  close(): void;
}

export interface SharedLock extends NamedLock {
  readonly shared: AcquireCall;
  readonly exclusive: AcquireCall;
  tryShared(): Awaitable<Guard | null>;
  tryExclusive(): Awaitable<Guard | null>;
}

export interface LockManager {
  request<T>(name: string, callback: (lock: WebLock | null) => T): Promise<Awaited<T>>;
  request<T>(
    name: string,
    options: LockRequestOptions,
    callback: (lock: WebLock | null) => T,
  ): Promise<Awaited<T>>;
  query(): Promise<LockManagerSnapshot>;
}

type Made<L> = new (name?: string, options?: object) => L;

export interface Classes {
  readonly SharedLock: Made<SharedLock>;
  readonly SharedRLock: Made<SharedLock>;
  readonly Lock: Made<NamedLock>;
  readonly RLock: Made<NamedLock>;
  readonly LockManager: new (options: object) => LockManager;
  readonly LockError: new (...args: never[]) => Error & { code: string };
}

export type ClassName = 'SharedLock' | 'SharedRLock' | 'Lock' | 'RLock';
