// What all lock classes have in common: a handle on a named lock, and one run() behind every way to acquire it.
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Report, reported } from './binding';
import {
  argumentValueError,
  closedError,
  deadlockError,
  errorOf,
  notReentrantError,
  Status,
  upgradeError,
} from './errors';
import { LockGuard } from './guard';
import { granted, type Hold } from './hold';
import type { Lock } from './lock';
import {
  type Acquire,
  checkAcquireOptions,
  checkFunction,
  checkLockOptions,
  checkName,
  checkNamespace,
  NO_OPTIONS,
  throwIfAborted,
} from './options';
import { currentContext, HoldSet, type Owner, runInContext, threadOwner } from './owner';
import { LockRecord, segmentOf } from './record';
import type { SharedLock } from './shared-lock';
import { settleReady, thread, timedOut, Wait } from './thread';
import type { AcquireOptions, LockMode, LockOptions, LockSnapshot } from './types';

export type Work<T> = (guard: LockGuard) => T | PromiseLike<T>;
type Options = AcquireOptions & { exclusive?: boolean };
type Callback = (guard: LockGuard) => unknown;

/** What `(options?)`, `(fn)` and `(options, fn)` have in common. */
function optionsOf(first: Options | Callback | undefined, second: Callback | undefined): Options | undefined {
  if (typeof first === 'function') return undefined;
  checkFunction(second);
  return first;
}

function modeOf(options: Options | undefined): LockMode {
  return options?.exclusive === true ? 'exclusive' : 'shared';
}

function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as PromiseLike<T> | null | undefined)?.then === 'function';
}

const droppedHandles = new FinalizationRegistry<LockRecord>((record) => record.leave());

function groupId(group: string | number | undefined): number {
  if (group === undefined) return -1;
  if (typeof group === 'number') return group;
  const id = thread().binding.groupId(group);
  if (id < 0) throw argumentValueError('options.group', 'must be a group of this system', group);
  return id;
}

export abstract class NamedLock {
  /** The name, also of an anonymous lock: pass it on to whoever is to share it. */
  readonly name: string;
  /** The namespace, as given or `'default'`. */
  readonly namespace: string;
  /** @internal */
  protected abstract readonly reentrant: boolean;
  private readonly record: LockRecord;
  private readonly sharedKey: number;
  private readonly exclusiveKey: number;
  private readonly waits = new Set<Wait>();
  private closed = false;

  /**
   * @param name any string; without one, a fresh unique name
   * @throws {LockError} if the namespace can not be entered: see the error table
   */
  constructor(name?: string, options: LockOptions = {}) {
    if (name !== undefined) checkName(name);
    checkLockOptions(options);
    this.name = name ?? `anonymous-${randomUUID()}`;
    this.namespace = checkNamespace(options.namespace);
    const group = groupId(options.group);
    this.record = LockRecord.enter(this.name, segmentOf(this.namespace, group), group);
    this.sharedKey = this.record.key('shared', options.fair === true);
    this.exclusiveKey = this.record.key('exclusive', options.fair === true);
    droppedHandles.register(this, this.record, this);
  }

  /** Who holds this lock and who waits for it, in every process. */
  query(): LockSnapshot {
    this.checkOpen();
    return this.record.snapshot(true);
  }

