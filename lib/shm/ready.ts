// The native part of this thread, and who of the thread wants to hear from it: which wait or hold is meant by which native
// index, and what is tried again because another process was stopped in the middle of a change.
import { now, oncePerTurn, startTimer } from '../common/clock';
import type { LockInfo } from '../common/types';
import { Native, Report, Told } from './binding';
import { Status, type Subject } from './errors';

/** How long until work that a stopped process kept us from is tried again. */
const STALLED_RETRY_MS = 10;
/** After how long a wait looks for a deadlock, and how often. */
export const LOOK_MS = 1000;
/** How soon it looks whether what it has found is still there. Also how often, at most, this thread looks. */
export const LOOK_AGAIN_MS = 50;
/** For how long this thread looks in one turn, but for the last look. */
const LOOK_TURN_MS = 5;
/** So many waits look one by one; of more it is found out first which of them are in any cycle. */
const LOOK_EACH_MAX = 8;
/** How often an event loop does what the native thread would do, where none can be had. */
const SERVE_MS = 10;

/** Waits that are ended together: the latest of them, from which one leads to the next. */
export interface Group {
  latestWait: Waiting | undefined;
}

/** A wait, as far as it is told of anything. */
export interface Waiting {
  /** Gives it up. */
  withdraw(reason: unknown): void;
  /** It was poked, and has tried again: it may have been granted. */
  tried(status: number): void;
  /** The queue may be accessible again. @returns whether it still is not */
  enqueue(): boolean;
  /** To be called before it is found out which of many waits had better look. @returns whether it may be one of them */
  sayContexts(): boolean;
  /** When it looks for a deadlock that it is in, for the next time; `Infinity`: whoever waits can hold nothing. */
  looksAt: number;
  /** @returns whether to look again soon */
  look(): boolean;
  /** What it ends with, if it is ended together with others. */
  readonly group: Group | undefined;
  /** Of its group: the waits that began before and after it. */
  earlier: Waiting | undefined;
  later: Waiting | undefined;
}

/** A lock, as far as a wait for it needs it. */
export interface WaitedLock extends Subject {
  readonly ready: Ready;
  readonly namespace: string;
  /** The cycle that a wait was told of, from it on, if it is still there. */
  cycleOf(index: number): LockInfo[];
}

/** The waits of a group, the latest one first. */
export function latestOf(group: Group): Waiting[] {
  const waits: Waiting[] = [];
  for (let wait = group.latestWait; wait !== undefined; wait = wait.earlier) waits.push(wait);
  return waits;
}

function leaveGroup(wait: Waiting, group: Group): void {
  const { earlier, later } = wait;
  if (earlier !== undefined) earlier.later = later;
  if (later !== undefined) later.earlier = earlier;
  else group.latestWait = earlier;
  wait.earlier = undefined;
  wait.later = undefined;
}

export class Ready {
  readonly native: Native;
  /** By native index: who waits. */
  private readonly waits: (Waiting | undefined)[] = [];
  /** By native index: who wants to know that a hold was stolen. */
  private readonly listeners = new Map<number, () => void>();
  /** Waits that have no place in the queue yet. */
  private readonly unqueued = new Set<Waiting>();
  /** Kept here, for the native part keeps it only while there are waits: all of this can be garbage-collected. */
  private readonly onReady = (): void => this.drainAnew();
  private pending = 0;
  private retryIsDue = false;
  private serviceIsDue = false;
  private lookIsDue = false;
  /** The native indices from which on the next round of looks begins, and the next round that finds out who had better look. */
  private looksFrom = 0;
  private asksFrom = 0;
  /** The native index of a blocking wait that is in its native call; -1: there is none. */
  blocked = -1;
  private drainIsDue = false;
  private isDraining = false;
  private readonly endTerminatedSoon = oncePerTurn(() => this.endTerminated());
  private readonly drainSoon = oncePerTurn(() => {
    if (this.drainIsDue) this.drainAnew();
  });

  constructor() {
    this.native = Native.open(this.onReady);
  }

  /** One wait more; the event loop runs for as long as there is one. */
  addPending(wait: Waiting): void {
    const { group } = wait;
    if (group !== undefined) {
      wait.earlier = group.latestWait;
      if (wait.earlier !== undefined) wait.earlier.later = wait;
      group.latestWait = wait;
    }
    if (++this.pending === 1) this.native.binding.keepAlive(true);
  }

  /** A wait is over; `index` is the one that it was registered with, if it was. */
  endPending(index: number, wait: Waiting): void {
    if (index >= 0) this.waits[index] = undefined;
    else this.unqueued.delete(wait);
    if (wait.group !== undefined) leaveGroup(wait, wait.group);
    if (--this.pending === 0) this.native.binding.keepAlive(false);
  }

  /** From now on this wait is told when it is poked. */
  register(index: number, wait: Waiting): void {
    this.waits[index] = wait;
    this.serveIfNeeded();
    if (!this.lookIsDue && wait.looksAt < Number.POSITIVE_INFINITY) this.lookLater(LOOK_MS);
  }

  /** One timer for all waits, that goes on for as long as there are any. */
  private lookLater(ms: number): void {
    startTimer(() => {
      this.lookIsDue = false;
      this.lookForDeadlocks();
    }, ms);
    this.lookIsDue = true;
  }

