import { isLoss, syncError } from '../common/errors';
import { acquireMany, giveBack, inPlaces, Many, type Steps, stepsOf, type WantedLock } from '../common/many';
import type { LockGuard } from './guard';
import type { Lock, SharedLock } from './locks';
import type { AcquireOptions, NamedLock } from './named-lock';

/** One of the locks that are taken together: exclusively, unless its mode says otherwise. */
export type Wanted = WantedLock<Lock | SharedLock>;

/** Proof that several locks are held, and the means to give them back together. */
export class MultiGuard extends Many<LockGuard> {
  /**
   * Gives all locks back that were not given back by their own guards, in reverse order.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it was called before; `ERR_LOCK_LOST` if one of them was lost: the others are
   * given back; `ERR_LOCK_UNAVAILABLE`
   */
  async release(): Promise<void> {
    // All are asked for at once: where the engine does not answer, that takes no longer than one.
    const ended = await Promise.allSettled(this.leaving().map((guard) => guard.release()));
    for (const each of ended) if (each.status === 'rejected') throw each.reason;
  }

  /** Gives them back unless that was done before. About those that were lost it is silent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isDone) return;
    await this.release().catch((error: unknown) => {
      if (!isLoss(error)) throw error;
    });
  }

  /** @internal To programs without types. */
  [Symbol.dispose](): never {
    this[Symbol.asyncDispose]().catch(() => {}); // whoever wrote `using` has no other way to release them
    throw syncError(
      { name: this.guards.map(({ lock }) => lock.name).join(', ') },
      '[Symbol.dispose]()',
      '`await using`, or release()',
    );
  }
}

type Work<T> = (guard: MultiGuard) => T | PromiseLike<T>;

function multi(steps: Steps<unknown>, taken: LockGuard[]): MultiGuard {
  return new MultiGuard(inPlaces(steps, taken), taken);
}

/**
 * Waits until several locks are ours. They are taken one after the other in an order that is the same everywhere (by
 * namespace, then name), so that nobody who takes his locks in this way waits in a circle. There is one time-out for all.
 * What fails gives back what was taken. With a function: calls it, and gives them back when what it returns has settled.
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
  return acquireMany<LockGuard, MultiGuard, T>('remote', wanted, first, second, multi);
}

/**
 * Takes all of the locks if that is possible at once, or none of them. Never waits for others; `null` if one is taken, by
 * whomever.
 */
export async function tryAcquireAll(wanted: readonly Wanted[]): Promise<MultiGuard | null> {
  const all = stepsOf<NamedLock>(wanted, 'remote');
  for (const handle of all.handles) handle.checkOpen();
  const taken: LockGuard[] = [];
  let complete = false;
  try {
    for (const { lock, mode } of all.steps) {
      const guard = await lock.tryRun(mode);
      if (guard === null) return null;
      taken.push(guard);
    }
    complete = true;
    return multi(all, taken);
  } finally {
    if (!complete) await giveBack(taken);
  }
}
