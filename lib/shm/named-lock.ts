// What all lock classes have in common: a handle on a named lock, and one way behind all that acquire it.
import type { InspectOptions } from 'node:util';
import { callSync, callUntilSettled, callWhenGranted, modeOf, optionsOf, workOf } from '../common/call';
import { isWatched, traceAsync, traceSync } from '../common/channels';
import { currentContext } from '../common/context';
import { closedError } from '../common/errors';
import { INSPECT, type Inspect, inspectLock, type LockData, lockData } from '../common/inspect';
import { LOCKABLE } from '../common/many';
import {
  checkAcquireOptions,
  checkName,
  checkNamespace,
  checkQueryOptions,
  newName,
  throwIfAborted,
} from '../common/options';
import { checkNested, type HoldSet, innermostOf, mayNest, OWNER, type Owner } from '../common/owner';
import type { LockMode, LockSnapshot, QueryOptions } from '../common/types';
import { wayOf } from './binding';
import { groupId } from './group';
import { LockGuard } from './guard';
import type { Hold } from './hold';
import { type AcquireOptions, checkLockOptions, type LockOptions } from './options';
import { timedOut } from './pending';
import { checkStillHeld, contended, type Plan } from './plan';
import { latestOf, type Waiting } from './ready';
import { type LockRecord, threadOwner } from './record';
import { droppedHandles, leaks, records } from './thread';
import { Wait, waitSync } from './wait';

/** A function that is called while the lock is held. */
export type Work<T> = (guard: LockGuard) => T | PromiseLike<T>;
type SyncWork<T> = (guard: LockGuard) => T;
type Options = AcquireOptions & { exclusive?: boolean };

export abstract class NamedLock {
  /** The name, also of an anonymous lock: pass it on to whoever is to share it. */
  readonly name: string;
  /** The namespace, as given or `'default'`. */
  readonly namespace: string;
  /** @internal */
  protected abstract readonly reentrant: boolean;
  /** @internal Whether it can be held shared. */
  abstract readonly isShareable: boolean;
  /** @internal The same for all handles of the lock. */
  readonly record: LockRecord;
  private readonly sharedWay: number;
  private readonly exclusiveWay: number;
  private closed = false;
  /** @internal Its pending acquires. */
  latestWait: Waiting | undefined = undefined;

  /**
   * @param name any string; without one, a fresh unique name
   * @throws {LockError} if the namespace can not be entered: see the error table
   */
  constructor(name?: string, options: LockOptions = {}) {
    if (name !== undefined) checkName(name);
    checkLockOptions(options);
    this.name = name ?? newName();
    this.namespace = checkNamespace(options.namespace);
    const group = groupId(options.group);
    this.record = records().enter(this.name, this.namespace, group);
    this.sharedWay = wayOf('shared', options.fair === true);
    this.exclusiveWay = wayOf('exclusive', options.fair === true);
    droppedHandles.register(this, this.record, this);
  }

  /**
   * Who holds this lock and who waits for it, in every process.
   * @throws {LockError} `ERR_LOCK_CLOSED`, and those of the namespace
   */
  query(options?: QueryOptions): LockSnapshot {
    const processes = checkQueryOptions(options);
    this.checkOpen();
    return this.record.snapshot(processes);
  }

  /**
   * Gives the handle back. Its pending acquires reject with `ERR_LOCK_CLOSED`; open guards stay valid until they are
   * released. A second call does nothing.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    droppedHandles.unregister(this);
    // The last one first: one that leaves lets in those behind it, which are not to be granted any more.
    for (const wait of latestOf(this)) wait.withdraw(closedError(this));
    this.record.leave();
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): LockData {
    return lockData(this);
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    return inspectLock(this, options, inspect);
  }

  /** @internal */
  get origin(): string {
    return this.record.file;
  }

  /** @internal */
  get [LOCKABLE](): 'local' {
    return 'local';
  }

  /** @internal */
  watchFlights(): () => boolean {
    // Refused by the acquire, which looks at its arguments first.
    if (this.closed) return () => false;
    const { record } = this;
    const before = record.flights();
    return () => record.flights() !== before;
  }

  // All ways to acquire are one: `plan` refuses what can be refused at once, the hold is that of the same owner, or one that
  // was free, or one that was waited for, and `useAsync` or `useSync` makes of it what was asked for.

