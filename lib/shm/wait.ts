// Pending acquires of this thread.
import { now, startTimer, type Timer } from '../common/clock';
import { type LockError, timeoutError, wouldDeadlockError } from '../common/errors';
import { type Acquire, reasonOf } from '../common/options';
import type { Owner } from '../common/owner';
import type { LockInfo, LockMode } from '../common/types';
import { How, Report } from './binding';
import { hearOfCycle, ownedBy } from './deadlock';
import { errorOf, Status } from './errors';
import type { Hold } from './hold';
import { LOOK_AGAIN_MS, LOOK_MS, type Ready, type Waiting } from './ready';
import type { LockRecord } from './record';

/** What a wait may have beside its options. */
interface Extra {
  /** Has the wait for as long as it is pending. */
  readonly group?: Set<Wait>;
  /** Who waits. */
  readonly owner?: Owner | undefined;
  /** Takes the lock by force. */
  readonly steals?: boolean;
}

/** How the native part is to wait. */
function howOf({ timeout, signal, deadlock }: Acquire): number {
  const ends = timeout !== Number.POSITIVE_INFINITY || signal !== undefined;
  return (ends ? How.ENDS : 0) | (deadlock === 'throw' ? How.THROWS : 0);
}

/** One pending acquire. It ends once: granted, timed out, aborted, closed, or with an error. */
export class Wait implements Waiting {
  private readonly ready: Ready;
  private index = -1;
  private timer: Timer | undefined;
  private readonly deadline: number;
  private ended = false;
  looksAt: number;

  private constructor(
    private readonly record: LockRecord,
    private readonly way: number,
    private readonly mode: LockMode,
    private readonly options: Acquire,
    private readonly extra: Extra,
    private readonly resolve: (hold: Hold) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    this.ready = record.ready;
    const begun = now();
    this.deadline = begun + options.timeout;
    this.looksAt = begun + LOOK_MS;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.timeout !== Number.POSITIVE_INFINITY) this.arm();
    extra.group?.add(this);
    this.ready.addPending();
    record.addUse();
  }

  /** Queues for the lock, or steals it. */
  static begin(
    record: LockRecord,
    way: number,
    mode: LockMode,
    options: Acquire,
    extra: Extra,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      const wait = new Wait(record, way, mode, options, extra, resolve, reject);
      if (wait.enqueue()) record.ready.enqueueLater(wait);
      record.ready.settle();
    });
  }

  /** Takes its place in the queue. @returns whether it has to wait until the queue can be touched again */
  enqueue(): boolean {
    const { ready, record, way } = this;
    const steals = this.extra.steals === true;
    const index = steals ? record.steal(way) : record.enqueue(way, How.ASYNC | howOf(this.options));
    if (index === Status.STALLED) return true;
    if (index >= 0 && !steals && ready.native.reported(Report.GRANTED) === 0) {
      this.index = index;
      ready.register(index, this);
      return false;
    }
    this.end();
    this.settle(index >= 0 ? Status.OK : index, index);
    return false;
  }

  /** Was poked: tries again. */
  react(): void {
    const status = this.ready.native.binding.react(this.index);
    if (status === Status.AGAIN) {
      this.hearOfCycle();
      return;
    }
    this.end();
    this.settle(status, this.index);
  }

  look(): boolean {
    const { native } = this.ready;
    const owned = ownedBy(this.extra.owner, this.options, native);
    // Whoever holds nothing that others want is told by those who do; it may only have missed that it is to fail.
    if (owned === undefined && this.options.deadlock === 'warn') return false;
    const again = native.binding.lookForCycle(this.index, owned ?? []);
    this.hearOfCycle();
    this.ready.settle();
    return again;
  }

  private hearOfCycle(): void {
    const error = hearOfCycle(this.record, this.index);
    if (error !== undefined) this.withdraw(error);
  }

  /** Leaves the queue, unless it has ended. */
  withdraw(reason: unknown): void {
    if (this.ended) return;
    const { index, ready } = this;
    this.end();
    if (index >= 0) ready.native.binding.withdraw(index);
    this.reject(reason);
    this.record.endUse();
    ready.settle();
  }

  private readonly onAbort = (): void => this.withdraw(reasonOf(this.options.signal as AbortSignal));

  private arm(): void {
    const left = Math.max(this.deadline - now(), 0);
    this.timer = startTimer(() => this.onTimer(), Math.ceil(left));
  }

  private onTimer(): void {
    if (now() < this.deadline) {
      this.arm();
      return;
    }
    // The poke may have come in time, and only its delivery be late on a busy event loop.
    if (this.index >= 0) this.react();
    if (this.ended) return;
    const error = timedOut(this.record, this.mode, this.options.timeout);
    if (!this.ended) this.withdraw(error); // looking for the holders may have found a dead one
  }

  private end(): void {
    this.ended = true;
    this.timer?.clear();
    this.options.signal?.removeEventListener('abort', this.onAbort);
    this.extra.group?.delete(this);
    this.ready.endPending(this.index, this);
  }

  private settle(status: number, index: number): void {
    const { record, mode } = this;
    if (status === Status.OK) this.resolve(record.holds.granted(record, index, mode));
    else this.reject(errorOf(status, `acquire (${mode})`, record));
    record.endUse(); // after its hold has begun: the lock is not closed in between
  }
}

