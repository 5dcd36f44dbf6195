// What all lock classes have in common: a handle on a named lock, and one way behind all that acquire it.
import type { InspectOptions } from 'node:util';
import { type Caller, callWhenGranted, modeOf, optionsOf, workOf } from '../common/call';
import { type AcquireEvent, isWatched, traceAsync } from '../common/channels';
import { currentContext } from '../common/context';
import {
  argumentTypeError,
  argumentValueError,
  closedError,
  syncError,
  timeoutError,
} from '../common/errors';
import { INSPECT, type Inspect, inspectLock, type LockData, lockData } from '../common/inspect';
import { LeakFinder } from '../common/leaks';
import { LOCKABLE } from '../common/many';
import {
  type Acquire,
  checkAcquireOptions,
  checkName,
  checkObject,
  NO_OPTIONS,
  newName,
  throwIfAborted,
} from '../common/options';
import { checkNested, type HoldSet, mayNest, OWNER, type Owner } from '../common/owner';
import type { LockMode, LockSnapshot, WaitOptions } from '../common/types';
import { ANSWER_MS_MAX } from './connection';
import { LockGuard } from './guard';
import type { Hold, LockRecord } from './hold';
import { type EngineSpace, isSpace, type Space } from './space';
import type { Wait } from './wait';

/** How a lock is opened. */
export interface LockOptions {
  /** The space that the lock is in: what `connect()` or `memory()` returned. */
  space: Space;
}

/** How long, and on whose behalf, to wait. */
export interface AcquireOptions extends WaitOptions {
  /** Acquire as the owner of that guard. */
  within?: LockGuard;
  /** Checked, and no more: over an engine nobody looks for deadlocks. @default 'warn' */
  deadlock?: 'throw' | 'warn';
}

/** A function that is called while the lock is held. */
export type Work<T> = (guard: LockGuard) => T | PromiseLike<T>;
type Options = AcquireOptions & { exclusive?: boolean };

/** One acquire that may go on: all that can be refused without asking the engine was looked at. */
interface Plan extends Caller {
  readonly options: Acquire;
  /** The hold of the same owner that it nests in. */
  readonly nested: Hold | undefined;
}

const leaks = new LeakFinder();

/** @internal The space that is meant by the options of a lock or manager. */
export function spaceOf(options: unknown): EngineSpace {
  if (options !== undefined) checkObject('options', options);
  const { group, namespace, space } = (options ?? {}) as Record<string, unknown>;
  if (!isSpace(space)) throw argumentTypeError('options.space', 'an instance of Space', space);
  if (namespace !== undefined && namespace !== space.namespace)
    throw argumentValueError(
      'options.namespace',
      'must be that of the space, which is given to memory() or connect()',
      namespace,
    );
  if (group !== undefined) throw argumentValueError('options.group', 'is for locks in shared memory', group);
  return space;
}

export abstract class NamedLock {
  /** The name, also of an anonymous lock: pass it on to whoever is to share it. */
  readonly name: string;
  /** That of the space. */
  readonly namespace: string;
  /** @internal */
  protected abstract readonly reentrant: boolean;
  /** @internal Whether it can be held shared. */
  abstract readonly isShareable: boolean;
  private readonly space: EngineSpace;
  /** @internal The same for all handles of the lock. */
  readonly record: LockRecord;
  private readonly waits = new Set<Wait>();
  private closed = false;

  /**
   * Asks nothing of the engine yet.
   * @param name any string; `undefined`: a fresh unique name
   * @throws {TypeError} `ERR_INVALID_ARG_TYPE` without a space; `ERR_INVALID_ARG_VALUE` with a `group`, or a `namespace` that
   * is not that of the space
   */
  constructor(name: string | undefined, options: LockOptions) {
    if (name !== undefined) checkName(name);
    this.space = spaceOf(options);
    this.name = name ?? newName();
    this.namespace = this.space.namespace;
    this.record = this.space.recordOf(this.name);
  }

  /**
   * Who holds this lock and who waits for it, in every program.
   * @throws {LockError} `ERR_LOCK_UNAVAILABLE`, `ERR_LOCK_CLOSED`
   */
  async query(): Promise<LockSnapshot> {
    this.checkOpen();
    return this.space.snapshot(this.name, ANSWER_MS_MAX);
  }

  /**
   * Gives the handle back. Its pending acquires reject with `ERR_LOCK_CLOSED`; open guards stay valid until they are
   * released. A second call does nothing.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const wait of [...this.waits]) wait.withdraw(closedError(this));
  }

  /** The same as {@link close}. */
  async [Symbol.asyncDispose](): Promise<void> {
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
    return this.space.origin;
  }

