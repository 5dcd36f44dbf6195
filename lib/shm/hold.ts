// What this thread holds of the native locks.
import { hasReleaseWatchers, publishAbandoned, publishRelease, type WatchedHold } from '../common/channels';
import { now } from '../common/clock';
import type { LockError } from '../common/errors';
import type { Held, Owner } from '../common/owner';
import { Recent } from '../common/recent';
import type { Abandoned, LockMode } from '../common/types';
import { type AbandonedTuple, type Native, Report, tokenOf } from './binding';
import { errorOf, Status } from './errors';
import { type Losable, Losses, stolenError, tellLoss } from './losses';
import type { Ready, WaitedLock } from './ready';

/** What a hold needs of its lock. */
export type LockOfHold = Losable['record'] &
  WaitedLock & {
    /** Looks whether those who hold it are alive; `wanted` is for the error where that fails. */
    look(wanted: string): void;
    /** How many are ahead of this wait in the queue. */
    placeOf(index: number): number | undefined;
    /** Counts one hold. */
    addHold(hold: Hold): void;
    /** The hold ends: its thread does not own it any more. */
    forgetHold(hold: Hold): void;
    /** One hold less. */
    endUse(): void;
    /** For how long this thread has held it so, as others see it. */
    heldMs(mode: LockMode): number;
  };

/** An upgrade that waits. */
export interface PendingUpgrade {
  readonly guard: object;
  /** Gives it up. */
  withdraw(reason: unknown): void;
}

/**
 * One hold of the native lock: what all guards of nested acquires have in common. One object per native index, used
 * again and again; `serial` grows when a hold ends.
 */
export class Hold implements Held, Losable, WatchedHold {
  record!: LockOfHold;
  mode: LockMode = 'shared';
  serial = 0;
  abandoned: Abandoned | null = null;
  owner: Owner | undefined = undefined;
  private depth = 0;
  private finished = true;
  private stolen: (() => void) | undefined = undefined;
  /** Whether it is going to be looked at, for this or an earlier hold of its native index. */
  private isListed = false;
  tokenLow = 0;
  tokenHigh = 0;
  /** Whether others were told in which context it is held. */
  isInContext = false;
  /** Whether its end is that of a flight. */
  isFlight = false;
  /** There is one at most. */
  upgrade: PendingUpgrade | undefined = undefined;
  /** By `now()`, of the hold with that serial: known where somebody watched. */
  private granted = 0;
  private grantedSerial = -1;

  private readonly native: Native;

  constructor(
    private readonly holds: Holds,
    readonly ready: Ready,
    readonly index: number,
  ) {
    this.native = ready.native;
  }

  /** Called with the report of the native call that granted it, which says that nothing was abandoned. */
  begin(record: LockOfHold, mode: LockMode): this {
    this.record = record;
    this.mode = mode;
    this.depth = 1;
    this.finished = true;
    this.readToken();
    this.abandoned = null;
    record.addHold(this);
    return this;
  }

  /** Called with the report of the native call that upgraded it. */
  becomeExclusive(): void {
    this.mode = 'exclusive';
    this.readToken();
    this.abandoned = null;
    if (this.native.reported(Report.ABANDONED) !== 0) this.readAbandoned();
  }

  private readToken(): void {
    const { native } = this;
    this.tokenLow = native.reported(Report.TOKEN_LOW);
    this.tokenHigh = native.reported(Report.TOKEN_HIGH);
  }

  get token(): bigint {
    return tokenOf(this.tokenHigh, this.tokenLow);
  }

  grantedAt(time: number): void {
    if (this.depth > 1) return;
    this.granted = time;
    this.grantedSerial = this.serial;
  }

  readAbandoned(): void {
    const found = this.native.binding.abandoned(this.index);
    if (found === undefined) return;
    this.abandoned = abandonedOf(found);
    publishAbandoned(this.record, this.mode, this.abandoned);
  }

  /** From now on `stolen` is called when somebody steals the lock. */
  listen(stolen: () => void): void {
    this.stolen = stolen;
    // Most holds end within the same turn of the event loop: the native part learns of the others only.
    if (this.isListed) return;
    this.isListed = true;
    this.holds.listening.add(this);
  }

  listenIfHeld(): void {
    this.isListed = false;
    const { index, ready, stolen } = this;
    if (stolen === undefined || ready.hasListener(index)) return;
    const status = ready.native.binding.listen(index);
    ready.listen(index, () => {
      if (this.wasLost()) stolen();
    });
    if (status === Status.STOLEN) stolen();
  }

  /** Whether somebody stole the lock, so that this holds nothing any more. */
  wasLost(): boolean {
    return this.native.binding.checkHold(this.index) === Status.STOLEN;
  }

  /** Aborts when it has ended without its holder. */
  get lost(): AbortSignal {
    return this.holds.losses.signal(this);
  }