/** Blocks this thread until the lock is granted. */
export function waitSync(record: LockRecord, way: number, mode: LockMode, options: Acquire): Hold {
  const { ready } = record;
  if (record.isHeldByThread()) throw wouldDeadlockError(record, mode);
  try {
    const hold = block(record, way, mode, options);
    if (hold === undefined) throw timedOut(record, mode, options.timeout);
    return hold;
  } finally {
    ready.settle(); // asynchronous waits of this thread, which were poked meanwhile
  }
}

/** Blocks in slices, between which a worker can be terminated. `undefined`: the time is up. */
function block(record: LockRecord, way: number, mode: LockMode, options: Acquire): Hold | undefined {
  const { native } = record.ready;
  const begun = now();
  const deadline = begun + options.timeout;
  const how = howOf(options);
  let index = record.enqueue(way, how);
  while (index === Status.STALLED && now() < deadline) {
    index = record.enqueue(way, how);
  }
  if (index === Status.STALLED) return undefined;
  if (index < 0) throw errorOf(index, `acquire (${mode})`, record);
  if (native.reported(Report.GRANTED) !== 0) return record.holds.granted(record, index, mode);
  let looksAt = begun + LOOK_MS;
  for (;;) {
    const status = native.binding.wait(index, Math.max(deadline - now(), 0));
    if (status === Status.OK) return record.holds.granted(record, index, mode);
    if (status !== Status.AGAIN) throw errorOf(status, `acquire (${mode})`, record);
    let error = hearOfCycle(record, index);
    const time = now();
    if (error === undefined && looksAt <= time) {
      const again = native.binding.lookForCycle(index, []);
      looksAt = time + (again ? LOOK_AGAIN_MS : LOOK_MS);
      error = hearOfCycle(record, index);
    }
    if (error === undefined && time < deadline) continue;
    native.binding.withdraw(index);
    if (error !== undefined) throw error;
    return undefined;
  }
}

/** The error of an acquire whose time is up, with who holds the lock at this moment. */
export function timedOut(record: LockRecord, mode: LockMode, timeoutMs: number): LockError {
  let holders: LockInfo[] = [];
  try {
    holders = record.holders();
  } catch (error) {
    // What keeps us from looking is the better answer, unless that is a matter of time as well.
    if ((error as LockError).code !== 'ERR_LOCK_TIMEOUT') return error as LockError;
  }
  return timeoutError(record, mode, timeoutMs, holders);
}
