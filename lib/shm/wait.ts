// Pending acquires of this thread.
import { now } from '../common/clock';
import { type LockError, wouldDeadlockError } from '../common/errors';
import { type Acquire, NO_OPTIONS } from '../common/options';
import type { Owner } from '../common/owner';
import type { LockMode } from '../common/types';
import { How, Report } from './binding';
import { hearOfCycle, ownedBy } from './deadlock';
import { errorOf, Status } from './errors';
import { Hold } from './hold';
import { Pending, timedOut } from './pending';
import { type Group, LOOK_AGAIN_MS, LOOK_MS } from './ready';
import type { LockRecord } from './record';

/** How the native part is to wait. */
function howOf({ timeout, signal, deadlock }: Acquire): number {
  const ends = timeout !== Number.POSITIVE_INFINITY || signal !== undefined;
  return (ends ? How.ENDS : 0) | (deadlock === 'throw' ? How.THROWS : 0);
}

const asHold = (hold: Hold): Hold => hold;

/** One pending acquire. */
export class Wait<T> extends Pending {
  private constructor(
    protected override readonly record: LockRecord,
    private readonly way: number,
    private readonly mode: LockMode,
    private readonly options: Acquire,
    group: Group | undefined,
    private readonly owner: Owner | undefined,
    private readonly steals: boolean,
    private readonly make: (hold: Hold) => T,
    private readonly resolve: (made: T) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(record, options, group, owner !== undefined);
    record.addUse();
  }

  /**
   * Queues for the lock.
   * @param group what it ends with: see `latestOf`
   * @param owner who waits
   */
  static begin(
    record: LockRecord,
    way: number,
    mode: LockMode,
    options: Acquire,
    group?: Group,
    owner?: Owner,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      new Wait(record, way, mode, options, group, owner, false, asHold, resolve, reject).start();
    });
  }

  /**
   * The same without options, of no owner.
   * @param make is called with the hold as soon as there is one, and must not throw: what it returns saves a promise
   */
  static beginFor<T>(
    record: LockRecord,
    way: number,
    mode: LockMode,
    make: (hold: Hold) => T,
    group: Group,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      new Wait(record, way, mode, NO_OPTIONS, group, undefined, false, make, resolve, reject).start();
    });
  }

  /** Takes the lock by force. */
  static steal(record: LockRecord, way: number, mode: LockMode): Promise<Hold> {
    return new Promise((resolve, reject) => {
      new Wait(record, way, mode, NO_OPTIONS, undefined, undefined, true, asHold, resolve, reject).start();
    });
  }

  enqueue(): boolean {
    const { ready, record, steals, way } = this;
    const index = steals ? record.steal(way) : record.enqueue(way, How.ASYNC | howOf(this.options));
    if (index === Status.STALLED) return true;
    if (index >= 0 && !steals && ready.native.reported(Report.GRANTED) === 0) {
      this.queued(index);
      return false;
    }
    this.finish(index >= 0 ? Status.OK : index, index);
    return false;
  }

  protected owned(): number[] | undefined {
    return ownedBy(this.owner, this.options.within, this.ready.native);
  }

  protected isToFail(): boolean {
    return this.options.deadlock === 'throw';
  }

  protected timedOut(ahead: number | undefined): unknown {
    return timedOut(this.record, this.mode, this.timeout, ahead, true);
  }

  protected refuse(reason: unknown): void {
    this.reject(reason);
    this.record.endUse();
  }

  protected settle(status: number, index: number): void {
    const { record, mode } = this;
    if (status === Status.OK) this.resolve(this.make(record.holds.granted(record, index, mode)));
    else this.reject(errorOf(status, `acquire (${mode})`, record));
    record.endUse(); // after its hold has begun: the lock is not closed in between
  }
}

/** Blocks this thread until the lock is granted. */
export function waitSync(record: LockRecord, way: number, mode: LockMode, options: Acquire): Hold {
  const { holds, ready } = record;
  if (holds.fresh >= 0) holds.setAside();
  ready.watchBlocked();
  if (record.isHeldByThread()) throw wouldDeadlockError(record, mode);
  try {
    const hold = block(record, way, mode, options);
    if (hold instanceof Hold) return hold;
    throw timedOut(record, mode, options.timeout, hold.ahead);
  } finally {
    ready.settle(); // asynchronous waits of this thread, which were poked meanwhile
  }
}

/** The time is up. */
interface TooLate {
  /** How many were ahead in the queue, if that is known. */
  readonly ahead: number | undefined;
}

/** As {@link hearOfCycle}, for a blocking wait: whoever is told may make calls. */
function hear(record: LockRecord, index: number): LockError | undefined {
  const { ready } = record;
  if (ready.native.reported(Report.TOLD) === 0) return undefined;
  ready.blocked = -1;
  const error = hearOfCycle(record, index);
  ready.blocked = index;
  return error;
}

/** Blocks in slices, between which a worker can be terminated. */
function block(record: LockRecord, way: number, mode: LockMode, options: Acquire): Hold | TooLate {
  const { ready } = record;
  const { native } = ready;
  const begun = now();
  const deadline = begun + options.timeout;
  const how = howOf(options);
  let index = record.enqueue(way, how);
  while (index === Status.STALLED && now() < deadline) {
    index = record.enqueue(way, how);
  }
  if (index === Status.STALLED) return { ahead: undefined };
  if (index < 0) throw errorOf(index, `acquire (${mode})`, record);
  if (native.reported(Report.GRANTED) !== 0) {
    const { holds } = record;
    holds.fresh = index;
    return holds.told(holds.taken(index).begin(record, mode));
  }
  let looksAt = begun + LOOK_MS;
  ready.blocked = index;
  for (;;) {
    const status = native.binding.wait(index, Math.max(deadline - now(), 0));
    // Where this code is terminated, it goes on until it calls the next function, or begins the next round: until the grant is
    // a hold, it is to be given back.
    if (status === Status.OK) {
      const hold = record.holds.at(index).begin(record, mode);
      record.holds.freshSerial = hold.serial;
      record.holds.fresh = index;
      ready.blocked = -1;
      return record.holds.told(hold);
    }
    if (status !== Status.AGAIN) {
      ready.blocked = -1;
      throw errorOf(status, `acquire (${mode})`, record);
    }
    let error = hear(record, index);
    const time = now();
    if (error === undefined && looksAt <= time) {
      const again = native.binding.lookForCycle(index, []);
      looksAt = time + (again ? LOOK_AGAIN_MS : LOOK_MS);
      error = hear(record, index);
    }
    if (error === undefined && time < deadline) continue;
    ready.blocked = -1;
    const ahead = error === undefined ? record.placeOf(index) : undefined;
    native.binding.withdraw(index);
    if (error !== undefined) throw error;
    return { ahead };
  }
}
