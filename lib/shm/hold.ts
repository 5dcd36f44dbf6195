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

/** In place of a status, of a release: other guards go on holding. */
export const NESTED = 1;

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
  /** How many guards it has, or requests: none on the way from the grant to the first one. -1: it is not held, or has not begun. */
  guards = -1;
  /** There is one at most. */
  upgrade: PendingUpgrade | undefined = undefined;
  /** By `now()`, of the hold with that serial: known where somebody watched. */
  private granted = 0;
  private grantedSerial = -1;
  // Between the two halves of leave(): that it was released, for how long it was held if somebody wants to know, and by what its
  // holder was told that it was lost.
  private isUntold = false;
  private heldMs: number | undefined = undefined;
  private told: AbortController | undefined = undefined;

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
    this.readToken();
    if (this.isUntold) this.tellNobody();
    this.record = record;
    this.mode = mode;
    this.finished = true;
    this.abandoned = null;
    record.addHold(this);
    this.guards = 0; // not before: until then it is not counted
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
    if (this.guards !== 0) return; // of a nested acquire
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
    this.holds.listening.add(this);
    this.isListed = true;
  }

  /** Whether it has ended since. */
  stopsListening(): boolean {
    if (this.stolen !== undefined) return false;
    this.isListed = false;
    return true;
  }

  listenNow(): void {
    this.isListed = false;
    const { index, ready } = this;
    if (ready.hasListener(index)) return;
    const stolen = this.stolen as () => void;
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
    return this.guards > 1;
  }

  /**
   * One guard less; with the last one the lock is released.
   * @param finished whether its user came to the end of what was to be done: a callback that throws did not
   * @throws {LockError} `ERR_LOCK_LOST`, with the last one; for the others there is {@link checkNestedNotLost}
   */
  leave(finished: boolean): void {
    const status = this.release(finished);
    if (status !== NESTED) this.tellReleased(status);
  }

  /**
   * The first half of {@link leave}, in which nobody is told of anything. Where it does not come to its end, since its code is
   * terminated or the stack is at its end, the lock stays held, for nothing but to be released again.
   * @returns `NESTED`, or a status that {@link tellReleased} is to be called with
   */
  release(finished: boolean): number {
    this.finished = this.finished && finished;
    if (this.isInContext) this.leaveContext();
    if (this.guards > 1) {
      this.guards--;
      return NESTED;
    }
    const { index, native, record } = this;
    if (hasReleaseWatchers()) this.heldMs = this.timeHeld();
    if (this.abandoned !== null || this.isFlight) this.finish();
    if (this.stolen !== undefined) {
      this.ready.unlisten(index);
      this.told = this.holds.losses.forget(this);
      this.stolen = undefined;
    }
    // Nobody may believe to hold what is free: they forget it before.
    if (this.owner !== undefined) {
      this.owner.forget(this);
      this.owner = undefined;
    }
    record.forgetHold(this);
    this.serial++;
    this.upgrade = undefined;
    this.isUntold = true;
    const status = native.release(index);
    this.guards = -1;
    return status;
  }

  /**
   * The second half: what others are to know of it.
   * @throws {LockError} `ERR_LOCK_LOST`
   */
  tellReleased(status: number): void {
    const { heldMs, mode, ready, record, told, tokenHigh, tokenLow } = this;
    if (heldMs !== undefined) this.heldMs = undefined;
    if (told !== undefined) this.told = undefined;
    // Whoever is told of a grant now may be a subscriber, and acquire: this object may soon be another hold.
    if (status !== Status.OK) ready.settle();
    let loss: LockError | undefined = told?.signal.aborted === true ? told.signal.reason : undefined;
    const isNew = loss === undefined && status === Status.STOLEN;
    // Before its use ends: then nobody may be left who has the lock open.
    if (isNew) loss = stolenError(record, tokenOf(tokenHigh, tokenLow));
    this.isUntold = false;
    record.endUse();
    if (isNew) tellLoss(record, mode, loss as LockError, told);
    if (loss !== undefined) throw loss;
    if (status < 0) throw errorOf(status, 'release', record);
    if (heldMs !== undefined) publishRelease(record, mode, heldMs);
  }

  /** Its last release was not told, and there is nobody left who could be. */
  private tellNobody(): void {
    this.heldMs = undefined;
    this.told = undefined;
    this.isUntold = false;
    this.record.endUse();
  }

  /** Gives it back if this is the hold with that serial, and it came to no guard. */
  giveBackUnguarded(serial: number): void {
    if (this.serial !== serial || this.guards > 0) return;
    if (this.guards < 0) {
      this.native.release(this.index);
      this.ready.settle();
      return;
    }
    try {
      this.leave(false);
    } catch {
      // It was lost: nobody is there to be told.
    }
  }

  /**
   * For a guard that is not the last one. All guards of a hold throw the same error, which is the reason of `lost`.
   */
  checkNestedNotLost(): void {
    // Where nobody has asked, only a theft is known.
    if (this.stolen === undefined && !this.wasLost()) return;
    const { lost } = this;
    if (lost.aborted) throw lost.reason;
  }

  /** For how long it has been held. */
  private timeHeld(): number {
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

  /** @param done is called when it is shared, before anybody is told of a grant */
  downgrade(done: () => void): void {
    const status = this.native.binding.downgrade(this.index);
    if (status === Status.OK) {
      this.mode = 'shared';
      done();
    }
    this.ready.settle();
    if (status !== Status.OK)
      throw this.wasLost() ? stolenError(this.record, this.token) : errorOf(status, 'downgrade', this.record);
  }

  /** A request has it. */
  requested(): void {
    this.guards++;
    this.holds.guarded(this);
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
  readonly listening = new Recent<Hold>(
    (hold) => hold.listenNow(),
    (hold) => hold.stopsListening(),
  );
  /**
   * The native index of what was granted last, if it is not known to have a guard; -1. Where the code ends in between, terminated
   * or at the end of the stack, it is given back when this turn of the event loop is over.
   */
  fresh = -1;
  /** The serial of that hold at the grant; -1: it was not read yet, so the hold has not begun, and has it still. */
  freshSerial = -1;
  /** The earlier ones, with their serials: most likely they have guards, or will have. */
  private readonly aside: [hold: Hold, serial: number][] = [];
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

  /** To be called before the next grant. */
  setAside(): void {
    const hold = this.at(this.fresh);
    this.aside.push([hold, this.freshSerial < 0 ? hold.serial : this.freshSerial]);
    this.fresh = -1;
    this.freshSerial = -1;
  }

  /** The object for what is `fresh`, and has not begun. */
  taken(index: number): Hold {
    const hold = this.at(index);
    this.freshSerial = hold.serial;
    return hold;
  }

  /** This one has its guard. */
  guarded(hold: Hold): void {
    if (this.fresh !== hold.index) return;
    this.fresh = -1;
    this.freshSerial = -1;
  }

  /** To be called when the turn is over: no code can be on its way from a grant to its guard. */
  giveBackUnguarded(): void {
    if (this.fresh >= 0) this.setAside();
    for (const [hold, serial] of this.aside.splice(0)) hold.giveBackUnguarded(serial);
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
