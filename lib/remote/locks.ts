import { syncError } from '../common/errors';
import { checkTryOptions } from '../common/options';
import type { LockGuard } from './guard';
import { type AcquireOptions, NamedLock, type Work } from './named-lock';

/**
 * A named lock that is held shared, by any number of holders, or exclusively, by one; between all programs that open a space
 * of the same engine and namespace. Strictly first in, first out. Not reentrant.
 *
 * @example
 * ```ts
 * const lock = new SharedLock('ledger', { space });
 * await lock.exclusive(async ({ abandoned, lost, token }) => {
 *   if (abandoned) await repair('ledger', { signal: lost });
 *   await append('ledger', entry, { signal: lost, token });
 * });
 * ```
 */
export class SharedLock extends NamedLock {
  /** @internal */
  readonly isShareable = true;
  /** @internal */
  protected override readonly reentrant: boolean = false;

  /**
   * Waits until the lock is ours. With a function: calls it with the guard, and releases when what it returns has settled.
   * @throws {LockError} `ERR_LOCK_TIMEOUT`, `ERR_LOCK_NOT_REENTRANT`, `ERR_LOCK_UPGRADE`, `ERR_LOCK_CLOSED`;
   * `ERR_LOCK_UNAVAILABLE` if the engine can not be reached until the time is up; with a function `ERR_LOCK_LOST` if the hold
   * ended meanwhile; `options.signal.reason` on abort
   */
  shared(options?: AcquireOptions): Promise<LockGuard>;
  shared<T>(fn: Work<T>): Promise<T>;
  shared<T>(options: AcquireOptions | undefined, fn: Work<T>): Promise<T>;
  shared<T>(first?: AcquireOptions | Work<T>, second?: Work<T>): Promise<LockGuard | T> {
    return this.run('shared', first, second);
  }

  /** As {@link shared}, alone. */
  exclusive(options?: AcquireOptions): Promise<LockGuard>;
  exclusive<T>(fn: Work<T>): Promise<T>;
  exclusive<T>(options: AcquireOptions | undefined, fn: Work<T>): Promise<T>;
  exclusive<T>(first?: AcquireOptions | Work<T>, second?: Work<T>): Promise<LockGuard | T> {
    return this.run('exclusive', first, second);
  }

  /**
   * Takes the lock if that is possible at once. Never waits for others; `null` if it is taken, by whomever.
   * @throws {LockError} `ERR_LOCK_UNAVAILABLE`, `ERR_LOCK_CLOSED`
   */
  tryShared(): Promise<LockGuard | null> {
    return this.tryRun('shared');
  }

  /** As {@link tryShared}, alone. */
  tryExclusive(): Promise<LockGuard | null> {
    return this.tryRun('exclusive');
  }

  /** {@link shared}, or {@link exclusive} with `exclusive: true`. */
  acquire(options?: AcquireOptions & { exclusive?: boolean }): Promise<LockGuard>;
  acquire<T>(fn: Work<T>): Promise<T>;
  acquire<T>(options: (AcquireOptions & { exclusive?: boolean }) | undefined, fn: Work<T>): Promise<T>;
  acquire<T>(
    first?: (AcquireOptions & { exclusive?: boolean }) | Work<T>,
    second?: Work<T>,
  ): Promise<LockGuard | T> {
    return this.run(undefined, first, second);
  }

  /** {@link tryShared}, or {@link tryExclusive} with `exclusive: true`. */
  async tryAcquire(options: { exclusive?: boolean } = {}): Promise<LockGuard | null> {
    return this.tryRun(checkTryOptions(options) ? 'exclusive' : 'shared');
  }

  /** @internal To programs without types. */
  sharedSync(): never {
    throw syncError(this, 'sharedSync()', 'shared()');
  }

  /** @internal To programs without types. */
  exclusiveSync(): never {
    throw syncError(this, 'exclusiveSync()', 'exclusive()');
  }

  /** @internal To programs without types. */
  acquireSync(): never {
    throw syncError(this, 'acquireSync()', 'acquire()');
  }
}

/**
 * A {@link SharedLock} that its owner may acquire again: counted, and released with the outermost guard and the last
 * nested one. An exclusive hold stays exclusive to its end.
 */
export class SharedRLock extends SharedLock {
  /** @internal */
  protected override readonly reentrant = true;
}

/**
 * A named lock that is held by one at a time: {@link SharedLock} in exclusive mode alone, and the same lock as a
 * SharedLock of its name. Not reentrant.
 */
export class Lock extends NamedLock {
  /** @internal */
  readonly isShareable = false;
  /** @internal */
  protected override readonly reentrant: boolean = false;
  /** Makes a SharedLock, whose `acquire` is shared, no Lock to the compiler. */
  declare protected readonly exclusiveOnly: true;

  /**
   * Waits until the lock is ours. With a function: calls it with the guard, and releases when what it returns has settled.
   * @throws {LockError} `ERR_LOCK_TIMEOUT`, `ERR_LOCK_NOT_REENTRANT`, `ERR_LOCK_CLOSED`; `ERR_LOCK_UNAVAILABLE` if the engine
   * can not be reached until the time is up; with a function `ERR_LOCK_LOST` if the hold ended meanwhile;
   * `options.signal.reason` on abort
   */
  acquire(options?: AcquireOptions): Promise<LockGuard>;
  acquire<T>(fn: Work<T>): Promise<T>;
  acquire<T>(options: AcquireOptions | undefined, fn: Work<T>): Promise<T>;
  acquire<T>(first?: AcquireOptions | Work<T>, second?: Work<T>): Promise<LockGuard | T> {
    return this.run('exclusive', first, second);
  }

  /**
   * Takes the lock if that is possible at once. Never waits for others; `null` if it is taken, by whomever.
   * @throws {LockError} `ERR_LOCK_UNAVAILABLE`, `ERR_LOCK_CLOSED`
   */
  tryAcquire(): Promise<LockGuard | null> {
    return this.tryRun('exclusive');
  }

  /** @internal To programs without types. */
  acquireSync(): never {
    throw syncError(this, 'acquireSync()', 'acquire()');
  }
}

/** A {@link Lock} that its owner may acquire again: counted, and released with the last of its guards. */
export class RLock extends Lock {
  /** @internal */
  protected override readonly reentrant = true;
}
