// How every form of an acquire is called: with options, with a function, with both.
import { beginContext, endContext, runInContext } from './context';
import { argumentTypeError, isLoss } from './errors';
import { checkFunction } from './options';
import type { Held, HoldSet, Owner } from './owner';
import type { LockMode } from './types';

/** A function that is given the guard. */
export type Work<G, T> = (guard: G) => T;

/** Those of the two arguments that `(options?)`, `(fn)` and `(options, fn)` have in common. */
export function optionsOf<O extends object>(
  first: O | ((guard: never) => unknown) | undefined,
  second: unknown,
): O | undefined {
  if (typeof first !== 'function') {
    checkFunction(second);
    return first;
  }
  if (second !== undefined) throw argumentTypeError('options', 'of type object', first);
  return undefined;
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
  /** Releases unless that was done; `finished` is false if the callback threw. A promise where others have to be asked. */
  settle(finished: boolean): void | Promise<void>;
}

/** A lock, as far as a callback needs it that is called with a guard. */
export interface Guarding<H extends Held, G extends Settling> {
  /** A guard that is missed when it is dropped. */
  watchedGuard(hold: H, mode: LockMode, owner: Owner): G;
}

/** For whom a callback is called. */
export interface Caller {
  readonly wanted: LockMode;
  /** Who was named by `within`. */
  readonly owner: Owner | undefined;
  /** The callback around the caller. */
  readonly context: HoldSet | undefined;
}

/** Calls a function as an owner of its own, and ends its guard when it returns. */
export function callSync<H extends Held, G extends Settling & { settle(finished: boolean): void }, T>(
  lock: Guarding<H, G>,
  { context: outer, owner, wanted }: Caller,
  hold: H,
  fn: Work<G, T>,
): T {
  const context = beginContext(hold, outer, owner);
  const guard = lock.watchedGuard(hold, wanted, context);
  let finished = false;
  try {
    const result = runInContext(context, fn, guard);
    finished = true;
    return result;
  } finally {
    end(context, guard, finished);
  }
}

/**
 * Calls a function as an owner of its own, and ends its guard when what it returned has settled. Whatever of the user's
 * runs until then runs as that owner: also the `then()` of what is no promise, in which a query of some libraries begins.
 */
export function callUntilSettled<H extends Held, G extends Settling, T>(
  lock: Guarding<H, G>,
  caller: Caller,
  hold: H,
  fn: Work<G, T | PromiseLike<T>>,
): T | Promise<T> {
  const call = new Call(lock, caller, hold, fn);
  let result: T | Promise<T>;
  try {
    result = call.begin();
  } catch (error) {
    return call.fail(error);
  }
  if (!isPending(result)) return call.succeed(result);
  return result.then(
    (value) => call.succeed(value),
    (error) => call.fail(error),
  );
}

/**
 * The same as soon as the lock is granted. One function from the wait to the end: a promise of what {@link callUntilSettled}
 * returns would have to follow another one.
 */
export async function callWhenGranted<H extends Held, G extends Settling, T>(
  lock: Guarding<H, G>,
  caller: Caller,
  granted: H | Promise<H>,
  fn: Work<G, T | PromiseLike<T>>,
): Promise<T> {
  const call = new Call(lock, caller, await granted, fn);
  let value: T;
  try {
    const result = call.begin();
    value = isPending(result) ? await result : result;
  } catch (error) {
    return call.fail(error);
  }
  return call.succeed(value);
}

/** One callback that runs, as few objects as can be. */
class Call<H extends Held, G extends Settling, T> {
  private readonly context: HoldSet;
  private readonly guard: G;

  constructor(
    lock: Guarding<H, G>,
    { context, owner, wanted }: Caller,
    hold: H,
    private readonly fn: Work<G, T | PromiseLike<T>>,
  ) {
    this.context = beginContext(hold, context, owner);
    this.guard = lock.watchedGuard(hold, wanted, this.context);
  }

  /** @returns what the function returned, or a promise for what that comes to */
  begin(): T | Promise<T> {
    const { context } = this;
    const result = runInContext(context, this.fn, this.guard);
    if (!isObject(result) || isPromise(result)) return result as T | Promise<T>;
    const then = runInContext(context, thenOf, result);
    if (typeof then !== 'function') return result as T;
    return new Promise((resolve, reject) => adopt(context, result, then as Then, resolve, reject));
  }

  succeed(value: T): T | Promise<T> {
    const released = end(this.context, this.guard, true);
    return released === undefined ? value : released.then(() => value);
  }

  fail(error: unknown): Promise<never> {
    const released = end(this.context, this.guard, false);
    if (released === undefined) throw error;
    return released.then(
      () => {
        throw error;
      },
      // What the callback threw says more than that the release was not answered. A loss has to be known.
      (failure) => {
        throw isLoss(failure) ? failure : error;
      },
    );
  }
}

function thenOf(value: object): unknown {
  return (value as { then?: unknown }).then;
}

function end(context: HoldSet, guard: Settling, finished: boolean): void | Promise<void> {
  let released: void | Promise<void>;
  // Whatever goes wrong, as at the end of the stack: the lock is given back.
  try {
    endContext(context);
  } finally {
    released = guard.settle(finished);
  }
  return released;
}

type Then = (resolve: (value: unknown) => void, reject: (reason: unknown) => void) => unknown;

function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

/** A promise as the language makes them, which adopts no thenables any more. */
function isPromise(value: object): value is Promise<never> {
  return value instanceof Promise && value.constructor === Promise && value.then === Promise.prototype.then;
}

/** Whether there is something to wait for; a promise that can not be waited for is a value. */
function isPending<T>(result: T | Promise<T>): result is Promise<T> {
  return isObject(result) && isPromise(result);
}

/**
 * Adopts what a thenable resolves with, as a promise does, but with each `then()` called in the context: the language would
 * call that of a thenable which another one resolves with in the context of whoever resolves it.
 */
function adopt(
  context: HoldSet,
  thenable: object,
  then: Then,
  resolve: (value: never) => void,
  reject: (reason: unknown) => void,
): void {
  let settled = false;
  const once = (settle: (value: unknown) => void) => (value: unknown) => {
    if (settled) return;
    settled = true;
    settle(value);
  };
  const follow = (value: unknown): void => {
    try {
      const next = isObject(value) ? (value as { then?: unknown }).then : undefined;
      if (typeof next !== 'function') resolve(value as never);
      else adopt(context, value as object, next as Then, resolve, reject);
    } catch (error) {
      reject(error);
    }
  };
  const fail = once(reject);
  const call = (): void => {
    try {
      then.call(
        thenable,
        once((value) => runInContext(context, follow, value)),
        fail,
      );
    } catch (error) {
      fail(error);
    }
  };
  // Not at once: as with promises, the caller goes on before.
  Promise.resolve().then(() => runInContext(context, call, undefined));
}
