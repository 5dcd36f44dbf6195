import type { Caller } from '../common/call';
import type { AcquireEvent } from '../common/channels';
import { notHeldError } from '../common/errors';
import type { Acquire } from '../common/options';
import type { Hold } from './hold';

/** One acquire that may go on: all that can be refused without looking at the lock was looked at. */
export interface Plan extends Caller {
  /** Whether it blocks, or does not wait at all: then the thread is the owner where nobody else is. */
  readonly sync: boolean;
  readonly options: Acquire;
  /** The hold of the same owner that it nests in. */
  readonly nested: Hold | undefined;
  /** Of that. */
  readonly serial: number | undefined;
}

/** It has to wait, unless it only tries. */
export function contended(plan: Plan, event: AcquireEvent): Plan {
  event.contended = plan.options.timeout > 0;
  return plan;
}

/**
 * Whoever is told of a nested acquire, as a subscriber, may release or downgrade what it nests in.
 * @throws {LockError} `ERR_LOCK_NOT_HELD`
 */
export function checkStillHeld(lock: { readonly name: string }, { nested, serial, wanted }: Plan): void {
  if (nested === undefined) return;
  if (nested.serial !== serial || (wanted === 'exclusive' && nested.mode !== 'exclusive'))
    throw notHeldError(lock, 'what it nests in was released or downgraded meanwhile');
}