  /**
   * Waits without blocking. Not an async function, because each promise costs more than the lock: there is one of ours if
   * nobody has to wait.
   * @internal
   */
  run<T>(
    mode: LockMode | undefined,
    first: Options | Work<T> | undefined,
    second: Work<T> | undefined,
  ): Promise<LockGuard | T> {
    try {
      if (first === undefined && second === undefined) {
        const wanted = mode ?? 'shared';
        const guard = this.quick(wanted, false);
        if (guard) return Promise.resolve(guard);
        if (guard === null) return this.waitForGuard(wanted);
      }
      if (isWatched()) return this.runWatched(mode, first, second);
      const plan = this.plan(mode, optionsOf<Options>(first, second), false);
      const fn = workOf<Options, Work<T>>(first, second);
      return this.useAsync(plan, plan.nested ?? this.tryBeforeWait(plan.wanted) ?? this.wait(plan), fn);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Blocks.
   * @internal
   */
  runSync<T>(
    mode: LockMode | undefined,
    first: Options | SyncWork<T> | undefined,
    second: SyncWork<T> | undefined,
  ): LockGuard | T {
    if (first === undefined && second === undefined) {
      const guard = this.quick(mode ?? 'shared', true);
      if (guard) return guard;
    }
    const options = optionsOf<Options>(first, second);
    const fn = workOf<Options, SyncWork<T>>(first, second);
    if (isWatched()) return this.runSyncWatched(mode, options, fn);
    const plan = this.plan(mode, options, true);
    const hold = plan.nested ?? this.tryNow(plan.wanted) ?? this.waitSync(plan);
    return this.useSync(plan, hold, fn);
  }

  /**
   * Does not wait. `null` stands for all that is the matter with the lock.
   * @internal
   */
  tryRun(wanted: LockMode): LockGuard | null {
    const guard = this.quick(wanted, true);
    if (guard) return guard;
    let plan: Plan | undefined;
    const take = (): Hold | undefined => {
      plan = this.tryPlan(wanted);
      return plan && (plan.nested ?? this.tryNow(wanted) ?? this.tryAgain(wanted));
    };
    const hold = isWatched() ? traceSync(this, wanted, take) : take();
    return hold === undefined ? null : (this.useSync(plan as Plan, hold, undefined) as LockGuard);
  }

  /** @returns `undefined` where its owner may not acquire it once more */
  private tryPlan(wanted: LockMode): Plan | undefined {
    const held = this.heldBy(undefined, currentContext(), true);
    if (held === undefined || mayNest(this.reentrant, held.mode, wanted))
      return this.plan(wanted, undefined, true);
    this.checkOpen();
    return undefined;
  }

  /** As {@link run}, where somebody wants to hear of it. */
  private runWatched<T>(
    mode: LockMode | undefined,
    first: Options | Work<T> | undefined,
    second: Work<T> | undefined,
  ): Promise<LockGuard | T> {
    const options = optionsOf<Options>(first, second);
    const fn = workOf<Options, Work<T>>(first, second);
    let plan!: Plan;
    const hold = traceAsync(this, mode ?? modeOf(options), (event) => {
      plan = this.plan(mode, options, false);
      return plan.nested ?? this.tryBeforeWait(plan.wanted) ?? this.wait(contended(plan, event));
    });
    return this.useAsync(plan, hold, fn);
  }

  /** As {@link runSync}, where somebody wants to hear of it. */
  private runSyncWatched<T>(
    mode: LockMode | undefined,
    options: Options | undefined,
    fn: SyncWork<T> | undefined,
  ): LockGuard | T {
    let plan!: Plan;
    const hold = traceSync(this, mode ?? modeOf(options), (event) => {
      plan = this.plan(mode, options, true);
      return plan.nested ?? this.tryNow(plan.wanted) ?? this.waitSync(contended(plan, event));
    });
    return this.useSync(plan, hold, fn);
  }

  /**
   * The uncontended acquire without options, outside of callbacks, of an owner that holds nothing. Leaves everything else
   * to the long way.
   * @returns `null` where it is such an acquire, and the lock is not free
   */
  private quick(wanted: LockMode, sync: boolean): LockGuard | null | undefined {
    const { record } = this;
    if (this.closed || currentContext() !== undefined || isWatched()) return undefined;
    if (sync && record.threadHold() !== undefined) return undefined;
    leaks.expect();
    const hold = sync ? this.tryNow(wanted) : this.tryBeforeWait(wanted);
    if (hold === undefined) return null;
    if (sync) record.setThreadHold(hold);
    return this.watchedGuard(hold, wanted, sync ? threadOwner : undefined);
  }

  /** What is refused is refused here, in this order: wrong arguments, an abort, a closed handle, the owner table. */
  private plan(mode: LockMode | undefined, given: Options | undefined, sync: boolean): Plan {
    const options = checkAcquireOptions(given);
    const wanted = mode ?? modeOf(given);
    const owner = options.within?.[OWNER]();
    const context = currentContext();
    throwIfAborted(options.signal);
    this.checkOpen();
    leaks.expect();
    const held = this.heldBy(owner, context, sync);
    if (held !== undefined) checkNested(this, this.reentrant, held.mode, wanted);
    return { sync, wanted, options, nested: held, serial: held?.serial, owner, context };
  }

  /** The hold that a call would nest in. */
  private heldBy(owner: Owner | undefined, context: HoldSet | undefined, sync: boolean): Hold | undefined {
    const { record } = this;
    // What stands for a lock of ours has holds of ours.
    if (owner !== undefined) return owner.find(record) as Hold | undefined;
    const held = sync ? threadOwner.find(record) : undefined;
    return (held ?? context?.find(record)) as Hold | undefined;
  }

  /** A guard for the caller, or the result of the callback that is given one. */
  private useAsync<T>(
    plan: Plan,
    granted: Hold | Promise<Hold>,
    fn: Work<T> | undefined,
  ): Promise<LockGuard | T> {
    if (granted instanceof Promise) {
      return fn === undefined
        ? granted.then((hold) => this.guardFor(plan, hold))
        : callWhenGranted(this, plan, granted, fn);
    }
    checkStillHeld(this, plan);
    return Promise.resolve(
      fn === undefined ? this.guardFor(plan, granted) : callUntilSettled(this, plan, granted, fn),
    );
  }

  /** The same for a sync call. */
  private useSync<T>(plan: Plan, hold: Hold, fn: SyncWork<T> | undefined): LockGuard | T {
    checkStillHeld(this, plan);
    if (fn === undefined) return this.guardFor(plan, hold);
    // A callback is an owner by itself, but its thread is one as well while it runs.
    this.own(plan, hold);
    return callSync(this, plan, hold, fn);
  }

  private guardFor(plan: Plan, hold: Hold): LockGuard {
    return this.watchedGuard(hold, plan.wanted, this.own(plan, hold));
  }

  /** Adds it to what the caller owns. @returns as whom it calls */
  private own(plan: Plan, hold: Hold): Owner | undefined {
    // A sync call may nest in what the callback around it holds, of which the thread does not know.
    const inContext = plan.nested !== undefined && plan.nested !== this.record.threadHold();
    const owner = plan.owner ?? (plan.sync ? (inContext ? plan.context : threadOwner) : undefined);
    if (plan.nested === undefined) owner?.add(hold);
    return owner;
  }

  /**
   * A guard that is missed when it is dropped; so is that of a callback which is terminated, or waits for what never comes.
   * @internal
   */
  watchedGuard(hold: Hold, mode: LockMode, owner: Owner | undefined): LockGuard {
    const guard = new LockGuard(this, hold, mode, owner);
    leaks.watch(guard);
    hold.guards++; // not before: until then the guard is none
    this.record.holds.guarded(hold);
    return guard;
  }

  /** @internal */
  checkOpen(): void {
    if (this.closed) throw closedError(this);
  }

  private way(mode: LockMode): number {
    return mode === 'exclusive' ? this.exclusiveWay : this.sharedWay;
  }

  private tryNow(wanted: LockMode): Hold | undefined {
    return this.record.tryNow(this.way(wanted), wanted);
  }

  /** Not for what this thread holds exclusively: then it is not free, and to queue for it is the first thing to do. */
  private tryBeforeWait(wanted: LockMode): Hold | undefined {
    return this.record.isExclusiveHere() ? undefined : this.tryNow(wanted);
  }

  private tryAgain(wanted: LockMode): Hold | undefined {
    return this.record.tryAgain(this.way(wanted), wanted);
  }

  private wait({ wanted, options, owner, context }: Plan): Promise<Hold> {
    if (options.timeout === 0) return Promise.resolve(this.tryOnce(wanted));
    return Wait.begin(this.record, this.way(wanted), wanted, options, this, innermostOf(owner, context));
  }

  /** After {@link quick}: there is nothing to plan. */
  private waitForGuard(wanted: LockMode): Promise<LockGuard> {
    const make = (hold: Hold): LockGuard => this.watchedGuard(hold, wanted, undefined);
    return Wait.beginFor(this.record, this.way(wanted), wanted, make, this);
  }

  private waitSync({ wanted, options }: Plan): Hold {
    if (options.timeout === 0) return this.tryOnce(wanted);
    return waitSync(this.record, this.way(wanted), wanted, options);
  }

  private tryOnce(wanted: LockMode): Hold {
    const hold = this.tryAgain(wanted);
    if (hold === undefined) throw timedOut(this.record, wanted, 0);
    return hold;
  }
}
