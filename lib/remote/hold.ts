// What a session holds: what all guards of nested acquires have in common.
import {
  hasReleaseWatchers,
  publishAbandoned,
  publishLost,
  publishRelease,
  type WatchedHold,
} from '../common/channels';
import { now } from '../common/clock';
import { isClosing, type LockError, lostError, releasedInUpgradeError, shown } from '../common/errors';
import type { Held, Owner } from '../common/owner';
import type { Abandoned, LockMode } from '../common/types';
import type { Connection, Question } from './connection';
import type { Grant, Leaving, Slot } from './engine';

/** Stands for a lock: one object a name in a space. */
export interface LockRecord {
  readonly name: string;
  readonly namespace: string;
}

/** A guard, as far as it can be upgraded. */
export interface Upgradable {
  readonly hold: Hold;
}

/** An upgrade that waits. */
export interface PendingUpgrade {
  readonly guard: Upgradable;
  fail(error: unknown): void;
  /** Takes it back, and rejects when that is done. */
  withdraw(reason: unknown): void;
}

export class Hold implements Held, Slot, WatchedHold {
  /** Another one when the hold has ended: its owner does not find it any more. */
  serial = 0;
  readonly id: number;
  mode: LockMode;
  owner: Owner | undefined = undefined;
  token: bigint;
  abandoned: Abandoned | null;
  /** Whether a flight was finished while this one waited. */
  sawFlight = false;
  /** Whether it is to count as a finished flight. */
  isFlight = false;
  /** There is one at most. */
  upgrade: PendingUpgrade | undefined = undefined;
  private granted = now();
  private depth = 1;
  private finished = true;
  private loss: LockError | undefined = undefined;
  private controller: AbortController | undefined = undefined;
  private onLoss: (() => void) | undefined = undefined;

  constructor(
    readonly connection: Connection,
    readonly record: LockRecord,
    slot: Slot,
    grant: Grant,
  ) {
    this.id = slot.id;
    this.mode = slot.mode;
    this.token = grant.token;
    this.abandoned = grant.abandoned;
    connection.addHold(this);
    if (grant.abandoned !== null) publishAbandoned(record, this.mode, grant.abandoned);
  }

  grantedAt(time: number): void {
    if (this.depth === 1) this.granted = time;
  }

  get name(): string {
    return this.record.name;
  }

  get isNested(): boolean {
    return this.depth > 1;
  }

  /** Aborts with an `ERR_LOCK_LOST` when the hold ends without its holder. Made when it is first asked for. */
  get lost(): AbortSignal {
    this.connection.expireIfOverdue();
    this.controller ??= new AbortController();
    // Also where it was lost together with others, and those are told first.
    if (this.loss !== undefined) this.controller.abort(this.loss);
    return this.controller.signal;
  }

  /** From now on `lost` is called when the hold ends without its holder. */
  listen(lost: () => void): void {
    this.onLoss = lost;
    if (this.loss !== undefined) lost();
  }

  wasLost(): boolean {
    return this.loss !== undefined || this.connection.isOverdue();
  }

  markLost(cause: Error): void {
    this.loss = lostError(this, cause);
    this.forget();
  }

  tellLoss(): void {
    const loss = this.loss as LockError;
    publishLost(this.record, this.mode, loss);
    // Whoever closes the space is told that it is closed, by all that waits.
    this.upgrade?.fail(isClosing(loss) ? loss.cause : loss);
    this.controller?.abort(loss);
    this.onLoss?.();
  }

  /** A request has it, as a guard would have. */
  requested(): void {}

  /** A nested acquire of the same owner. */
  reenter(): Hold {
    this.depth++;
    return this;
  }

  /**
   * One guard less; with the last one the lock is released.
   * @param finished whether its user came to the end of what was to be done
   * @throws {LockError} `ERR_LOCK_LOST`, for each guard; `ERR_LOCK_UNAVAILABLE` if the engine does not answer
   */
  async leave(finished: boolean): Promise<void> {
    this.checkNotLost();
    this.finished = this.finished && finished;
    if (--this.depth > 0) return;
    this.onLoss = undefined;
    this.serial++;
    this.forget();
    this.upgrade?.fail(releasedInUpgradeError(this));
    const leaving: Leaving = {
      // The exclusive holder that was told, and finishes, has repaired what was to be repaired.
      repaired: this.abandoned !== null && this.mode === 'exclusive' && this.finished,
      flight: this.isFlight,
    };
    const heldMs = now() - this.granted;
    try {
      const release = this.connection.insisting((session) => session.release(this, leaving));
      await this.ask('release', release);
      if (hasReleaseWatchers()) publishRelease(this.record, this.mode, heldMs);
    } finally {
      this.connection.removeHold(this.id);
    }
  }

  /**
   * Exclusive to shared. It counts as shared at once: whoever asks meanwhile is not to nest in what is about to go. That stays
   * so where it fails: an engine may have done what it refuses, or may do it yet.
   */
  async downgrade(): Promise<void> {
    this.checkNotLost();
    this.mode = 'shared';
    await this.ask('downgrade', (session) => session.downgrade(this, true));
  }

  /** It was upgraded. */
  becomeExclusive(grant: Grant): void {
    this.mode = 'exclusive';
    this.token = grant.token;
    this.abandoned = grant.abandoned;
  }

  checkNotLost(): void {
    this.connection.expireIfOverdue();
    if (this.loss !== undefined) throw this.loss;
  }

  /** Asks the engine for something, which says whether it knew the hold. */
  private async ask(what: string, question: Question<boolean>): Promise<void> {
    let known: boolean;
    try {
      known = await this.connection.ask(`${what} ${shown(this.name)}`, question);
    } catch (error) {
      throw this.loss ?? error;
    }
    if (!known) throw this.loss ?? lostError(this, new Error('the engine does not know of it any more'));
  }

  private forget(): void {
    this.owner?.forget(this);
    this.owner = undefined;
  }
}