  /** @throws {LockError} `ERR_LOCK_LOST` */
  checkNotLost(): void {
    if (this.wasLost()) throw stolenError(this.record, this.token);
  }

  get isNested(): boolean {
    return this.depth > 1;
  }

  /** A nested acquire of the same owner. */
  reenter(): Hold {
    this.depth++;
    return this;
  }

  /**
   * One guard less; with the last one the lock is released.
   * @param finished whether its user came to the end of what was to be done: a callback that throws did not
   * @throws {LockError} `ERR_LOCK_LOST`, with the last one; for the others there is {@link checkNestedNotLost}
   */
  leave(finished: boolean): void {
    this.finished = this.finished && finished;
    if (this.isInContext) this.leaveContext();
    if (--this.depth > 0) return;
    const { index, mode, native, ready, record, tokenHigh, tokenLow } = this;
    const heldMs = hasReleaseWatchers() ? this.heldMs() : undefined;
    if (this.abandoned !== null || this.isFlight) this.finish();
    let told: AbortController | undefined;
    if (this.stolen !== undefined) {
      this.stolen = undefined;
      ready.unlisten(index);
      told = this.holds.losses.forget(this);
    }
    if (this.owner !== undefined) {
      this.owner.forget(this);
      this.owner = undefined;
    }
    record.forgetHold(this);
    this.serial++;
    const result = native.release(index);
    // Whoever is told of a grant now may be a subscriber, and acquire: this object may soon be another hold.
    if (result !== Status.OK) ready.settle();
    let loss: LockError | undefined = told?.signal.aborted === true ? told.signal.reason : undefined;
    const isNew = loss === undefined && result === Status.STOLEN;
    // Before its use ends: then nobody may be left who has the lock open.
    if (isNew) loss = stolenError(record, tokenOf(tokenHigh, tokenLow));
    record.endUse();
    if (isNew) tellLoss(record, mode, loss as LockError, told);
    if (loss !== undefined) throw loss;
    if (result < 0) throw errorOf(result, 'release', record);
    if (heldMs !== undefined) publishRelease(record, mode, heldMs);
  }

  /**
   * For a guard that is not the last one. All guards of a hold throw the same error, which is the reason of `lost`. Not a part of
   * {@link leave}, which has to need as little of the stack as can be: at its end, a guard could not be given back otherwise.
   */
  checkNestedNotLost(): void {
    // Where nobody has asked, only a theft is known.
    if (this.stolen === undefined && !this.wasLost()) return;
    const { lost } = this;
    if (lost.aborted) throw lost.reason;
  }

  /** For how long it has been held. */
  private heldMs(): number {
    const { granted, grantedSerial, serial } = this;
    return grantedSerial === serial ? now() - granted : this.record.heldMs(this.mode);
  }

  /** Also if it is still held, by a nested guard: then the context that it was in may have ended. */
  private leaveContext(): void {
    this.isInContext = false;
    this.native.binding.leaveContext(this.index);
  }

  /** What others are told of the end of an exclusive hold. */
  private finish(): void {
    const { abandoned, index, isFlight, native } = this;
    this.isFlight = false;
    if (isFlight) native.binding.finishFlight(index);
    // The exclusive holder that was told, and finishes, has repaired what was to be repaired.
    if (abandoned !== null && this.finished && this.mode === 'exclusive') native.binding.finishRepair(index);
  }

  downgrade(): void {
    const status = this.native.binding.downgrade(this.index);
    this.ready.settle();
    if (status !== Status.OK)
      throw this.wasLost() ? stolenError(this.record, this.token) : errorOf(status, 'downgrade', this.record);
    this.mode = 'shared';
  }
}

export function abandonedOf([pid, threadId, since, token]: AbandonedTuple): Abandoned {
  return { pid, threadId, since: new Date(since), token };
}

/** The holds of this thread, by native index. */
export class Holds {
  /** Those whose holders want to know when they are lost. */
  readonly losses = new Losses();
  /** Those that are to be told if they are stolen, unless they end before. */
  readonly listening = new Recent<Hold>((holds, count) => {
    for (let i = 0; i < count; i++) (holds[i] as Hold).listenIfHeld();
  });
  private readonly all: Hold[] = [];

  constructor(private readonly ready: Ready) {}

  at(index: number): Hold {
    let hold = this.all[index];
    if (hold === undefined) {
      hold = new Hold(this, this.ready, index);
      this.all[index] = hold;
    }
    return hold;
  }

  /** The hold that a native call has just granted. */
  granted(record: LockOfHold, index: number, mode: LockMode): Hold {
    return this.told(this.at(index).begin(record, mode));
  }

  /** The same hold, when it was read whether somebody died with the lock before. */
  told(hold: Hold): Hold {
    if (this.ready.native.reported(Report.ABANDONED) !== 0) hold.readAbandoned();
    return hold;
  }
}