  /** Of the waits that are to look, those that had better: where there are many, one look for all finds the others out. */
  private mayBeInCycle(begun: number): (wait: Waiting) => boolean {
    const { waits, native } = this;
    let due = 0;
    for (const wait of waits) if (wait !== undefined && wait.looksAt <= begun) due++;
    if (due <= LOOK_EACH_MAX) return () => true;
    const asked: Waiting[] = [];
    let some = false;
    let index = this.asksFrom;
    for (let left = waits.length; left > 0 && now() - begun < LOOK_TURN_MS; left--, index++) {
      if (index >= waits.length) index = 0;
      const wait = waits[index];
      if (wait === undefined || wait.looksAt > begun) continue;
      some = wait.sayContexts() || some;
      asked.push(wait);
      this.asksFrom = index + 1;
    }
    const inCycles = new Set(some ? native.binding.waitsInCycles().map((found) => waits[found]) : []);
    const isUnknown = some && (native.reported(Report.TOLD) & Told.UNKNOWN) !== 0;
    this.settle();
    const next = begun + (isUnknown ? LOOK_AGAIN_MS : LOOK_MS);
    for (const wait of asked) if (!inCycles.has(wait)) wait.looksAt = next;
    return (wait) => inCycles.has(wait);
  }

  /** Each look goes through the whole namespace: of many waits, only some look in one turn of the event loop. */
  private lookForDeadlocks(): void {
    const { waits } = this;
    const mayBeInCycle = this.mayBeInCycle(now());
    const begun = now();
    let time = begun;
    let next = Number.POSITIVE_INFINITY;
    let index = this.looksFrom;
    for (let left = waits.length; left > 0; left--, index++) {
      if (index >= waits.length) index = 0;
      const wait = waits[index];
      if (wait === undefined) continue;
      if (wait.looksAt <= time && time - begun < LOOK_TURN_MS && mayBeInCycle(wait)) {
        wait.looksAt = time + (wait.look() ? LOOK_AGAIN_MS : LOOK_MS);
        this.looksFrom = index + 1;
        time = now();
      }
      next = Math.min(next, wait.looksAt - time);
    }
    if (next < Number.POSITIVE_INFINITY) this.lookLater(Math.ceil(Math.max(next, LOOK_AGAIN_MS)));
  }

  /**
   * To be called before a blocking wait. Code can be terminated in it, as by a time-out of `vm` or ^C in the REPL: then no
   * `finally` of it runs, and its place in the queue is left to us.
   */
  watchBlocked(): void {
    this.endTerminated();
    this.endTerminatedSoon();
  }

  private endTerminated(): void {
    const { blocked, native } = this;
    if (blocked < 0) return;
    this.blocked = -1;
    // It may have been granted with the last of it.
    if (native.binding.withdraw(blocked) === Status.NOT_HELD) native.release(blocked);
    this.settle();
  }

  /** From now on `stolen` is called when that hold is poked. */
  listen(index: number, stolen: () => void): void {
    this.listeners.set(index, stolen);
    this.serveIfNeeded();
  }

  hasListener(index: number): boolean {
    return this.listeners.has(index);
  }

  unlisten(index: number): void {
    this.listeners.delete(index);
  }

  /** This wait could not be queued: that is tried again. */
  enqueueLater(wait: Waiting): void {
    this.unqueued.add(wait);
    this.retryLater();
  }

  /** After a native call that may have poked waits of this very thread: they need no other thread to be told. */
  settle(): void {
    if (this.native.reported(Report.READY) !== 0) this.drain();
  }

  /**
   * Lets all waits of this thread that were poked try again. Who is told may make calls that find more of them: those are for
   * the loop that runs already, however many there are; or for a new one, should that be terminated.
   */
  private drain(): void {
    const { native } = this;
    this.drainIsDue = true;
    if (this.isDraining) {
      this.drainSoon();
      return;
    }
    this.isDraining = true;
    try {
      while (this.drainIsDue) {
        this.drainIsDue = false;
        const index = native.nextReady();
        if (index < 0) break;
        const more = native.reported(Report.READY) !== 0;
        this.waits[index]?.tried(native.reported(Report.TRIED));
        if (this.listeners.size > 0) this.listeners.get(index)?.();
        if (more || native.reported(Report.READY) !== 0) this.drainIsDue = true;
      }
    } finally {
      this.isDraining = false;
    }
    if (native.reported(Report.OWED) !== 0) this.retryLater();
  }

  /** Called by the event loop: no loop of ours can be running. */
  private drainAnew(): void {
    this.isDraining = false;
    this.drain();
  }

  /** No native thread can be had (a limit of threads or memory): until there is one, this event loop serves those who wait. */
  private serveIfNeeded(): void {
    if (this.serviceIsDue || this.native.reported(Report.UNSERVED) === 0) return;
    startTimer(() => {
      this.serviceIsDue = false;
      this.native.binding.serve(0);
      this.settle();
      if (this.pending > 0 || this.listeners.size > 0) this.serveIfNeeded();
    }, SERVE_MS);
    this.serviceIsDue = true;
  }

  private retryLater(): void {
    if (this.retryIsDue) return;
    startTimer(() => {
      this.retryIsDue = false;
      const left = this.native.binding.settleOwed(0);
      for (const wait of this.unqueued) {
        if (!wait.enqueue()) this.unqueued.delete(wait);
      }
      this.settle();
      if (left > 0 || this.unqueued.size > 0) this.retryLater();
    }, STALLED_RETRY_MS);
    this.retryIsDue = true;
  }
}
