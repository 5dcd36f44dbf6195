// The Web Locks API (https://w3c.github.io/web-locks/), with all threads of all processes of the machine as agents.
import { argumentTypeError, argumentValueError, type LockError } from './errors';
import type { Hold } from './hold';
import {
  checkLockOptions,
  checkNamespace,
  isAbortSignal,
  NO_OPTIONS,
  reasonOf,
  throwIfAborted,
} from './options';
import { LockRecord, segmentOf } from './record';
import { Wait } from './thread';
import type { LockMode, LockSnapshot } from './types';

/** What the callback of {@link LockManager.request} is given: the lock that it holds, by name and mode. */
export interface WebLock {
  /** As it was requested. */
  readonly name: string;
  /** As it was requested, or `'exclusive'`. */
  readonly mode: LockMode;
}

/** The options of {@link LockManager.request}, as in the Web Locks API. */
export interface LockRequestOptions {
  /** @default 'exclusive' */
  mode?: LockMode;
  /** Do not wait: call the callback with `null` if the lock is not free, or others wait for it. */
  ifAvailable?: boolean;
  /**
   * Take the lock from whoever holds it, in whatever process, and ahead of those that wait. The promises of its holders
   * reject with an `AbortError`; their callbacks run on. A guard of a `SharedLock` that was robbed says so when it is released
   * (`ERR_LOCK_NOT_HELD`).
   */
  steal?: boolean;
  /** Ends the wait: the request rejects with `signal.reason`. Means nothing once the lock was granted. */
  signal?: AbortSignal;
}

/** What {@link LockManager.query} saw: every lock of the namespace, of all processes. */
export type LockManagerSnapshot = LockSnapshot;

/** The options of a {@link LockManager}. */
export interface LockManagerOptions {
  /** As that of a `SharedLock`: the same names in the same namespace are the same locks. @default 'default' */
  namespace?: string;
}

/** How many names stay open after their last request, because the next one is likely to be for one of them. */
const RECENT_NAMES_MAX = 64;

const droppedManagers = new FinalizationRegistry<Map<string, LockRecord>>((recent) => {
  for (const record of recent.values()) record.leave();
});

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

interface Request {
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

/** Calls the callback, and holds the lock until what it returned has settled; so does the promise of the request. */
function holdWhile(
  hold: Hold,
  { name, mode, signal, callback }: Request,
  resolve: (value: unknown) => void,
  reject: (reason: unknown) => void,
): void {
  let ended = false;
  // Not finished, as `abandoned` goes: this holder was not told of it.
  const end = (): void => {
    if (ended) return;
    ended = true;
    try {
      hold.leave(false);
    } catch (error) {
      reject((error as LockError).code === 'ERR_LOCK_NOT_HELD' ? stolen(name) : error);
    }
  };
  const succeed = (value: unknown): void => {
    end();
    resolve(value);
  };
  const fail = (error: unknown): void => {
    end();
    reject(error);
  };
  if (signal?.aborted) {
    reject(reasonOf(signal));
    end();
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
  hold.listen(end);
  Promise.resolve(result).then(succeed, fail);
}

/**
 * The Web Locks API across processes: what `navigator.locks` is to the tabs of a browser, this is to all processes and
 * threads of this user on this machine. Strictly first-in, first-out. Requests have no owner: a nested request for the
 * same name waits for the outer one, for ever.
 *
 * @example
 * ```ts
 * await locks.request('nightly', { ifAvailable: true }, async (lock) => {
 *   if (lock === null) return; // another process is at it
 *   await runNightlyJob();
 * });
 * ```
 */
export class LockManager {
  private readonly namespace: string;
  /** The names used last, the least recently used one first. */
  private readonly recent = new Map<string, LockRecord>();
  private latest: string | undefined;

  /** Touches nothing yet: the namespace is entered by the first request or query. */
  constructor(options: LockManagerOptions = {}) {
    checkLockOptions(options);
    this.namespace = checkNamespace(options.namespace);
    droppedManagers.register(this, this.recent);
  }

  /**
   * Waits for the lock, then calls the callback (never before this returns) and holds the lock until what it returns has
   * settled.
   * @returns what the callback returns
   * @throws {DOMException} `NotSupportedError`: options that exclude each other, or a name that begins with `-`;
   * `AbortError`: the lock was stolen from us
   * @throws {LockError} those of the namespace: see the error table
   */
  request<T>(name: string, callback: (lock: WebLock) => T): Promise<Awaited<T>>;
  request<T>(
    name: string,
    options: LockRequestOptions & { ifAvailable?: false },
    callback: (lock: WebLock) => T,
  ): Promise<Awaited<T>>;
  request<T>(
    name: string,
    options: LockRequestOptions,
    callback: (lock: WebLock | null) => T,
  ): Promise<Awaited<T>>;
  request(name: string, first: unknown, ...rest: unknown[]): Promise<unknown> {
    try {
      const request = requestOf(name, [first, ...rest]);
      const taken = this.take(request);
      if (taken === undefined) return Promise.resolve(null).then(request.callback);
      return new Promise((resolve, reject) => {
        Promise.resolve(taken).then((hold) => holdWhile(hold, request, resolve, reject), reject);
      });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Every lock of the namespace that is held or waited for, by SharedLocks and the like as well, in all processes. */
  async query(): Promise<LockManagerSnapshot> {
    return this.withRecord('', (record) => record.snapshotOfAll());
  }

  private take(request: Request): Hold | Promise<Hold> | undefined {
    const { name, mode, signal } = request;
    return this.withRecord(name, (record) => {
      const key = record.key(mode, true);
      const hold = request.steal ? undefined : record.tryNow(key, mode);
      if (hold !== undefined) return hold;
      // Nobody waits for somebody, or robs somebody, in a namespace that was removed.
      record.checkNamespace();
      if (request.steal) {
        return this.wait(Wait.begin(record, key, mode, NO_OPTIONS, undefined, true), record);
      }
      if (request.ifAvailable) return record.tryAgain(key, mode);
      return this.wait(Wait.begin(record, key, mode, { ...NO_OPTIONS, signal }), record);
    });
  }

  /** The record of the lock stays open while somebody waits. */
  private wait(hold: Promise<Hold>, record: LockRecord): Promise<Hold> {
    record.enter();
    const leave = (): void => record.leave();
    hold.then(leave, leave);
    return hold;
  }

  /** Does something with the lock of this name, in the namespace that is there now. */
  private withRecord<T>(name: string, use: (record: LockRecord) => T): T {
    const known = this.recent.get(name);
    if (known !== undefined) {
      try {
        if (name !== this.latest) {
          this.latest = name;
          this.recent.delete(name);
          this.recent.set(name, known);
        }
        return use(known);
      } catch (error) {
        if ((error as LockError).code !== 'ERR_LOCK_NAMESPACE_REMOVED') throw error;
        this.recent.delete(name);
        known.leave();
      }
    }
    const record = LockRecord.enter(name, segmentOf(this.namespace, -1), -1);
    this.recent.set(name, record);
    this.latest = name;
    if (this.recent.size > RECENT_NAMES_MAX) {
      for (const [oldest, unused] of this.recent) {
        this.recent.delete(oldest);
        unused.leave();
        break;
      }
    }
    return use(record);
  }
}

/** The locks of the default namespace. */
export const locks: LockManager = new LockManager();
