// How every form of an acquire is called: with options, with a function, with both.
import { endContext, runInContext } from './context';
import { argumentTypeError, isLoss } from './errors';
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

/** Calls a function as an owner of its own, and ends its guard when it returns. */
export function callSync<G extends Settling & { settle(finished: boolean): void }, T>(
  context: HoldSet,
  guard: G,
  fn: Work<G, T>,
): T {
  let finished = false;
  try {
    const result = runInContext(context, fn, guard);
    finished = true;
    return result;
  } finally {
    // Whatever goes wrong, as at the end of the stack: the lock is given back.
    try {
      endContext(context);
    } finally {
      guard.settle(finished);
    }
  }
}

/**
 * Calls a function as an owner of its own, and ends its guard when what it returned has settled. Whatever of the user's
 * runs until then runs as that owner: also the `then()` of what is no promise, in which a query of some libraries begins.
 */
export function callUntilSettled<G extends Settling, T>(
  context: HoldSet,
  guard: G,
  fn: Work<G, T | PromiseLike<T>>,
): T | PromiseLike<T> {
  const call = new Call(context, guard, fn);
  let result: T | PromiseLike<T>;
  try {
    result = runInContext(context, beginCall<G, T>, call);
  } catch (error) {
    return call.fail(error);
  }
  return call.pending ? result : call.succeed(result as T);
}

function beginCall<G extends Settling, T>(call: Call<G, T>): T | PromiseLike<T> {
  return call.begin();
}

/** One callback that runs, as few objects as can be. */
class Call<G extends Settling, T> {
  pending = false;

  constructor(
    private readonly context: HoldSet,
    private readonly guard: G,
    private readonly fn: Work<G, T | PromiseLike<T>>,
  ) {}

  /** To be called in the context. */
  begin(): T | PromiseLike<T> {
    const { fn } = this;
    const result = fn(this.guard);
    if (!isObject(result)) return result;
    if (isPromise(result)) return this.settleWith(result);
    const { then } = result as { then?: unknown };
    if (typeof then !== 'function') return result;
    return this.settleWith(
      new Promise((resolve, reject) => adopt(this.context, result, then as Then, resolve, reject)),
    );
  }

  succeed(value: T): T | Promise<T> {
    const released = this.end(true);
    return released === undefined ? value : released.then(() => value);
  }

  fail(error: unknown): Promise<never> {
    const released = this.end(false);
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

  private settleWith(promise: Promise<T>): Promise<T> {
    this.pending = true;
    return promise.then(
      (value) => this.succeed(value),
      (error) => this.fail(error),
    );
  }

  private end(finished: boolean): void | Promise<void> {
    let released: void | Promise<void>;
    try {
      endContext(this.context);
    } finally {
      released = this.guard.settle(finished);
    }
    return released;
  }
}

type Then = (resolve: (value: unknown) => void, reject: (reason: unknown) => void) => unknown;

function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

/** A promise as the language makes them, which adopts no thenables any more. */
function isPromise(value: object): value is Promise<never> {
  return value instanceof Promise && value.constructor === Promise && value.then === Promise.prototype.then;
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
