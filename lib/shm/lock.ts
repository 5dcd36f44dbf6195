import type { LockGuard } from './guard';
import { NamedLock, type Work } from './named-lock';
import type { AcquireOptions } from './options';

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
   * Waits until the lock is ours, without blocking the event loop. With a function: calls it with the guard, and
   * releases when what it returns has settled.
   * @throws {LockError} `ERR_LOCK_TIMEOUT`, `ERR_LOCK_NOT_REENTRANT`, `ERR_LOCK_CLOSED`, and those of the namespace;
   * `options.signal.reason` on abort
   */
  acquire(options?: AcquireOptions): Promise<LockGuard>;
  acquire<T>(fn: Work<T>): Promise<T>;
  acquire<T>(options: AcquireOptions | undefined, fn: Work<T>): Promise<T>;
  acquire<T>(first?: AcquireOptions | Work<T>, second?: Work<T>): Promise<LockGuard | T> {
    return this.run('exclusive', first, second);
  }

  /**
   * Blocks this thread until the lock is ours. With a function: calls it, and releases when it returns.
   * @throws {LockError} as {@link acquire}; `ERR_LOCK_WOULD_DEADLOCK` if only this very thread could end the wait
   */
  acquireSync(options?: AcquireOptions): LockGuard;
  acquireSync<T>(fn: (guard: LockGuard) => T): T;
  acquireSync<T>(options: AcquireOptions | undefined, fn: (guard: LockGuard) => T): T;
  acquireSync<T>(
    first?: AcquireOptions | ((guard: LockGuard) => T),
    second?: (guard: LockGuard) => T,
  ): LockGuard | T {
    return this.runSync('exclusive', first, second);
  }

  /** Takes the lock if that is possible at once. Never waits; `null` if it is taken, by whomever. */
  tryAcquire(): LockGuard | null {
    return this.tryRun('exclusive');
  }
}

/** A {@link Lock} that its owner may acquire again: counted, and released with the last of its guards. */
export class RLock extends Lock {
  /** @internal */
  protected override readonly reentrant = true;
}
