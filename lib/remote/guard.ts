import type { InspectOptions } from 'node:util';
import {
  isLoss,
  type LockError,
  nestedDowngradeError,
  nestedUpgradeError,
  notHeldError,
  pendingUpgradeError,
  releasedInUpgradeError,
  syncError,
} from '../common/errors';
import { type GuardData, guardData, INSPECT, type Inspect, inspectGuard } from '../common/inspect';
import type { Leak } from '../common/leaks';
import { checkAcquireOptions, throwIfAborted } from '../common/options';
import { HoldSet, OWNER, type Owner } from '../common/owner';
import type { Abandoned, LockMode, LockSnapshot, WaitOptions } from '../common/types';
import { ANSWER_MS_MAX } from './connection';
import type { Hold } from './hold';
import { Upgrade } from './upgrade';

/** What a guard shows of its lock: a `SharedLock` or `Lock`. */
export interface GuardedLock {
  /** The name of the lock. */
  readonly name: string;
  /** The namespace of the lock. */
  readonly namespace: string;
  /** Who holds it and who waits for it, in every program. */
  query(): Promise<LockSnapshot>;
  /** Gives the handle back. */
  close(): void;
  /** The same as {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Proof that a lock is held, as far as there can be one beyond a machine, and the means to give it back. The hold can end
 * while its holder lives: {@link lost} tells. A guard that is garbage-collected before it was released releases its lock,
 * and a process warning (`PROCLOCK_LEAKED_GUARD`) says so.
 *
 * @example
 * ```ts
 * await using guard = await lock.exclusive();
 * await fetch(url, { method: 'PUT', body, signal: guard.lost });
 * ```
 */
export class LockGuard {
  /** The lock that was acquired. */
  readonly lock: GuardedLock;
  /** @internal */
  readonly hold: Hold;
  /** @internal */
  leak: Leak | undefined = undefined;
  #mode: LockMode;
  #token: bigint;
  #abandoned: Abandoned | null;
  #owner: Owner | undefined;
  #done = false;
  /** That the hold was lost, if its end has told so. */
  #loss: LockError | undefined = undefined;

  /** @internal Guards come from locks. */
  constructor(lock: GuardedLock, hold: Hold, mode: LockMode, owner: Owner | undefined) {
    this.lock = lock;
    this.hold = hold;
    this.#mode = mode;
    this.#token = hold.token;
    this.#abandoned = hold.abandoned;
    this.#owner = owner;
  }

  /** How it is held: as it was acquired, `'shared'` after {@link downgrade}, `'exclusive'` after {@link upgrade}. */
  get mode(): LockMode {
    return this.#mode;
  }

  /**
   * The fencing token: greater with every exclusive grant of this name, for ever. Hand it to a store that rejects writes
   * with a token smaller than the greatest it has seen, and a holder that has lost its hold without knowing can do no harm.
   * A shared guard has the token of the last exclusive grant.
   */
  get token(): bigint {
    return this.#token;
  }

  /**
   * The last exclusive holder ended (died, lost its connection, was stopped for too long) without releasing, and nobody
   * has finished an exclusive hold since: what the lock protects may be half written. `null` if all is well.
   */
  get abandoned(): Abandoned | null {
    return this.#abandoned;
  }

  /** Whether {@link release} was called, or the callback that the guard was made for has settled. */
  get released(): boolean {
    return this.#done;
  }

  /**
   * Aborts when the hold has ended without us, with an `ERR_LOCK_LOST` as the reason, whose `cause` says why. It does so
   * before the engine can grant the lock to another, by our own clock; after an event loop that was blocked, at the first
   * look at the latest.
   */
  get lost(): AbortSignal {
    return this.hold.lost;
  }

