import { isLoss } from '../common/errors';
import {
  acquireMany,
  deadlineOf,
  End,
  inPlaces,
  Many,
  restOf,
  type Step,
  type Steps,
  stepsOf,
  type WantedLock,
} from '../common/many';
import type { LockMode } from '../common/types';
import type { LockGuard } from './guard';
import type { Lock } from './lock';
import type { NamedLock } from './named-lock';
import type { AcquireOptions } from './options';
import type { SharedLock } from './shared-lock';

/** One of the locks that are taken together: exclusively, unless its mode says otherwise. */
export type Wanted = WantedLock<Lock | SharedLock>;

/** Proof that several locks are held, and the means to give them back together. */
export class MultiGuard extends Many<LockGuard> {
  /**
   * Gives all locks back that were not given back by their own guards, in reverse order.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it was called before; `ERR_LOCK_LOST` if one of them was lost: the others are
   * given back
   */
  release(): void {
    const errors: unknown[] = [];
    for (const guard of this.leaving()) {
      try {
        guard.release();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /** Gives them back unless that was done before. About those that were lost it is silent. */
  [Symbol.dispose](): void {
    if (this.isDone) return;
    try {
      this.release();
    } catch (error) {
      if (!isLoss(error)) throw error;
    }
  }

  /** The same as `[Symbol.dispose]`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}

type Work<T> = (guard: MultiGuard) => T | PromiseLike<T>;
type SyncWork<T> = (guard: MultiGuard) => T;

function multi(steps: Steps<unknown>, taken: LockGuard[]): MultiGuard {
  return new MultiGuard(inPlaces(steps, taken), taken);
}

/**
 * Waits until several locks are ours, without blocking the event loop. They are taken one after the other in an order that
 * is the same everywhere (by namespace, then name), so that nobody who takes his locks in this way waits in a circle. There
 * is one time-out for all. What fails gives back what was taken. With a function: calls it, and gives them back when what
 * it returns has settled.
 *
 * @example
 * ```ts
 * await acquireAll([from, to, { lock: rates, mode: 'shared' }], { timeout: 1000 }, () => transfer(amount));
 * ```
 * @throws {LockError} as the `acquire()` of each
 */
export function acquireAll(wanted: readonly Wanted[], options?: AcquireOptions): Promise<MultiGuard>;
export function acquireAll<T>(wanted: readonly Wanted[], fn: Work<T>): Promise<T>;
export function acquireAll<T>(
  wanted: readonly Wanted[],
  options: AcquireOptions | undefined,
  fn: Work<T>,
): Promise<T>;
export function acquireAll<T>(
  wanted: readonly Wanted[],
  first?: AcquireOptions | Work<T>,
  second?: Work<T>,
): Promise<MultiGuard | T> {
  return acquireMany<LockGuard, MultiGuard, T>('local', wanted, first, second, multi);
}

/** {@link acquireAll}, blocking this thread. */
export function acquireAllSync(wanted: readonly Wanted[], options?: AcquireOptions): MultiGuard;
export function acquireAllSync<T>(wanted: readonly Wanted[], fn: SyncWork<T>): T;
export function acquireAllSync<T>(
  wanted: readonly Wanted[],
  options: AcquireOptions | undefined,
  fn: SyncWork<T>,
): T;
export function acquireAllSync<T>(
  wanted: readonly Wanted[],
  first?: AcquireOptions | SyncWork<T>,
  second?: SyncWork<T>,
): MultiGuard | T {
  const all = stepsOf<NamedLock>(wanted, 'local');
  const { options, fn } = restOf<SyncWork<T>>(first, second);
  const deadline = deadlineOf(all, options);
  if (fn === undefined) {
    const take = (lock: NamedLock, mode: LockMode) => lock.runSync(mode, deadline(), undefined) as LockGuard;
    return multi(all, takeNow(all.steps, take) as LockGuard[]);
  }
  const [head, ...others] = all.steps;
  if (head === undefined) return callNow(all, [], fn);
  return head.lock.runSync(head.mode, deadline(), (outer) => {
    const take = (lock: NamedLock, mode: LockMode) =>
      lock.runSync(mode, { ...deadline(), within: outer }, undefined) as LockGuard;
    let inner: LockGuard[];
    try {
      inner = takeNow(others, take) as LockGuard[];
    } catch (error) {
      // Before its callback ends as one that has failed.
      if (outer.hold.isNested) giveBackNow([outer]);
      throw error;
    }
    const end = new End<T>();
    try {
      end.succeed(callNow(all, [outer, ...inner], fn));
    } catch (error) {
      end.fail(error);
    }
    for (const guard of inner.reverse()) {
      try {
        guard.settle(end.finished);
      } catch (error) {
        end.fail(error);
      }
    }
    return end.result();
  }) as T;
}

function callNow<T>(all: Steps<NamedLock>, taken: LockGuard[], fn: SyncWork<T>): T {
  const guard = multi(all, taken);
  try {
    return fn(guard);
  } finally {
    guard.end();
  }
}

/** Takes all of the locks if that is possible at once, or none of them. Never waits; `null` if one is taken, by whomever. */
export function tryAcquireAll(wanted: readonly Wanted[]): MultiGuard | null {
  const all = stepsOf<NamedLock>(wanted, 'local');
  for (const handle of all.handles) handle.checkOpen();
  const taken = takeNow(all.steps, (lock, mode) => lock.tryRun(mode));
  return taken === null ? null : multi(all, taken);
}

/** Takes them one after the other. Where one fails, or is refused, what was taken is given back. */
function takeNow(
  steps: ReadonlyArray<Step<NamedLock>>,
  take: (lock: NamedLock, mode: LockMode) => LockGuard | null,
): LockGuard[] | null {
  const taken: LockGuard[] = [];
  let complete = false;
  try {
    for (const { lock, mode } of steps) {
      const guard = take(lock, mode);
      if (guard === null) return null;
      taken.push(guard);
    }
    complete = true;
    return taken;
  } finally {
    if (!complete) giveBackNow(taken);
  }
}

/** As {@link giveBack}. */
function giveBackNow(guards: readonly LockGuard[]): void {
  for (const guard of [...guards].reverse()) {
    try {
      guard.settle(guard.hold.isNested);
    } catch {
      // It was lost: nothing is held any more.
    }
  }
}
