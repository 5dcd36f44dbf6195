// The Web Locks API (https://w3c.github.io/web-locks/) as far as it is the same wherever the locks are: the arguments, and
// what becomes of a request that was granted.
import { argumentTypeError, argumentValueError, isLoss, type LockError, Theft } from './errors';
import { isAbortSignal, reasonOf, throwIfAborted } from './options';
import type { LockMode, LockSnapshot } from './types';

/** What the callback of `LockManager.request()` is given: the lock that it holds, by name and mode. */
export interface WebLock {
  /** As it was requested. */
  readonly name: string;
  /** As it was requested, or `'exclusive'`. */
  readonly mode: LockMode;
}

/** The options of `LockManager.request()`, as in the Web Locks API. */
export interface LockRequestOptions {
  /** @default 'exclusive' */
  mode?: LockMode;
  /** Do not wait: call the callback with `null` if the lock is not free, or others wait for it. */
  ifAvailable?: boolean;
  /**
   * Take the lock from whoever holds it, in whatever process, and ahead of those that wait. The promises of its holders
   * reject with an `AbortError`; their callbacks run on. A guard of a `SharedLock` that was robbed says so when it is released
   * (`ERR_LOCK_LOST`).
   */
  steal?: boolean;
  /** Ends the wait: the request rejects with `signal.reason`. Means nothing once the lock was granted. */
  signal?: AbortSignal;
}

/** What `LockManager.query()` saw: every lock of the namespace, of all processes. */
export type LockManagerSnapshot = LockSnapshot;

class GrantedLock implements WebLock {
  readonly #name: string;
  readonly #mode: LockMode;

  constructor(name: string, mode: LockMode) {
    this.#name = name;
    this.#mode = mode;
  }

  get name(): string {
    return this.#name;
  }

  get mode(): LockMode {
    return this.#mode;
  }

  get [Symbol.toStringTag](): string {
    return 'Lock';
  }
}

type Callback = (lock: WebLock | null) => unknown;

/** A request whose arguments were checked. */
export interface Request {
  name: string;
  mode: LockMode;
  ifAvailable: boolean;
  steal: boolean;
  signal: AbortSignal | undefined;
  callback: Callback;
}

function notSupported(reason: string): DOMException {
  return new DOMException(reason, 'NotSupportedError');
}

function stolen(name: string): DOMException {
  return new DOMException(`Lock ${JSON.stringify(name)} was stolen by another request`, 'AbortError');
}

/** Converts the arguments as Web IDL says, then checks them in the order of the specification. */
function requestOf(name: unknown, given: unknown[]): Request {
  if (typeof name === 'symbol') throw argumentTypeError('name', 'of type string', name);
  const text = String(name);
  const callback = given.length < 2 ? given[0] : given[1];
  if (typeof callback !== 'function') throw argumentTypeError('callback', 'of type function', callback);
  const options = (given.length < 2 ? undefined : given[0]) ?? {};
  if (typeof options !== 'object' && typeof options !== 'function') {
    throw argumentTypeError('options', 'of type object', options);
  }
  const { ifAvailable, mode: wanted = 'exclusive', signal, steal } = options as LockRequestOptions;
  const mode = String(wanted);
  if (mode !== 'shared' && mode !== 'exclusive') {
    throw argumentValueError('options.mode', "must be 'shared' or 'exclusive'", wanted);
  }
  if (signal !== undefined && !isAbortSignal(signal)) {
    throw argumentTypeError('options.signal', 'an instance of AbortSignal', signal);
  }
  if (text.startsWith('-')) throw notSupported('Names that begin with "-" are reserved');
  if (steal && ifAvailable) throw notSupported('`steal` and `ifAvailable` can not be used together');
  if (steal && mode !== 'exclusive') throw notSupported('`steal` is for exclusive mode only');
  if (signal !== undefined && (steal || ifAvailable)) {
    throw notSupported('`signal` can not be used together with `steal` or `ifAvailable`: they do not wait');
  }
  throwIfAborted(signal);
  return {
    name: text,
    mode,
    ifAvailable: Boolean(ifAvailable),
    steal: Boolean(steal),
    signal,
    callback: callback as Callback,
  };
}

/** What a request needs of its hold. */
export interface RequestHold {
  /** The request has it, and is going to call {@link leave}. */
  requested(): void;
  /**
   * A promise where others have to be asked.
   * @throws {LockError} `ERR_LOCK_LOST` if it was stolen, or has ended otherwise
   */
  leave(finished: boolean): void | Promise<void>;
  /** From now on `lost` is called when it ends without us. */
  listen(lost: () => void): void;
}

/** What a request needs of the locks. */
export interface RequestedLocks {
  /** The hold, at once or when it is granted; `undefined` where `ifAvailable` finds the lock taken. */
  take(request: Request): RequestHold | Promise<RequestHold | undefined> | undefined;
}

/** `request()` as the specification has it. */
export function runRequest(locks: RequestedLocks, name: unknown, given: unknown[]): Promise<unknown> {
  try {
    const request = requestOf(name, given);
    const taken = locks.take(request);
    if (taken === undefined) return Promise.resolve(null).then(request.callback);
    return new Promise((resolve, reject) => {
      Promise.resolve(taken).then((hold) => {
        if (hold === undefined) {
          resolve(Promise.resolve(null).then(request.callback));
          return;
        }
        hold.requested();
        holdWhile(hold, request, resolve, reject);
      }, reject);
    });
  } catch (error) {
    return Promise.reject(error);
  }
}

/** Calls the callback, and holds the lock until what it returned has settled; so does the promise of the request. */
function holdWhile(
  hold: RequestHold,
  { name, mode, signal, callback }: Request,
  resolve: (value: unknown) => void,
  reject: (reason: unknown) => void,
): void {
  let ended = false;
  const notReleased = (error: unknown): void => {
    const { code, cause } = error as LockError;
    reject(code === 'ERR_LOCK_LOST' && cause instanceof Theft ? stolen(name) : error);
  };
  /** Releases, once. A promise where that takes time; where it fails at once, the request is rejected. */
  const end = (): Promise<void> | undefined => {
    if (ended) return undefined;
    ended = true;
    try {
      // Not finished, as `abandoned` goes: this holder was not told of it.
      return hold.leave(false) ?? undefined;
    } catch (error) {
      notReleased(error);
      return undefined;
    }
  };
  // What comes after the promise of the request is settled has no effect on it.
  const succeed = (value: unknown): void => {
    const releasing = end();
    if (releasing === undefined) resolve(value);
    else releasing.then(() => resolve(value), notReleased);
  };
  const fail = (error: unknown): void => {
    const releasing = end();
    if (releasing === undefined) reject(error);
    // What the callback threw says more than that the release was not answered. A loss has to be known.
    else
      releasing.then(
        () => reject(error),
        (failure) => (isLoss(failure) ? notReleased(failure) : reject(error)),
      );
  };
  if (signal?.aborted) {
    reject(reasonOf(signal));
    fail(undefined);
    return;
  }
  let result: unknown;
  try {
    result = callback(new GrantedLock(name, mode));
  } catch (error) {
    fail(error);
    return;
  }
  if (typeof result !== 'object' && typeof result !== 'function') {
    succeed(result);
    return;
  }
  hold.listen(() => void end()?.catch(notReleased));
  let settling: Promise<unknown>;
  try {
    settling = Promise.resolve(result);
  } catch (error) {
    fail(error); // it has looked at the promise's constructor, which is the user's
    return;
  }
  settling.then(succeed, fail);
}
