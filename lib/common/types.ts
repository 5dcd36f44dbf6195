// The words of the public interface that mean the same for all locks.

/** Shared: any number of holders. Exclusive: one, alone. */
export type LockMode = 'shared' | 'exclusive';

/** How long to wait. */
export interface WaitOptions {
  /**
   * In milliseconds; 0 tries once. When it is over the acquire fails with `ERR_LOCK_TIMEOUT`.
   * @default Infinity
   */
  timeout?: number;
  /** Ends the wait; the acquire fails with `signal.reason`. */
  signal?: AbortSignal;
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
  /** Of the machine, by its own name. Of remote locks only. */
  host?: string;
  /** When it was granted, or queued; a few milliseconds exact. */
  since: Date;
  /** The first 200 characters of its command line, if it may be read. Only if `query({ processes: true })` was asked for it. */
  command?: string;
  /** Whether it stands still, by SIGSTOP or a debugger. Only if `query({ processes: true })` was asked for it. */
  stopped?: boolean;
}

/** What `query()` of a local lock is to tell. */
export interface QueryOptions {
  /**
   * Also what the system tells of the processes: `command` and `stopped`, of those in this PID namespace. Command lines may
   * hold secrets, and each process costs a question to the system.
   * @default false
   */
  processes?: boolean;
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
