// Pending acquires of this thread.
import { now, startTimer, type Timer } from '../common/clock';
import { deadlockError, type LockError, timeoutError } from '../common/errors';
import { type Acquire, reasonOf } from '../common/options';
import type { LockInfo, LockMode } from '../common/types';
import { Report } from './binding';
import { errorOf, Status } from './errors';
import { Hold } from './hold';
import type { Ready, Waiting } from './ready';
import type { LockRecord } from './record';

/** One pending acquire. It ends once: granted, timed out, aborted, closed, or with an error. */
export class Wait implements Waiting {
  private readonly ready: Ready;
  private index = -1;
  private timer: Timer | undefined;
  private readonly deadline: number;
  private ended = false;

  private constructor(
    private readonly record: LockRecord,
    private readonly way: number,
    private readonly mode: LockMode,
    private readonly options: Acquire,
    private readonly group: Set<Wait> | undefined,
    private readonly steals: boolean,
    private readonly resolve: (hold: Hold) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    this.ready = record.ready;
    this.deadline = now() + options.timeout;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.timeout !== Number.POSITIVE_INFINITY) this.arm();
    group?.add(this);
    this.ready.addPending();
    record.addUse();
  }

  /** Queues for the lock, or steals it. `group` has the wait for as long as it is pending. */
  static begin(
    record: LockRecord,
    way: number,
    mode: LockMode,
    options: Acquire,
    group?: Set<Wait>,
    steals = false,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      const wait = new Wait(record, way, mode, options, group, steals, resolve, reject);
      if (wait.enqueue()) record.ready.enqueueLater(wait);
      record.ready.settle();
    });
  }

  /** Takes its place in the queue. @returns whether it has to wait until the queue can be touched again */
  enqueue(): boolean {
    const { ready, record, steals, way } = this;
    const index = steals ? record.steal(way) : record.enqueue(way, true);
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
    if (status === Status.AGAIN) return;
    this.end();
    this.settle(status, this.index);
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
    const ahead = this.index < 0 ? undefined : this.record.placeOf(this.index);
    const error = timedOut(this.record, this.mode, this.options.timeout, ahead);
    if (!this.ended) this.withdraw(error); // looking for the holders may have found a dead one
  }

  private end(): void {
    this.ended = true;
    this.timer?.clear();
    this.options.signal?.removeEventListener('abort', this.onAbort);
    this.group?.delete(this);
    this.ready.endPending(this.index, this);
  }

  private settle(status: number, index: number): void {
    const { record, mode } = this;
    if (status === Status.OK) this.resolve(record.holds.granted(record, index, mode));
    else this.reject(errorOf(status, `acquire (${mode})`, record));
    record.endUse(); // after its hold has begun: the lock is not closed in between
  }
}

/** Blocks this thread until the lock is granted, for at most `timeoutMs`. */
export function waitSync(record: LockRecord, way: number, mode: LockMode, timeoutMs: number): Hold {
  const { ready } = record;
  if (record.isHeldByThread()) throw deadlockError(record, mode);
  try {
    const hold = blockUntil(now() + timeoutMs, record, way, mode);
    if (hold instanceof Hold) return hold;
    throw timedOut(record, mode, timeoutMs, hold.ahead);
  } finally {
    ready.settle(); // asynchronous waits of this thread, which were poked meanwhile
  }
}

/** The time is up. */
interface TooLate {
  /** How many were ahead in the queue, if that is known. */
  readonly ahead: number | undefined;
}

/** Blocks in slices, between which a worker can be terminated. */
function blockUntil(deadline: number, record: LockRecord, way: number, mode: LockMode): Hold | TooLate {
  const { native } = record.ready;
  let index = record.enqueue(way, false);
  while (index === Status.STALLED && now() < deadline) {
    index = record.enqueue(way, false);
  }
  if (index === Status.STALLED) return { ahead: undefined };
  if (index < 0) throw errorOf(index, `acquire (${mode})`, record);
  if (native.reported(Report.GRANTED) !== 0) return record.holds.granted(record, index, mode);
  for (;;) {
    const status = native.binding.wait(index, Math.max(deadline - now(), 0));
    if (status === Status.OK) return record.holds.granted(record, index, mode);
    if (status !== Status.AGAIN) throw errorOf(status, `acquire (${mode})`, record);
    if (now() < deadline) continue;
    const ahead = record.placeOf(index);
    native.binding.withdraw(index);
    return { ahead };
  }
}

/** The error of an acquire whose time is up, with who holds the lock at this moment. */
export function timedOut(record: LockRecord, mode: LockMode, timeoutMs: number, ahead?: number): LockError {
  let holders: LockInfo[] = [];
  const stopped = new Set<LockInfo>();
  try {
    holders = record.holders(stopped);
  } catch (error) {
    // What keeps us from looking is the better answer, unless that is a matter of time as well.
    if ((error as LockError).code !== 'ERR_LOCK_TIMEOUT') return error as LockError;
  }
  return timeoutError(record, mode, timeoutMs, holders, { ahead, stopped });
}
