import { checkTryOptions } from '../common/options';
import type { LockGuard } from './guard';
import { NamedLock, type Work } from './named-lock';
import type { AcquireOptions } from './options';

/**
 * A named lock that is held shared, by any number of holders, or exclusively, by one; between all processes and threads
 * of this user on this machine that name it alike. Not reentrant.
 *
 * @example
 * ```ts
 * const lock = new SharedLock('ledger');
 * await lock.exclusive(async ({ abandoned }) => {
 *   if (abandoned) await repair('ledger');
 *   await append('ledger', entry);
 * });
 * ```
 */
export class SharedLock extends NamedLock {
  /** @internal */
  readonly isShareable = true;
  /** @internal */
  protected override readonly reentrant: boolean = false;

  /**
   * Waits until the lock is ours, without blocking the event loop. With a function: calls it with the guard, and
   * releases when what it returns has settled.
   * @throws {LockError} `ERR_LOCK_TIMEOUT`, `ERR_LOCK_NOT_REENTRANT`, `ERR_LOCK_UPGRADE`, `ERR_LOCK_CLOSED`, and those of
   * the namespace; `options.signal.reason` on abort
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
   * Blocks this thread until the lock is ours. With a function: calls it, and releases when it returns.
   * @throws {LockError} as {@link shared}; `ERR_LOCK_WOULD_DEADLOCK` if only this very thread could end the wait
   */
  sharedSync(options?: AcquireOptions): LockGuard;
  sharedSync<T>(fn: (guard: LockGuard) => T): T;
  sharedSync<T>(options: AcquireOptions | undefined, fn: (guard: LockGuard) => T): T;
  sharedSync<T>(
    first?: AcquireOptions | ((guard: LockGuard) => T),
    second?: (guard: LockGuard) => T,
  ): LockGuard | T {
    return this.runSync('shared', first, second);
  }

  /** As {@link sharedSync}, alone. */
  exclusiveSync(options?: AcquireOptions): LockGuard;
  exclusiveSync<T>(fn: (guard: LockGuard) => T): T;
  exclusiveSync<T>(options: AcquireOptions | undefined, fn: (guard: LockGuard) => T): T;
  exclusiveSync<T>(
    first?: AcquireOptions | ((guard: LockGuard) => T),
    second?: (guard: LockGuard) => T,
  ): LockGuard | T {
    return this.runSync('exclusive', first, second);
  }

  /** Takes the lock if that is possible at once. Never waits; `null` if it is taken, by whomever. */
  tryShared(): LockGuard | null {
    return this.tryRun('shared');
  }

  /** As {@link tryShared}, alone. */
  tryExclusive(): LockGuard | null {
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

  /** {@link sharedSync}, or {@link exclusiveSync} with `exclusive: true`. */
  acquireSync(options?: AcquireOptions & { exclusive?: boolean }): LockGuard;
  acquireSync<T>(fn: (guard: LockGuard) => T): T;
  acquireSync<T>(
    options: (AcquireOptions & { exclusive?: boolean }) | undefined,
    fn: (guard: LockGuard) => T,
  ): T;
  acquireSync<T>(
    first?: (AcquireOptions & { exclusive?: boolean }) | ((guard: LockGuard) => T),
    second?: (guard: LockGuard) => T,
  ): LockGuard | T {
    return this.runSync(undefined, first, second);
  }

  /** {@link tryShared}, or {@link tryExclusive} with `exclusive: true`. */
  tryAcquire(options: { exclusive?: boolean } = {}): LockGuard | null {
    return this.tryRun(checkTryOptions(options) ? 'exclusive' : 'shared');
  }
}

/**
 * A {@link SharedLock} that its owner may acquire again: counted, and released with the outermost guard and the last
 * nested one. An exclusive hold stays exclusive to its end; a shared one can not be upgraded.
 */
export class SharedRLock extends SharedLock {
  /** @internal */
  protected override readonly reentrant = true;
}
