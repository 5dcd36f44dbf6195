import { setImmediate as setSoon } from 'node:timers';
import { Report, release, reported } from './binding';
import { errorOf, Status } from './errors';
import type { LockRecord } from './record';
import { listeners, settleReady, thread } from './thread';
import type { Abandoned, LockMode } from './types';

const holds: Hold[] = [];

const RECENT_MAX = 64;
let recent: Hold[] = [];
let sweepIsDue = false;

/** Makes known the holds that are still held when this turn of the event loop is over. */
function listenSoon(hold: Hold): void {
  if (recent.length === RECENT_MAX) sweep(); // a turn of microtasks may have no end
  recent.push(hold);
  if (sweepIsDue) return;
  sweepIsDue = true;
  setSoon(() => {
    sweepIsDue = false;
    sweep();
  });
}

function sweep(): void {
  const listening = recent;
  recent = [];
  for (const hold of listening) hold.listenIfHeld();
}

/**
 * One hold of the native lock: what all guards of nested acquires have in common. One object per native index, used
 * again and again; `serial` grows when a hold ends.
 */
export class Hold {
  record!: LockRecord;
  mode: LockMode = 'shared';
  serial = 0;
  abandoned: Abandoned | null = null;
  private depth = 0;
  private finished = true;
  private stolen: (() => void) | undefined;
  tokenLow = 0;
  tokenHigh = 0;

  constructor(private readonly index: number) {}

  /** Called with the report of the native call that granted it, which says that nothing was abandoned. */
  begin(record: LockRecord, mode: LockMode): this {
    this.record = record;
    this.mode = mode;
    this.depth = 1;
    this.finished = true;
    this.tokenLow = reported(Report.TOKEN_LOW);
    this.tokenHigh = reported(Report.TOKEN_HIGH);
    this.abandoned = null;
    record.enter();
    return this;
  }

  readAbandoned(): void {
    const found = thread().binding.abandoned(this.index);
    if (found === undefined) return;
    const [pid, threadId, since, token] = found;
    this.abandoned = { pid, threadId, since: new Date(since), token };
  }

  /** From now on `stolen` is called when somebody steals the lock. */
  listen(stolen: () => void): void {
    this.stolen = stolen;
    listenSoon(this);
  }

  /** The native part learns of it only now, because: most holds have ended before. */
  listenIfHeld(): void {
    const { index, stolen } = this;
    if (stolen === undefined || listeners.has(index)) return;
    listeners.set(index, () => {
      if (this.wasStolen()) stolen();
    });
    if (thread().binding.listen(index) === Status.STOLEN) stolen();
  }

  /** Whether somebody stole the lock, so that this holds nothing any more. */
  wasStolen(): boolean {
    return thread().binding.checkHold(this.index) === Status.STOLEN;
  }

  /** A nested acquire of the same owner. */
  reenter(): Hold {
    this.depth++;
    return this;
  }

  /**
   * One guard less; with the last one the lock is released.
   * @param finished whether its user came to the end of what was to be done: a callback that throws did not
   */
  leave(finished: boolean): void {
    this.finished = this.finished && finished;
    if (--this.depth > 0) return;
    const { record } = this;
    // The exclusive holder that was told, and finishes, has repaired what was to be repaired.
    if (this.abandoned !== null && this.mode === 'exclusive' && this.finished)
      thread().binding.clearAbandoned(this.index);
    if (this.stolen !== undefined) {
      this.stolen = undefined;
      listeners.delete(this.index);
    }
    this.serial++;
    const result = release(this.index);
    if (result !== Status.OK) settleReady();
    record.forgetHold(this);
    if (result < 0) throw errorOf(result, 'release', record);
  }

  /** @returns false if nested guards still count on exclusive mode */
  downgrade(): boolean {
    if (this.depth > 1) return false;
    const status = thread().binding.downgrade(this.index);
    settleReady();
    if (status !== Status.OK) throw errorOf(status, 'downgrade', this.record);
    this.mode = 'shared';
    return true;
  }
}

/** The hold that a native call has just granted. */
export function granted(record: LockRecord, index: number, mode: LockMode): Hold {
  const hold = holdAt(index).begin(record, mode);
  if (reported(Report.ABANDONED) !== 0) hold.readAbandoned();
  return hold;
}

export function holdAt(index: number): Hold {
  let hold = holds[index];
  if (hold === undefined) {
    hold = new Hold(index);
    holds[index] = hold;
  }
  return hold;
}
