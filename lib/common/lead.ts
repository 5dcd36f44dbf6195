// One of many: whoever has the lock leads, the others stand by.
import { argumentTypeError, isLoss } from './errors';
import { isLockable, join, type Lockable, type ManyGuard } from './many';
import { checkObject, isAbortSignal } from './options';
import type { Abandoned } from './types';

/** What a leader is told of its term. */
export interface Term {
  /** Aborts when the lock was lost, or when the `signal` that was given to `lead()` does. */
  readonly signal: AbortSignal;
  /** The fencing token of this term: greater than those of all earlier ones. */
  readonly token: bigint;
  /** The leader before, if it died in office, and nobody has come to the end of a term since. */
  readonly abandoned: Abandoned | null;
}

/** How to stand for it. */
export interface LeadOptions {
  /** Ends the campaign: `lead()` rejects with `signal.reason`. A leader is told by {@link Term.signal}, and ends when it likes. */
  signal?: AbortSignal;
}

export interface LeadGuard extends ManyGuard {
  readonly token: bigint;
  readonly abandoned: Abandoned | null;
}

/** How a term ended. */
interface Outcome<T> {
  value?: T;
  error?: unknown;
  failed: boolean;
}

export function checkLock(lock: unknown): void {
  if (!isLockable(lock)) throw argumentTypeError('lock', 'a Lock or SharedLock', lock);
}

export function checkWork(fn: unknown): void {
  if (typeof fn !== 'function') throw argumentTypeError('fn', 'of type function', fn);
}

export async function leadWith<T>(
  lock: Lockable<LeadGuard>,
  fn: (term: Term) => T | PromiseLike<T>,
  options: LeadOptions,
): Promise<T> {
  checkLock(lock);
  checkWork(fn);
  checkObject('options', options);
  const { signal } = options;
  if (signal !== undefined && !isAbortSignal(signal))
    throw argumentTypeError('options.signal', 'an instance of AbortSignal', signal);
  for (;;) {
    let outcome: Outcome<T> | undefined;
    let lost: AbortSignal | undefined;
    try {
      await lock.run('exclusive', { signal }, async (guard) => {
        lost = guard.lost;
        const either = join(signal === undefined ? [lost] : [lost, signal]);
        try {
          const { abandoned, token } = guard;
          outcome = { value: await fn({ signal: either.signal, token, abandoned }), failed: false };
        } catch (error) {
          outcome = { error, failed: true };
          throw error; // for the mark of a dead leader to stay
        } finally {
          either.stop();
        }
      });
    } catch (error) {
      // A candidate has no outcome. What a leader throws is its own affair; what is thrown beyond that is of the lock.
      if (outcome === undefined) throw error;
      const ofLock = error !== outcome.error;
      const wasLost = lost?.aborted === true || (ofLock && isLoss(error));
      if (!wasLost) throw error;
      if (signal?.aborted !== true && !(outcome.failed && !isFor(lost, error, outcome.error))) continue;
      if (outcome.failed) throw outcome.error;
    }
    return (outcome as unknown as Outcome<T>).value as T;
  }
}

/** Whether somebody threw this because of the loss: its reason, or what an API makes of an aborted signal. */
function isFor(lost: AbortSignal | undefined, loss: unknown, thrown: unknown): boolean {
  const reason = lost?.aborted === true ? lost.reason : loss;
  return thrown === reason || (thrown as { cause?: unknown } | undefined)?.cause === reason;
}
