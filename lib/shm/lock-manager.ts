import type { InspectOptions } from 'node:util';
import { type AcquireEvent, isWatched, traceAsync } from '../common/channels';
import { argumentValueError, type LockError } from '../common/errors';
import { INSPECT, type Inspect, type ManagerData } from '../common/inspect';
import { checkNamespace, NO_OPTIONS } from '../common/options';
import {
  type LockManagerSnapshot,
  type LockRequestOptions,
  type Request,
  runRequest,
  type WebLock,
} from '../common/web-locks';
import { wayOf } from './binding';
import type { Hold } from './hold';
import { checkLockOptions } from './options';
import type { LockRecord } from './record';
import { droppedHandles, leaks, records } from './thread';
import { Wait } from './wait';

/** The options of a {@link LockManager}. */
export interface LockManagerOptions {
  /** As that of a `SharedLock`: the same names in the same namespace are the same locks. @default 'default' */
  namespace?: string;
}

/** For so long a request that waits relies on the last look at the namespace: looking takes longer than all the rest of it. */
const LOOKED_MS = 1;

/** How many names stay open after their last request, because the next one is likely to be for one of them. */
const RECENT_NAMES_MAX = 64;

/** The locks of a manager: those of the names that it used last are open. */
class RecentNames {
  /** The least recently used one first. */
  private readonly open = new Map<string, LockRecord>();
  private latest: string | undefined;

  constructor(readonly namespace: string) {}

  /** Does something with the lock of this name, in the namespace that is there now. */
  use<T>(name: string, work: (record: LockRecord) => T): T {
    const { open } = this;
    const known = open.get(name);
    if (known !== undefined) {
      try {
        if (name !== this.latest) {
          this.latest = name;
          open.delete(name);
          open.set(name, known);
        }
        return work(known);
      } catch (error) {
        if ((error as LockError).code !== 'ERR_LOCK_NAMESPACE_REMOVED') throw error;
        open.delete(name);
        known.leave();
      }
    }
    const record = records().enter(name, this.namespace, -1);
    open.set(name, record);
    this.latest = name;
    if (open.size > RECENT_NAMES_MAX) {
      for (const [oldest, unused] of open) {
        open.delete(oldest);
        unused.leave();
        break;
      }
    }
    return work(record);
  }

  /** Takes the lock, or begins to wait for it. */
  take(request: Request, event?: AcquireEvent): Hold | Promise<Hold> | undefined {
    const { name, mode, signal } = request;
    return this.use(name, (record) => {
      const way = wayOf(mode, true);
      const waits = !request.steal && !request.ifAvailable;
      const hold =
        request.steal || (waits && record.isExclusiveHere()) ? undefined : record.tryNow(way, mode);
      if (hold !== undefined) return hold;
      // Nobody waits for somebody, or robs somebody, in a namespace that was removed.
      record.checkNamespace(request.steal || request.ifAvailable ? 0 : LOOKED_MS);
      if (request.steal) return Wait.steal(record, way, mode);
      if (request.ifAvailable) return record.tryAgain(way, mode);
      if (event !== undefined) event.contended = true;
      return Wait.begin(record, way, mode, signal === undefined ? NO_OPTIONS : { ...NO_OPTIONS, signal });
    });
  }

  /** Closes them all. */
  leave(): void {
    for (const record of this.open.values()) record.leave();
  }
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
  private readonly names: RecentNames;

  /** Touches nothing yet: the namespace is entered by the first request or query. */
  constructor(options: LockManagerOptions = {}) {
    checkLockOptions(options);
    const { group } = options as { group?: unknown };
    if (group !== undefined)
      throw argumentValueError(
        'options.group',
        'is for locks: a LockManager has the namespaces of this user',
        group,
      );
    this.names = new RecentNames(checkNamespace(options.namespace));
    droppedHandles.register(this, this.names);
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
    return runRequest(this, name, [first, ...rest]);
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): ManagerData {
    return { namespace: this.names.namespace };
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    return `LockManager ${inspect(this.toJSON(), options)}`;
  }

  /** @internal */
  take(request: Request): Hold | Promise<Hold | undefined> | undefined {
    leaks.expect();
    const { names } = this;
    if (!isWatched()) return names.take(request);
    const { name, mode } = request;
    const lock = { name, namespace: names.namespace };
    return traceAsync<Hold | undefined>(lock, mode, (event) => names.take(request, event));
  }

  /** Every lock of the namespace that is held or waited for, by SharedLocks and the like as well, in all processes. */
  async query(): Promise<LockManagerSnapshot> {
    return this.names.use('', (record) => record.snapshotOfAll());
  }
}

/** The locks of the default namespace. */
export const locks: LockManager = new LockManager();