  /**
   * Gives the lock back.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it was released before; `ERR_LOCK_LOST` if the hold had ended before;
   * `ERR_LOCK_UNAVAILABLE` if the engine does not answer within 5 s: the hold then ends when it does, or with the session
   */
  async release(): Promise<void> {
    if (this.#done) throw notHeldError(this.lock);
    await this.end(true);
  }

  /**
   * Exclusive to shared, atomically: nobody gets the lock exclusively in between.
   * @throws {LockError} `ERR_LOCK_NOT_HELD` if it is not held exclusively by this guard; `ERR_LOCK_NOT_REENTRANT` if
   * guards of nested acquires are still open; `ERR_LOCK_LOST`; `ERR_LOCK_UNAVAILABLE` if it is not known whether it was done.
   * It counts as shared then, and after every other refusal of the engine
   */
  async downgrade(): Promise<void> {
    if (this.#done) throw notHeldError(this.lock);
    if (this.#mode !== 'exclusive')
      throw notHeldError(this.lock, 'it is held shared, there is nothing to downgrade');
    if (this.hold.isNested) throw nestedDowngradeError(this.lock);
    this.#mode = 'shared';
    try {
      await this.hold.downgrade();
    } finally {
      this.#mode = this.hold.mode;
      if (this.leak !== undefined) this.leak.mode = this.#mode;
    }
  }

  /**
   * Shared to exclusive, atomically: waits ahead of the whole queue, and with newcomers barred, until this is the only
   * holder. Then the guard has a new {@link token}. What fails leaves it shared. Exclusive already: does nothing.
   * @throws {LockError} `ERR_LOCK_UPGRADE` if another holder is upgrading, this one is already, or guards of nested acquires are open;
   * `ERR_LOCK_TIMEOUT`, `ERR_LOCK_NOT_HELD`, `ERR_LOCK_LOST`, `ERR_LOCK_UNAVAILABLE`; `options.signal.reason` on abort
   */
  async upgrade(options?: WaitOptions): Promise<void> {
    const wanted = checkAcquireOptions(options);
    throwIfAborted(wanted.signal);
    await this.toExclusive('wait', wanted);
  }

  /**
   * {@link upgrade} if this is the only holder; never waits.
   * @returns whether it is exclusive now
   * @throws {LockError} `ERR_LOCK_NOT_HELD`, `ERR_LOCK_LOST`, `ERR_LOCK_UNAVAILABLE`
   */
  tryUpgrade(): Promise<boolean> {
    return this.toExclusive('try', { timeout: ANSWER_MS_MAX, signal: undefined });
  }

  /** Releases the lock unless that was done before. After a loss it does nothing. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#done) return;
    await this.end(true).catch((error: unknown) => {
      if (!isLoss(error)) throw error;
    });
  }

  /** @internal To programs without types. */
  [Symbol.dispose](): never {
    this.settle(true).catch(() => {}); // whoever wrote `using` has no other way to release it
    throw syncError(this.lock, '[Symbol.dispose]()', '`await using`, or release()');
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
  async settle(finished: boolean): Promise<void> {
    if (!this.#done) await this.end(finished);
    else if (this.#loss !== undefined) throw this.#loss;
  }

  private async toExclusive(
    how: 'wait' | 'try',
    options: { timeout: number; signal: AbortSignal | undefined },
  ): Promise<boolean> {
    const { hold } = this;
    if (this.#done) throw notHeldError(this.lock);
    hold.checkNotLost();
    if (this.#mode === 'exclusive') return true;
    if (hold.isNested || hold.upgrade !== undefined) {
      if (how === 'try') return false;
      throw hold.isNested ? nestedUpgradeError(this.lock) : pendingUpgradeError(this.lock);
    }
    const upgraded = await Upgrade.begin(this, how, options);
    if (this.#done) throw releasedInUpgradeError(this.lock);
    if (upgraded) {
      this.#mode = 'exclusive';
      this.#token = hold.token;
      this.#abandoned = hold.abandoned;
      if (this.leak !== undefined) this.leak.mode = this.#mode;
    }
    return upgraded;
  }

  private async end(finished: boolean): Promise<void> {
    this.#done = true;
    const { hold, leak } = this;
    if (leak !== undefined) {
      leak.ended = true;
      leak.forget(this);
    }
    // With the last guard goes all.
    if (hold.isNested && hold.upgrade?.guard === this)
      hold.upgrade.withdraw(releasedInUpgradeError(this.lock));
    try {
      await hold.leave(finished);
    } catch (error) {
      if (isLoss(error)) this.#loss = error;
      throw error;
    }
  }
}
