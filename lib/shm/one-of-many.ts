import { type Flight, flyWith } from '../common/flight';
import { type LeadOptions, leadWith, type Term } from '../common/lead';
import type { LockGuard } from './guard';
import type { Lock } from './lock';
import type { AcquireOptions } from './options';
import type { SharedLock } from './shared-lock';

/**
 * Campaigns for the lock, and leads while it holds it: calls `fn`, and resolves with what it returns. Processes and threads that
 * call this with the same lock have one leader at a time; when it ends or dies, the next one is called. When the lock was lost, it
 * campaigns again once `fn` has settled, also if it rejected because of that.
 *
 * @example
 * ```ts
 * await lead(new Lock('scheduler'), async ({ signal }) => {
 *   while (!signal.aborted) await runDueJobs({ signal });
 * });
 * ```
 * @throws what `fn` throws; `options.signal.reason` if that aborts while it stands by; {@link LockError} as `acquire()`
 */
export function lead<T>(
  lock: Lock | SharedLock,
  fn: (term: Term) => T | PromiseLike<T>,
  options: LeadOptions = {},
): Promise<T> {
  return leadWith(lock, fn, options);
}

/**
 * Lets one caller at a time run `fn`, holding the lock. Whoever had to wait for one that ran it to its end need not run it
 * again, and is told so. If that one died or threw, the next one runs it.
 *
 * @example
 * ```ts
 * const { ran } = await singleFlight(new Lock('rebuild'), rebuildCache);
 * if (!ran) await readCache(); // another process has just rebuilt it
 * ```
 * @throws what `fn` throws; {@link LockError} as `acquire()`
 */
export function singleFlight<T>(
  lock: Lock | SharedLock,
  fn: (guard: LockGuard) => T | PromiseLike<T>,
  options?: AcquireOptions,
): Promise<Flight<T>> {
  return flyWith(lock, fn, options);
}
