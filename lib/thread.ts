// What this JavaScript thread waits for: hands the native part's pokes to the promises that wait for them.
import { performance } from 'node:perf_hooks';
import { clearTimeout as clearTimer, setTimeout as setTimer } from 'node:timers';
import { type NativeBinding, native, Report } from './binding';
import { errorOf, type LockError, Status, timeoutError } from './errors';
import { granted, type Hold } from './hold';
import type { Acquire } from './options';
import type { LockRecord } from './record';
import type { LockInfo, LockMode } from './types';

export function thread(): { binding: NativeBinding; report: Int32Array } {
  return native(drain);
}

const TIMER_MAX_MS = 2 ** 31 - 1;
const waits = new Map<number, Wait>();

/** One pending acquire. It ends once: granted, timed out, aborted, closed, or with an error. */
export class Wait {
  private timer: ReturnType<typeof setTimer> | undefined;
  private readonly deadline: number;

  private constructor(
    private readonly record: LockRecord,
    private readonly index: number,
    private readonly mode: LockMode,
    private readonly options: Acquire,
    private readonly group: Set<Wait>,
    private readonly resolve: (hold: Hold) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    this.deadline = performance.now() + options.timeout;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.timeout !== Number.POSITIVE_INFINITY) this.arm();
    group.add(this);
    waits.set(index, this);
    if (waits.size === 1) thread().binding.keepAlive(true);
  }

  /** Queues for the lock. `group` has the wait for as long as it is pending. */
  static begin(
    record: LockRecord,
    key: number,
    mode: LockMode,
    options: Acquire,
    group: Set<Wait>,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      const { binding, report } = thread();
      const index = binding.enqueue(key, true);
      if (index < 0) {
        reject(errorOf(index, `acquire (${mode})`, record));
      } else if (report[Report.GRANTED] !== 0) {
        resolve(granted(record, index, mode));
      } else {
        new Wait(record, index, mode, options, group, resolve, reject);
      }
      settleReady();
    });
  }

  /** Was poked: tries again. */
  react(): void {
    const status = thread().binding.react(this.index);
    if (status === Status.AGAIN) return;
    this.end();
    if (status === Status.OK) {
      this.resolve(granted(this.record, this.index, this.mode));
    } else {
      this.reject(errorOf(status, `acquire (${this.mode})`, this.record));
    }
  }

  /** Leaves the queue. */
  withdraw(reason: unknown): void {
    this.end();
    thread().binding.withdraw(this.index);
    this.reject(reason);
    settleReady();
  }

  private readonly onAbort = (): void => this.withdraw(this.options.signal?.reason);

  private arm(): void {
    const left = Math.min(Math.max(this.deadline - performance.now(), 0), TIMER_MAX_MS);
    this.timer = setTimer(this.onTimer, Math.ceil(left));
  }

  private readonly onTimer = (): void => {
    if (performance.now() < this.deadline) return this.arm();
    // The poke may have come in time, and only its delivery be late on a busy event loop.
    this.react();
    if (waits.get(this.index) === this) this.withdraw(timedOut(this.record, this.mode, this.options.timeout));
  };

  private end(): void {
    clearTimer(this.timer);
    this.options.signal?.removeEventListener('abort', this.onAbort);
    this.group.delete(this);
    waits.delete(this.index);
    if (waits.size === 0) thread().binding.keepAlive(false);
  }
}

/** The error of an acquire whose time is up, with who holds the lock at this moment. */
export function timedOut(record: LockRecord, mode: LockMode, timeoutMs: number): LockError {
  let holders: LockInfo[] = [];
  try {
    holders = record.snapshot().held;
  } catch (error) {
    return error as LockError; // what keeps us from looking is the better answer
  }
  return timeoutError(record, mode, timeoutMs, holders);
}

/** Lets all waits of this thread that were poked try again. */
function drain(): void {
  const { binding, report } = thread();
  do {
    for (const index of binding.takeReady()) waits.get(index)?.react();
  } while (report[Report.READY] !== 0);
}

/** After a native call that may have poked waits of this very thread: they need no other thread to be told. */
export function settleReady(): void {
  if (thread().report[Report.READY] !== 0) drain();
}
