// What waits in this thread for a lock, as far as that is the same for all: it ends once, granted, timed out, aborted, closed,
// or with an error; and the event loop runs until then.
import { now, startSoon, startTimer, type Timer } from '../common/clock';
import { type LockError, timeoutError } from '../common/errors';
import { type Acquire, reasonOf } from '../common/options';
import { listenTo, stopListening } from '../common/signals';
import type { LockInfo } from '../common/types';
import { hearOfCycle } from './deadlock';
import { Status, type Subject } from './errors';
import { type Group, LOOK_MS, type Ready, type WaitedLock, type Waiting } from './ready';

interface Holders {
  /** Who holds it now; throws where that can not be seen at once. Those that are stopped are put into `stopped`. */
  holders(stopped?: Set<LockInfo>): LockInfo[];
}

interface Queued extends Holders {
  /** How many are ahead of this wait in the queue. */
  placeOf(index: number): number | undefined;
}

export abstract class Pending implements Waiting {
  looksAt: number;
  earlier: Waiting | undefined = undefined;
  later: Waiting | undefined = undefined;
  protected readonly ready: Ready;
  protected readonly timeout: number;
  private readonly signal: AbortSignal | undefined;
  /** Of its place in the queue; -1 while it has none. */
  private index = -1;
  private timer: Timer | undefined = undefined;
  private readonly deadline: number;
  private ended = false;
  private onAbort: (() => void) | undefined = undefined;

  constructor(
    protected readonly record: WaitedLock & Queued,
    { timeout, signal }: Pick<Acquire, 'timeout' | 'signal'>,
    readonly group: Group | undefined,
    /** Whether it is to look for deadlocks. */
    looks: boolean,
  ) {
    this.ready = record.ready;
    this.timeout = timeout;
    this.signal = signal;
    const ends = timeout !== Number.POSITIVE_INFINITY;
    // Not without need: to look at the clock is a twentieth of what a wait costs.
    const begun = looks || ends ? now() : 0;
    this.deadline = begun + timeout;
    this.looksAt = looks ? begun + LOOK_MS : Number.POSITIVE_INFINITY;
    if (ends) this.arm();
    this.ready.addPending(this);
  }

  /** Takes its place in the queue. @returns whether it has to wait until the queue can be touched again */
  abstract enqueue(): boolean;
  /** What whoever waits holds: see `ownedBy`. */
  protected abstract owned(): number[] | undefined;
  /** Whether it is to fail where a deadlock is likely. */
  protected abstract isToFail(): boolean;
  /** The error of a wait whose time is up. `ahead`: how many were ahead of it in the queue, if that is known. */
  protected abstract timedOut(ahead: number | undefined): unknown;
  /** It has been given up. */
  protected abstract refuse(reason: unknown): void;
  /** It has ended by itself: OK, or why not. */
  protected abstract settle(status: number, index: number): void;

  protected start(): void {
    const { signal } = this;
    if (signal !== undefined) this.listenTo(signal);
    if (this.ended) return;
    if (this.enqueue()) this.ready.enqueueLater(this);
    this.ready.settle();
  }

  /** The signal may be one of a library, which calls at once, or throws. */
  private listenTo(signal: AbortSignal): void {
    const onAbort = (): void => this.withdraw(reasonOf(signal));
    this.onAbort = onAbort; // it may be called at once
    try {
      listenTo(signal, onAbort);
    } catch (error) {
      this.withdraw(error);
    }
  }

  protected queued(index: number): void {
    this.index = index;
    this.ready.register(index, this);
  }

  tried(status: number): void {
    if (status === Status.AGAIN) {
      this.hearOfCycle();
      return;
    }
    this.finish(status, this.index);
  }

  sayContexts(): boolean {
    const owned = this.owned();
    return owned !== undefined && this.ready.native.binding.sayContexts(this.index, owned);
  }

  look(): boolean {
    const { native } = this.ready;
    const owned = this.owned();
    // Whoever holds nothing that others want is told by those who do; it may only have missed that it is to fail.
    if (owned === undefined && !this.isToFail()) return false;
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
    this.refuse(reason);
    this.stopListening();
    ready.settle();
  }

  /** It has ended by itself. The report of the call that says so is read before anybody else can make one. */
  protected finish(status: number, index: number): void {
    this.end();
    this.settle(status, index);
    this.stopListening();
  }

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
    if (this.index >= 0) this.tried(this.ready.native.binding.react(this.index));
    if (this.ended) {
      this.ready.settle();
      return;
    }
    const ahead = this.index < 0 ? undefined : this.record.placeOf(this.index);
    const error = this.timedOut(ahead);
    if (!this.ended) this.withdraw(error); // looking for the holders may have found a dead one
  }

  protected end(): void {
    this.ended = true;
    this.timer?.clear();
    this.ready.endPending(this.index, this);
  }

  /** Last of all: the signal may be one of a library, and call us. */
  private stopListening(): void {
    if (this.onAbort !== undefined) stopListening(this.signal as AbortSignal, this.onAbort);
  }
}

/** Who holds a lock, and who of them does not run. */
interface Seen {
  readonly held: LockInfo[];
  readonly stopped: ReadonlySet<LockInfo>;
}

/** What was seen in this turn of the event loop, in which the time of many waits may be up. */
const seen = new Map<Holders, Seen>();

function look(record: Holders): Seen {
  const stopped = new Set<LockInfo>();
  return { held: record.holders(stopped), stopped };
}

function lookOnce(record: Holders): Seen {
  let found = seen.get(record);
  if (found === undefined) {
    found = look(record);
    if (seen.size === 0) startSoon(() => seen.clear());
    seen.set(record, found);
  }
  return { ...found, held: [...found.held] };
}

/**
 * The error of an acquire whose time is up, with who holds the lock at this moment.
 * @param together with others, maybe
 */
export function timedOut(
  record: Holders & Subject,
  wanted: string,
  timeoutMs: number,
  ahead?: number,
  together = false,
): LockError {
  let found: Seen = { held: [], stopped: new Set() };
  try {
    found = together ? lookOnce(record) : look(record);
  } catch (error) {
    // What keeps us from looking is the better answer, unless that is a matter of time as well.
    if ((error as LockError).code !== 'ERR_LOCK_TIMEOUT') return error as LockError;
  }
  return timeoutError(record, wanted, timeoutMs, found.held, { ahead, stopped: found.stopped });
}
