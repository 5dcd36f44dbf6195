import type { InspectOptions } from 'node:util';
import { currentContext } from '../common/context';
import {
  isLoss,
  nestedDowngradeError,
  nestedUpgradeError,
  notHeldError,
  pendingUpgradeError,
  releasedInUpgradeError,
} from '../common/errors';
import { type GuardData, guardData, INSPECT, type Inspect, inspectGuard } from '../common/inspect';
import type { Leak } from '../common/leaks';
import { checkAcquireOptions, throwIfAborted } from '../common/options';
import { HoldSet, innermostOf, OWNER, type Owner } from '../common/owner';
import type { Abandoned, LockMode, LockSnapshot, QueryOptions, WaitOptions } from '../common/types';
import { tokenOf } from './binding';
import { type Hold, NESTED } from './hold';
import { tryUpgrade, upgrade } from './upgrade';

/** Of guards that were asked for theirs, or were lost. They are few, and the others need no room for it. */
const signals = new WeakMap<LockGuard, AbortSignal>();

/** What a guard shows of its lock: a `SharedLock` or `Lock`. */
export interface GuardedLock {
  /** The name of the lock. */
  readonly name: string;
  /** The namespace of the lock. */
  readonly namespace: string;
  /** Who holds it and who waits for it, in every process. */
  query(options?: QueryOptions): LockSnapshot;
  /** Gives the handle back. */
  close(): void;
  /** The same as {@link close}. */
  [Symbol.dispose](): void;
}

/**
 * Proof that a lock is held, and the means to give it back. A guard that is garbage-collected before it was released
 * releases its lock, and a process warning (`PROCLOCK_LEAKED_GUARD`) says so.
 *
 * @example
 * ```ts
 * using guard = await lock.exclusive();
 * await writeFile('ledger', text, { flag: 'a' });
 * ```
 */
export class LockGuard {
  /** The lock that was acquired. */
  readonly lock: GuardedLock;
  /**
   * The last exclusive holder ended (died, was killed, forgot the lock and exited) without releasing, and nobody has
   * finished an exclusive hold since: what the lock protects may be half written. `null` if all is well.
   */
  get abandoned(): Abandoned | null {
    return this.#abandoned;
  }

  /** @internal */
  readonly hold: Hold;
  #tokenLow: number;
  #tokenHigh: number;
  #abandoned: Abandoned | null;
  #mode: LockMode;
  #owner: Owner | undefined;
  #done = false;
  /** @internal */
  leak: Leak | undefined = undefined;

  /** @internal Guards come from locks. */
  constructor(lock: GuardedLock, hold: Hold, mode: LockMode, owner: Owner | undefined) {
    this.lock = lock;
    this.hold = hold;
    this.#tokenLow = hold.tokenLow;
    this.#tokenHigh = hold.tokenHigh;
    this.#abandoned = hold.abandoned;
    this.#mode = mode;
    this.#owner = owner;
  }

  /** How it is held: as it was acquired, `'shared'` after {@link downgrade}, `'exclusive'` after {@link upgrade}. */
  get mode(): LockMode {
    return this.#mode;
  }