  /** @internal */
  get [LOCKABLE](): 'remote' {
    return 'remote';
  }

  /** @internal */
  watchFlights(): (guard: LockGuard) => boolean {
    return ({ hold }) => hold.sawFlight && !hold.isNested;
  }

  // All ways to acquire are one: `plan` refuses what can be refused at once, the hold is that of the same owner, or one that
  // the engine grants; and there is a guard of it, or a callback is called with one.

  /** @internal */
  async run<T>(
    mode: LockMode | undefined,
    first: Options | Work<T> | undefined,
    second: Work<T> | undefined,
  ): Promise<LockGuard | T> {
    const options = optionsOf<Options>(first, second);
    const fn = workOf<Options, Work<T>>(first, second);
    let plan!: Plan;
    const take = (event?: AcquireEvent): Hold | Promise<Hold> => {
      plan = this.plan(mode, options);
      return plan.nested ?? this.wait(plan, event);
    };
    const granted = isWatched() ? traceAsync(this, mode ?? modeOf(options), take) : take();
    return fn === undefined ? this.guardFor(plan, await granted) : callWhenGranted(this, plan, granted, fn);
  }

  /**
   * Does not wait. `null` stands for all that is the matter with the lock.
   * @internal
   */
  async tryRun(wanted: LockMode): Promise<LockGuard | null> {
    if (!isWatched()) return this.tryUnwatched(wanted);
    let guard: LockGuard | null = null;
    await traceAsync(this, wanted, async () => {
      guard = await this.tryUnwatched(wanted);
      return guard?.hold;
    });
    return guard;
  }

  private async tryUnwatched(wanted: LockMode): Promise<LockGuard | null> {
    this.checkOpen();
    const context = currentContext();
    const held = this.heldBy(undefined, context);
    if (held !== undefined && !mayNest(this.reentrant, held.mode, wanted)) return null;
    const hold = held?.reenter() ?? (await this.ask(wanted, 'try', NO_OPTIONS));
    const plan = { wanted, options: NO_OPTIONS, nested: held, owner: undefined, context };
    return hold === undefined ? null : this.guardFor(plan, hold);
  }

  /** What is refused is refused here, in this order: wrong arguments, an abort, a closed handle, the owner table. */
  private plan(mode: LockMode | undefined, given: Options | undefined): Plan {
    const options = checkAcquireOptions(given);
    const wanted = mode ?? modeOf(given);
    const owner = options.within?.[OWNER]();
    const context = currentContext();
    throwIfAborted(options.signal);
    this.checkOpen();
    const held = this.heldBy(owner, context);
    if (held !== undefined) checkNested(this, this.reentrant, held.mode, wanted);
    return { wanted, options, nested: held?.reenter(), owner, context };
  }

  /** The hold that a call would nest in. */
  private heldBy(owner: Owner | undefined, context: HoldSet | undefined): Hold | undefined {
    // What stands for a lock of ours has holds of ours.
    return (owner ?? context)?.find(this.record) as Hold | undefined;
  }

  private async wait({ wanted, options }: Plan, event?: AcquireEvent): Promise<Hold> {
    const tries = options.timeout === 0;
    const hold = await this.ask(wanted, tries ? 'try' : 'wait', options, event);
    if (hold !== undefined) return hold;
    throw timeoutError(this, wanted, 0, await this.space.heldBy(this.name, ANSWER_MS_MAX));
  }

  private ask(
    wanted: LockMode,
    how: 'wait' | 'try',
    options: Acquire,
    event?: AcquireEvent,
  ): Promise<Hold | undefined> {
    return this.space.acquire(this.record, wanted, how, options, { group: this.waits, event });
  }

  private guardFor({ nested, owner, wanted }: Plan, hold: Hold): LockGuard {
    if (nested === undefined) owner?.add(hold);
    return this.watchedGuard(hold, wanted, owner);
  }

  /**
   * A guard that is missed when it is dropped; so is that of a callback which waits for what never comes.
   * @internal
   */
  watchedGuard(hold: Hold, mode: LockMode, owner: Owner | undefined): LockGuard {
    const guard = new LockGuard(this, hold, mode, owner);
    leaks.watch(guard);
    return guard;
  }

  /** @internal */
  checkOpen(): void {
    if (this.closed) throw closedError(this);
  }

  /** @internal To programs without types. */
  [Symbol.dispose](): never {
    throw syncError(this, '[Symbol.dispose]()', '`await using`, or close()');
  }
}
