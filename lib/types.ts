import type { LockGuard } from './guard';

/** Shared: any number of holders. Exclusive: one, alone. */
export type LockMode = 'shared' | 'exclusive';

/** How a lock is opened. */
export interface LockOptions {
  /**
   * 1 to 64 characters of `A-Z a-z 0-9 . _ -`. Locks of different namespaces have nothing to do with each other.
   * @default 'default'
   */
  namespace?: string;
  /**
   * Strict first-in, first-out. Otherwise a running process may take a free lock ahead of sleeping waiters for at most
   * one millisecond, which is what makes a contended lock fast.
   * @default false
   */
  fair?: boolean;
  /** A group, by name or id, whose members share the namespace (mode 0660). Default: this user alone. */
  group?: string | number;
}

/** How long, and on whose behalf, to wait. */
export interface AcquireOptions {
  /**
   * In milliseconds; 0 tries once. When it is over the acquire fails with `ERR_LOCK_TIMEOUT`.
   * @default Infinity
   */
  timeout?: number;
  /** Ends the wait; the acquire fails with `signal.reason`. */
  signal?: AbortSignal;
  /** Acquire as the owner of that guard. */
  within?: LockGuard;
}

/** One holder or waiter, in any process of the machine. */
export interface LockInfo {
  /** Of the lock. */
  name: string;
  /** How it is held or wanted. */
  mode: LockMode;
  /** Stable per thread, unique on the machine. */
  clientId: string;
  /** As its own PID namespace counts. */
  pid: number;
  /** 0: the main thread of the process. */
  threadId: number;
  /** When it was granted, or queued; a few milliseconds exact. */
  since: Date;
}

/** What `query()` saw. */
export interface LockSnapshot {
  /** In no particular order. */
  held: LockInfo[];
  /** In queue order. */
  pending: LockInfo[];
}

/** The exclusive holder that ended without releasing. */
export interface Abandoned {
  /** Of the dead process, as its own PID namespace counted. */
  pid: number;
  /** 0: its main thread. */
  threadId: number;
  /** When it was granted. */
  since: Date;
  /** Its fencing token. */
  token: bigint;
}
