// What this JavaScript thread waits for: hands the native part's pokes to the promises that wait for them.
import { performance } from 'node:perf_hooks';
import { clearTimeout as clearTimer, setTimeout as setTimer } from 'node:timers';
import { type Native, openNative, Report, reported } from './binding';
import { errorOf, type LockError, Status, timeoutError } from './errors';
import { granted, type Hold } from './hold';
import { type Acquire, reasonOf } from './options';
import type { LockRecord } from './record';
import type { LockInfo, LockMode } from './types';

let opened: Native | undefined;

/** The native part of this thread; loaded at the first use, so that `require('proclock')` works everywhere. */
export function thread(): Native {
  opened ??= openNative(drain);
  return opened;
}

const TIMER_MAX_MS = 2 ** 31 - 1;
/** How long until work that a stopped process kept us from is tried again. */
const STALLED_RETRY_MS = 10;

const waits = new Map<number, Wait>();
const unqueued = new Set<Wait>();
let pending = 0;

/** By native index: who wants to know that a hold was stolen. */
export const listeners = new Map<number, () => void>();

/** One pending acquire. It ends once: granted, timed out, aborted, closed, or with an error. */
export class Wait {
  private index = -1;
  private timer: ReturnType<typeof setTimer> | undefined;
  private readonly deadline: number;
  private ended = false;

  private constructor(
    private readonly record: LockRecord,
    private readonly key: number,
    private readonly mode: LockMode,
    private readonly options: Acquire,
    private readonly group: Set<Wait> | undefined,
    private readonly steals: boolean,
    private readonly resolve: (hold: Hold) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    this.deadline = performance.now() + options.timeout;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.timeout !== Number.POSITIVE_INFINITY) this.arm();
    group?.add(this);
    if (++pending === 1) thread().binding.keepAlive(true);
  }

  /** Queues for the lock, or steals it. `group` has the wait for as long as it is pending. */
  static begin(
    record: LockRecord,
    key: number,
    mode: LockMode,
    options: Acquire,
    group?: Set<Wait>,
    steals = false,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      new Wait(record, key, mode, options, group, steals, resolve, reject).enter();
      settleReady();
    });
  }

  /** Takes its place in the queue, or waits until the queue can be touched again. */
  enter(): void {
    const { binding } = thread();
    const index = this.steals ? binding.steal(this.key) : binding.enqueue(this.key, true);
    if (index === Status.STALLED) {
      unqueued.add(this);
      settleLater();
      return;
    }
    unqueued.delete(this);
    if (index >= 0 && !this.steals && reported(Report.GRANTED) === 0) {
      this.index = index;
      waits.set(index, this);
      return;
    }
    this.end();
    if (index >= 0) this.resolve(granted(this.record, index, this.mode));
    else this.reject(errorOf(index, `acquire (${this.mode})`, this.record));
  }

  /** Was poked: tries again. */
  react(): void {
    const status = thread().binding.react(this.index);
    if (status === Status.AGAIN) return;
    const { index } = this;
    this.end();
    if (status === Status.OK) this.resolve(granted(this.record, index, this.mode));
    else this.reject(errorOf(status, `acquire (${this.mode})`, this.record));
  }

  /** Leaves the queue. */
  withdraw(reason: unknown): void {
    const { index } = this;
    this.end();
    if (index >= 0) thread().binding.withdraw(index);
    this.reject(reason);
    settleReady();
  }

  private readonly onAbort = (): void => this.withdraw(reasonOf(this.options.signal as AbortSignal));

  private arm(): void {
    const left = Math.min(Math.max(this.deadline - performance.now(), 0), TIMER_MAX_MS);
    this.timer = setTimer(() => this.onTimer(), Math.ceil(left));
  }

  private onTimer(): void {
    if (performance.now() < this.deadline) {
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
    clearTimer(this.timer);
    this.options.signal?.removeEventListener('abort', this.onAbort);
    this.group?.delete(this);
    unqueued.delete(this);
    waits.delete(this.index);
    if (--pending === 0) thread().binding.keepAlive(false);
  }
}

/** The error of an acquire whose time is up, with who holds the lock at this moment. */
export function timedOut(record: LockRecord, mode: LockMode, timeoutMs: number): LockError {
  let holders: LockInfo[] = [];
  try {
    holders = record.snapshot(false).held;
  } catch (error) {
    // What keeps us from looking is the better answer, unless that is a matter of time as well.
    if ((error as LockError).code !== 'ERR_LOCK_TIMEOUT') return error as LockError;
  }
  return timeoutError(record, mode, timeoutMs, holders);
}

/** Lets all waits of this thread that were poked try again. */
function drain(): void {
  const { binding } = thread();
  do {
    for (const index of binding.takeReady()) {
      waits.get(index)?.react();
      listeners.get(index)?.();
    }
  } while (reported(Report.READY) !== 0);
  if (reported(Report.OWED) !== 0) settleLater();
}

/** After a native call that may have poked waits of this very thread: they need no other thread to be told. */
export function settleReady(): void {
  if (reported(Report.READY) !== 0) drain();
}

let retryIsDue = false;

/** A process was stopped in the middle of a change of the queues: what we have to change there waits until it goes on. */
function settleLater(): void {
  if (retryIsDue) return;
  retryIsDue = true;
  setTimer(() => {
    retryIsDue = false;
    const left = thread().binding.settleOwed(0);
    // One that is still refused is enough to know.
    for (const wait of unqueued) {
      wait.enter();
      if (unqueued.has(wait)) break;
    }
    settleReady();
    if (left > 0) settleLater();
  }, STALLED_RETRY_MS).unref();
}