  /**
   * Gives the handle back. Its pending acquires reject with `ERR_LOCK_CLOSED`; open guards stay valid until they are
   * released. A second call does nothing.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    droppedHandles.unregister(this);
    for (const wait of [...this.waits]) wait.withdraw(closedError(this));
    this.record.leave();
  }

  /** The same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Not an async function, because each promise costs more than the lock: there is one of ours if nobody has to wait.
   * @internal
   */
  protected run<T>(
    mode: LockMode | undefined,
    first: Options | Work<T> | undefined,
    second: Work<T> | undefined,
  ): Promise<LockGuard | T> {
    try {
      const given = optionsOf(first, second);
      const options = checkAcquireOptions(given);
      const wanted = mode ?? modeOf(given);
      const owner = options.within?.ownerForNested();
      const context = currentContext();
      throwIfAborted(options.signal);
      const nested = this.nested(wanted, (owner ?? context)?.find(this.record));
      const fn = typeof first === 'function' ? first : second;
      const go = (hold: Hold): LockGuard | T | PromiseLike<T> => {
        if (fn !== undefined) return this.call(hold, wanted, new HoldSet(hold, context, owner), fn);
        if (nested === undefined) owner?.add(hold);
        return this.guard(hold, wanted, owner).watch();
      };
      const hold = nested ?? this.tryNow(wanted);
      return hold !== undefined ? Promise.resolve(go(hold)) : this.wait(wanted, options).then(go);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** @internal */
  protected runSync<T>(
    mode: LockMode | undefined,
    first: Options | ((guard: LockGuard) => T) | undefined,
    second: ((guard: LockGuard) => T) | undefined,
  ): LockGuard | T {
    if (first === undefined && second === undefined) {
      const guard = this.quick(mode ?? 'shared');
      if (guard !== undefined) return guard;
    }
    const given = optionsOf(first, second);
    const options = checkAcquireOptions(given);
    const wanted = mode ?? modeOf(given);
    throwIfAborted(options.signal);
    const nested = this.nested(wanted, this.heldForSync(options));
    const hold = nested ?? this.tryNow(wanted) ?? this.waitSync(wanted, options);
    const within = options.within?.ownerForNested();
    const owner = within ?? threadOwner;
    if (nested === undefined) owner.add(hold);
    const fn = typeof first === 'function' ? first : second;
    if (fn === undefined) return this.guard(hold, wanted, owner).watch();
    const context = new HoldSet(hold, currentContext(), within);
    const guard = this.guard(hold, wanted, context);
    let finished = false;
    try {
      const result = runInContext(context, fn, guard);
      finished = true;
      return result;
    } finally {
      context.end();
      guard.settle(finished);
    }
  }

  /** @internal */
  protected tryRun(wanted: LockMode): LockGuard | null {
    this.checkOpen();
    const guard = this.quick(wanted);
    if (guard !== undefined) return guard;
    const held = this.heldForSync(NO_OPTIONS);
    if (held !== undefined) {
      const upgrade = held.mode === 'shared' && wanted === 'exclusive';
      if (!this.reentrant || upgrade) return null;
      return this.guard(held.reenter(), wanted, threadOwner).watch();
    }
    const hold = this.tryNow(wanted) ?? this.tryAgain(wanted);
    if (hold === undefined) return null;
    threadOwner.add(hold);
    return this.guard(hold, wanted, threadOwner).watch();
  }

  /** The uncontended sync acquire, without options and callback. Leaves everything else to the long way. */
  private quick(wanted: LockMode): LockGuard | undefined {
    const { record } = this;
    if (this.closed || record.threadHold() !== undefined || currentContext() !== undefined) return undefined;
    const hold = this.tryNow(wanted);
    if (hold === undefined) return undefined;
    record.setThreadHold(hold);
    return this.guard(hold, wanted, threadOwner).watch();
  }

  private checkOpen(): void {
    if (this.closed) throw closedError(this);
  }

  private guard(hold: Hold, mode: LockMode, owner: Owner | undefined): LockGuard {
    return new LockGuard(this as NamedLock as SharedLock | Lock, hold, mode, owner);
  }

  private key(mode: LockMode): number {
    return mode === 'exclusive' ? this.exclusiveKey : this.sharedKey;
  }

  /** The hold that a sync call of this thread would nest in. */
  private heldForSync(options: Acquire): Hold | undefined {
    if (options.within !== undefined) return options.within.ownerForNested().find(this.record);
    return threadOwner.find(this.record) ?? currentContext()?.find(this.record);
  }

  /** The owner table: the hold to go on with, or an error, if the owner holds the lock already. */
  private nested(wanted: LockMode, held: Hold | undefined): Hold | undefined {
    this.checkOpen();
    if (held === undefined) return undefined;
    if (held.mode === 'shared' && wanted === 'exclusive') throw upgradeError(this);
    if (!this.reentrant) throw notReentrantError(this, held.mode, wanted);
    return held.reenter();
  }

  private tryNow(wanted: LockMode): Hold | undefined {
    return this.record.tryNow(this.key(wanted), wanted);
  }

  private tryAgain(wanted: LockMode): Hold | undefined {
    return this.record.tryAgain(this.key(wanted), wanted);
  }

  private wait(wanted: LockMode, options: Acquire): Promise<Hold> {
    if (options.timeout > 0) return Wait.begin(this.record, this.key(wanted), wanted, options, this.waits);
    const hold = this.tryAgain(wanted);
    if (hold === undefined) throw timedOut(this.record, wanted, 0);
    return Promise.resolve(hold);
  }

  private waitSync(wanted: LockMode, options: Acquire): Hold {
    if (options.timeout === 0) {
      const hold = this.tryAgain(wanted);
      if (hold === undefined) throw timedOut(this.record, wanted, 0);
      return hold;
    }
    if (thread().binding.heldByThread(this.record.id) !== 0) throw deadlockError(this, wanted);
    const deadline = performance.now() + options.timeout;
    try {
      const hold = this.blockUntil(deadline, wanted);
      if (hold === undefined) throw timedOut(this.record, wanted, options.timeout);
      return hold;
    } finally {
      settleReady(); // asynchronous waits of this thread, which were poked meanwhile
    }
  }

  /** Blocks this thread in slices, between which a worker can be terminated. `undefined`: the time is up. */
  private blockUntil(deadline: number, wanted: LockMode): Hold | undefined {
    const { binding } = thread();
    let index = binding.enqueue(this.key(wanted), false);
    while (index === Status.STALLED && performance.now() < deadline) {
      index = binding.enqueue(this.key(wanted), false);
    }
    if (index === Status.STALLED) return undefined;
    if (index < 0) throw errorOf(index, `acquire (${wanted})`, this.record);
    if (reported(Report.GRANTED) !== 0) return granted(this.record, index, wanted);
    for (;;) {
      const status = binding.wait(index, Math.max(deadline - performance.now(), 0));
      if (status === Status.OK) return granted(this.record, index, wanted);
      if (status !== Status.AGAIN) throw errorOf(status, `acquire (${wanted})`, this.record);
      if (performance.now() < deadline) continue;
      binding.withdraw(index);
      return undefined;
    }
  }

  /** Runs a callback as an owner of its own, and ends its guard when it has settled. */
  private call<T>(hold: Hold, wanted: LockMode, context: HoldSet, fn: Work<T>): T | PromiseLike<T> {
    const guard = this.guard(hold, wanted, context);
    const end = (finished: boolean): void => {
      context.end();
      guard.settle(finished);
    };
    let result: T | PromiseLike<T>;
    try {
      result = runInContext(context, fn, guard);
      if (!isThenable(result)) {
        end(true);
        return result;
      }
    } catch (error) {
      end(false);
      throw error;
    }
    return Promise.resolve(result).then(
      (value) => {
        end(true);
        return value;
      },
      (error) => {
        end(false);
        throw error;
      },
    );
  }
}
