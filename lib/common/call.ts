// How every form of an acquire is called: with options, with a function, with both.
import { runInContext } from './context';
import { checkFunction } from './options';
import type { HoldSet } from './owner';
import type { LockMode } from './types';

/** A function that is given the guard. */
export type Work<G, T> = (guard: G) => T;

/** Those of the two arguments that `(options?)`, `(fn)` and `(options, fn)` have in common. */
export function optionsOf<O extends object>(
  first: O | ((guard: never) => unknown) | undefined,
  second: unknown,
): O | undefined {
  if (typeof first === 'function') return undefined;
  checkFunction(second);
  return first;
}

export function workOf<O extends object, W extends (guard: never) => unknown>(
  first: O | W | undefined,
  second: W | undefined,
): W | undefined {
  return typeof first === 'function' ? first : second;
}

/** What `acquire()` of a lock with both modes is to do. */
export function modeOf(options: { exclusive?: boolean } | undefined): LockMode {
  return options?.exclusive === true ? 'exclusive' : 'shared';
}

/** What the guard of a callback is to the caller of it. */
export interface Settling {
  /** Releases unless that was done; `finished` is false if the callback threw. */
  settle(finished: boolean): void;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function';
}

/** Calls a function as an owner of its own, and ends its guard when it returns. */
export function callSync<G extends Settling, T>(context: HoldSet, guard: G, fn: Work<G, T>): T {
  let finished = false;
  try {
    const result = runInContext(context, fn, guard);
    finished = true;
    return result;
  } finally {
    context.end();
    guard.settle(finished);
  }
}

/** Calls a function as an owner of its own, and ends its guard when what it returned has settled. */
export function callUntilSettled<G extends Settling, T>(
  context: HoldSet,
  guard: G,
  fn: Work<G, T | PromiseLike<T>>,
): T | PromiseLike<T> {
  const end = (finished: boolean): void => {
    context.end();
    guard.settle(finished);
  };
  let result: T | PromiseLike<T>;
  try {
    result = runInContext(context, fn, guard);
    if (!isThenable(result)) {
      end(true);
      return result;
    }
  } catch (error) {
    end(false);
    throw error;
  }
  return Promise.resolve(result).then(
    (value) => {
      end(true);
      return value;
    },
    (error) => {
      end(false);
      throw error;
    },
  );
}
