// The options of locks in shared memory.
import { argumentTypeError, argumentValueError, outOfRangeError } from '../common/errors';
import { checkBoolean, checkObject } from '../common/options';
import type { WaitOptions } from '../common/types';
import type { LockGuard } from './guard';

const GROUP_ID_MAX = 2 ** 32 - 2;

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
export interface AcquireOptions extends WaitOptions {
  /** Acquire as the owner of that guard. */
  within?: LockGuard;
  /**
   * What becomes of this wait if it goes round in a circle that only the code of its members could end: those that wait in
   * callbacks, or `within` a guard. `'warn'`: a `process` warning, `PROCLOCK_DEADLOCK`, once for each process with a member.
   * `'throw'`: the youngest of those that say so fails with `ERR_LOCK_DEADLOCK` instead. Where all members block their
   * threads, the youngest fails in any case.
   * @default 'warn'
   */
  deadlock?: 'throw' | 'warn';
}

export function checkLockOptions(options: LockOptions): void {
  checkObject('options', options);
  checkBoolean('options.fair', options.fair);
  const { group, space } = options as LockOptions & { space?: unknown };
  if (space !== undefined)
    throw argumentValueError('options.space', 'is for the class of that name in proclock/remote', space);
  if (typeof group === 'string' && group.includes('\0'))
    throw argumentValueError('options.group', 'must be a group of this system', group);
  if (group === undefined || typeof group === 'string') return;
  if (typeof group !== 'number') throw argumentTypeError('options.group', 'of type string or number', group);
  if (!Number.isInteger(group) || group < 0 || group > GROUP_ID_MAX) {
    throw outOfRangeError('options.group', `an integer >= 0 and <= ${GROUP_ID_MAX}`, group);
  }
}
