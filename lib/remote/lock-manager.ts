import type { InspectOptions } from 'node:util';
import { type AcquireEvent, isWatched, traceAsync } from '../common/channels';
import { INSPECT, type Inspect, type ManagerData } from '../common/inspect';
import { NO_OPTIONS } from '../common/options';
import {
  type LockManagerSnapshot,
  type LockRequestOptions,
  type Request,
  runRequest,
  type WebLock,
} from '../common/web-locks';
import type { Hold } from './hold';
import { type LockOptions, spaceOf } from './named-lock';
import type { EngineSpace } from './space';

/**
 * The Web Locks API over an engine: what `navigator.locks` is to the tabs of a browser, this is to all programs that open
 * the same space. Requests have no owner: a nested request for the same name waits for the outer one, for ever.
 *
 * @example
 * ```ts
 * await new LockManager({ space }).request('nightly', { ifAvailable: true }, async (lock) => {
 *   if (lock === null) return; // another program is at it
 *   await runNightlyJob();
 * });
 * ```
 */
export class LockManager {
  readonly #space: EngineSpace;

  /** @throws {TypeError} as the constructor of a lock */
  constructor(options: LockOptions) {
    this.#space = spaceOf(options);
  }

  /**
   * Waits for the lock, then calls the callback (never before this returns) and holds the lock until what it returns has
   * settled.
   * @returns what the callback returns
   * @throws {DOMException} `NotSupportedError`: options that exclude each other, or a name that begins with `-`;
   * `AbortError`: the lock was stolen from us
   * @throws {LockError} `ERR_LOCK_LOST` if the hold ended otherwise; `ERR_LOCK_CLOSED`, `ERR_LOCK_UNAVAILABLE`
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
    return runRequest(this, name, [first, ...rest]);
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): ManagerData {
    return { namespace: this.#space.namespace };
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    return `LockManager ${inspect(this.toJSON(), options)}`;
  }

  /** @internal */
  take({ name, mode, ifAvailable, steal, signal }: Request): Hold | Promise<Hold | undefined> | undefined {
    const space = this.#space;
    const how = steal ? 'steal' : ifAvailable ? 'try' : 'wait';
    const record = space.recordOf(name);
    const take = (event?: AcquireEvent): Promise<Hold | undefined> =>
      space.acquire(record, mode, how, { ...NO_OPTIONS, signal }, { event });
    return isWatched() ? traceAsync<Hold | undefined>(record, mode, take) : take();
  }

  /** Every lock of the space that is held or waited for, by SharedLocks and the like as well, in all programs. */
  query(): Promise<LockManagerSnapshot> {
    return this.#space.query();
  }
}