  /**
   * The fencing token: greater with every exclusive grant of this name, on this machine, for ever. Hand it to a store
   * that rejects writes with a token smaller than the greatest it has seen, and a holder that was stopped for too long
   * can do no harm. A shared guard has the token of the last exclusive grant.
   */
  get token(): bigint {
    return tokenOf(this.#tokenHigh, this.#tokenLow);
  }

  /**
   * Aborts when the hold has ended without us, with an `ERR_LOCK_LOST` as the reason, whose `cause` says why: somebody stole
   * the lock (told at once), or the namespace was removed (within 3 s). A guard that nobody asks for it costs nothing.
   *
   * @example
   * ```ts
   * await lock.exclusive(({ lost }) => fetch(url, { method: 'PUT', body, signal: lost }));
   * ```
   */
  get lost(): AbortSignal {
    let signal = signals.get(this);
    if (signal === undefined || !(this.#done || signal.aborted)) {
      signal = this.#done ? new AbortController().signal : this.hold.lost;
      signals.set(this, signal);
    }
    return signal;
  }

  /** Whether {@link release} was called, or the callback that the guard was made for has settled. */
  get released(): boolean {
    return this.#done;
  }

  /**
   * Gives the lock back.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it was released before; `ERR_LOCK_LOST` if it was stolen before
   */
  release(): void {
    if (this.#done) throw notHeldError(this.lock);
    this.end(true);
  }

  /**
   * Exclusive to shared, atomically: nobody gets the lock exclusively in between.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it is not held exclusively by this guard; `ERR_LOCK_NOT_REENTRANT` if
   * guards of nested acquires are still open
   */
  downgrade(): void {
    if (this.#done) throw notHeldError(this.lock);
    if (this.#mode !== 'exclusive')
      throw notHeldError(this.lock, 'it is held shared, there is nothing to downgrade');
    if (this.hold.isNested) throw nestedDowngradeError(this.lock);
    this.hold.downgrade(() => {
      this.#mode = 'shared';
      if (this.leak !== undefined) this.leak.mode = this.#mode;
    });
  }

  /**
   * Shared to exclusive, atomically: waits ahead of the whole queue, and with newcomers barred, until this is the only
   * holder. Then the guard has a new {@link token}, and {@link abandoned} as it is at that moment. What fails leaves it shared.
   * Exclusive already: does nothing. The event loop runs until it is decided.
   * @param options `timeout` in milliseconds, by default none; `signal` to give up
   * @throws {LockError} `ERR_LOCK_UPGRADE` at once if another holder waits to be upgraded, or guards of nested acquires are
   * open; `ERR_LOCK_TIMEOUT`, with `holders`; `ERR_LOCK_NOT_HELD`, also if it is released meanwhile; `ERR_LOCK_LOST`;
   * `options.signal.reason` on abort
   *
   * @example
   * ```ts
   * using guard = await lock.shared();
   * if (isStale(await readFile('cache', 'utf8'))) {
   *   await guard.upgrade();
   *   await writeFile('cache', await compute());
   * }
   * ```
   */
  async upgrade(options?: WaitOptions): Promise<void> {
    const wanted = checkAcquireOptions(options);
    throwIfAborted(wanted.signal);
    if (this.isExclusive()) return;
    if (!this.isUpgradable())
      throw this.hold.isNested ? nestedUpgradeError(this.lock) : pendingUpgradeError(this.lock);
    if (this.hold.mode === 'shared') await upgrade(this, wanted, innermostOf(this.#owner, currentContext()));
    // It may have been granted at once, and released or downgraded before this goes on.
    if (this.#done) throw releasedInUpgradeError(this.lock);
    if (this.hold.mode === 'exclusive') this.becomeExclusive();
  }

  /**
   * {@link upgrade} if this is the only holder. Never waits.
   * @returns whether it is exclusive now
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it was released before; `ERR_LOCK_LOST`
   */
  tryUpgrade(): boolean {
    if (this.isExclusive()) return true;
    if (!this.isUpgradable() || (this.hold.mode === 'shared' && !tryUpgrade(this.hold))) return false;
    this.becomeExclusive();
    return true;
  }

  /** Releases the lock unless that was done before. After a loss it does nothing. */
  [Symbol.dispose](): void {
    try {
      this.settle(true);
    } catch (error) {
      if (!isLoss(error)) throw error;
    }
  }

  /** The same as `[Symbol.dispose]`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): GuardData {
    return guardData(this);
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    return inspectGuard(this, options, inspect);
  }

  /** @internal The owner that `{ within: guard }` means. */
  [OWNER](): Owner {
    if (this.#done) throw notHeldError(this.lock, 'the guard given as `within` was released before');
    this.#owner ??= new HoldSet(this.hold);
    return this.#owner;
  }

  /** @internal Releases unless that was done; `finished` is false if a callback threw: then `abandoned` stays set. */
  settle(finished: boolean): void {
    if (!this.#done) this.end(finished);
    else if (signals.get(this)?.aborted === true) throw this.lost.reason;
  }

  private isExclusive(): boolean {
    if (this.#done) throw notHeldError(this.lock);
    this.hold.checkNotLost();
    return this.#mode === 'exclusive';
  }

  private isUpgradable(): boolean {
    return !this.hold.isNested && this.hold.upgrade === undefined;
  }

  private becomeExclusive(): void {
    const { hold } = this;
    this.#mode = 'exclusive';
    this.#tokenLow = hold.tokenLow;
    this.#tokenHigh = hold.tokenHigh;
    this.#abandoned = hold.abandoned;
    if (this.leak !== undefined) this.leak.mode = this.#mode;
  }

  private end(finished: boolean): void {
    const { hold } = this;
    if (hold.upgrade?.guard === this) {
      hold.upgrade.withdraw(releasedInUpgradeError(this.lock));
      if (this.#done) return; // by somebody who was told of that
    }
    const status = hold.release(finished);
    this.#done = true; // not before: what was not released is left to the garbage collection
    const { leak } = this;
    if (leak !== undefined) {
      leak.ended = true;
      leak.forget(this);
    }
    try {
      if (status === NESTED) hold.checkNestedNotLost();
      else hold.tellReleased(status);
    } catch (error) {
      if (isLoss(error) && signals.get(this)?.aborted !== true) signals.set(this, AbortSignal.abort(error));
      throw error;
    }
  }
}
