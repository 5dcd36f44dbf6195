// Several locks at once, in one order that is the same everywhere, so that those who want several can not wait for each other
// in a circle. What is here is the same for locks that are released at once, and for those that have to ask.
import type { InspectOptions } from 'node:util';
import { optionsOf } from './call';
import { now } from './clock';
import { argumentTypeError, argumentValueError, isLoss, notHeldError } from './errors';
import { INSPECT, type Inspect } from './inspect';
import { type Acquire, checkAcquireOptions, throwIfAborted } from './options';
import type { Ownable } from './owner';
import { listenTo, stopListening } from './signals';
import type { LockMode } from './types';

/** In a lock: whether it is in shared memory or in an engine. */
export const LOCKABLE: unique symbol = Symbol('proclock.lockable');

/** What a guard has to be able to do. */
export interface ManyGuard {
  readonly released: boolean;
  readonly lost: AbortSignal;
}

/** The same, to whoever has taken it. */
export interface TakenGuard extends ManyGuard {
  readonly hold: { readonly isNested: boolean };
  /** Releases unless that was done; `finished` is false if nobody has come to the end of what was to be done. */
  settle(finished: boolean): void | Promise<void>;
}

/** What a lock has to be able to do. */
export interface Lockable<G extends ManyGuard> {
  readonly name: string;
  readonly namespace: string;
  /** Where it is, beside others of the same namespace. */
  readonly origin: string;
  readonly [LOCKABLE]: 'local' | 'remote';
  /** The same object for all handles of one lock. */
  readonly record: object;
  /** Whether it can be held shared. */
  readonly isShareable: boolean;
  /** @throws {LockError} `ERR_LOCK_CLOSED` if the handle was given back */
  checkOpen(): void;
  run<T>(
    mode: LockMode,
    options: object | undefined,
    fn: ((guard: G) => T | PromiseLike<T>) | undefined,
  ): Promise<G | T>;
}

/** One lock of several: exclusively, unless its mode says otherwise. */
export type WantedLock<L> =
  | L
  | {
      /** The lock. */
      lock: L;
      /** How it is to be held. */
      mode: LockMode;
    };

/** One lock to be taken. */
export interface Step<L> {
  readonly lock: L;
  mode: LockMode;
  /** Where it is named in the list of those that are wanted. */
  readonly places: number[];
}

/** The locks in the order in which they are to be taken, each once. */
export interface Steps<L> {
  readonly steps: ReadonlyArray<Step<L>>;
  /** As they were named. */
  readonly handles: readonly L[];
}

/** @throws {TypeError} if it is no list of locks of that kind */
export function stepsOf<L extends Lockable<ManyGuard>>(wanted: unknown, kind: 'local' | 'remote'): Steps<L> {
  if (!Array.isArray(wanted)) throw argumentTypeError('wanted', 'an instance of Array', wanted);
  const byRecord = new Map<object, Step<L>>();
  const handles: L[] = [];
  // By index: an empty place is no lock either.
  for (let place = 0; place < wanted.length; place++) {
    const { lock, mode } = oneOf<L>(wanted[place], place, kind);
    const step = byRecord.get(lock.record);
    if (step === undefined) byRecord.set(lock.record, { lock, mode, places: [place] });
    else {
      step.places.push(place);
      if (mode === 'exclusive') step.mode = mode;
    }
    handles.push(lock);
  }
  const steps = [...byRecord.values()].sort(
    ({ lock: a }, { lock: b }) =>
      compare(a.namespace, b.namespace) || compare(a.name, b.name) || compare(a.origin, b.origin),
  );
  return { steps, handles };
}

function oneOf<L extends Lockable<ManyGuard>>(
  item: unknown,
  place: number,
  kind: 'local' | 'remote',
): { lock: L; mode: LockMode } {
  const what = `wanted[${place}]`;
  if (isLockable(item)) return { lock: checkedKind<L>(item, what, kind), mode: 'exclusive' };
  if (typeof item !== 'object' || item === null)
    throw argumentTypeError(what, 'a lock, or { lock, mode }', item);
  const { lock, mode = 'exclusive' } = item as { lock?: unknown; mode?: unknown };
  if (!isLockable(lock)) throw argumentTypeError(`${what}.lock`, 'a lock', lock);
  if (mode !== 'shared' && mode !== 'exclusive')
    throw argumentValueError(`${what}.mode`, "must be 'shared' or 'exclusive'", mode);
  if (mode === 'shared' && !lock.isShareable)
    throw argumentValueError(`${what}.mode`, "must be 'exclusive': this lock can not be shared", mode);
  return { lock: checkedKind<L>(lock, what, kind), mode };
}

export function isLockable(value: unknown): value is Lockable<ManyGuard> {
  return typeof value === 'object' && value !== null && LOCKABLE in value;
}

function checkedKind<L extends Lockable<ManyGuard>>(
  lock: Lockable<ManyGuard>,
  what: string,
  kind: 'local' | 'remote',
): L {
  if (lock[LOCKABLE] === kind) return lock as L;
  const [place, entry] = kind === 'local' ? ['an engine', 'proclock/remote'] : ['shared memory', 'proclock'];
  throw argumentValueError(
    what,
    `is a lock in ${place}: they are taken together by what ${entry} exports, and not with others`,
    lock,
  );
}

/** By code units. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * The options of each acquire, with what is left of the time that there is for all of them. They are read once, as those of a
 * single acquire.
 * @throws what is refused before any lock is asked for: wrong options, an abort, a handle that was given back
 */
export function deadlineOf({ handles }: Steps<Lockable<ManyGuard>>, given: object | undefined): () => object {
  const { timeout, ...options }: Acquire = checkAcquireOptions(given);
  throwIfAborted(options.signal);
  for (const handle of handles) handle.checkOpen();
  if (timeout === Number.POSITIVE_INFINITY) return () => options;
  const deadline = now() + timeout;
  return () => ({ ...options, timeout: Math.ceil(Math.max(deadline - now(), 0)) });
}

/** The arguments behind the list of locks: `(options?, fn?)` or `(fn)`. */
export function restOf<F>(
  first: unknown,
  second: unknown,
): { options: object | undefined; fn: F | undefined } {
  return {
    options: optionsOf<object>(first as object | undefined, second),
    fn: (typeof first === 'function' ? first : second) as F | undefined,
  };
}

/** The guards by the places at which their locks are named. */
export function inPlaces<G>({ steps, handles }: Steps<unknown>, guards: readonly G[]): G[] {
  const placed = new Array<G>(handles.length);
  steps.forEach(({ places }, index) => {
    for (const place of places) placed[place] = guards[index] as G;
  });
  return placed;
}

/** Takes them one after the other. What fails gives back what was taken. */
async function takeAll<G extends TakenGuard>(
  steps: ReadonlyArray<Step<Lockable<G>>>,
  options: () => object,
): Promise<G[]> {
  const taken: G[] = [];
  try {
    for (const { lock, mode } of steps) taken.push((await lock.run(mode, options(), undefined)) as G);
  } catch (error) {
    await giveBack(taken);
    throw error;
  }
  return taken;
}

/** Takes the first one around a callback, and the others within that: all belong to the context of `fn`. */
async function callWithAll<G extends TakenGuard & Ownable, T>(
  { steps }: Steps<Lockable<G>>,
  options: () => object,
  fn: (guards: G[]) => T | PromiseLike<T>,
): Promise<T> {
  const [head, ...others] = steps;
  if (head === undefined) return fn([]);
  return head.lock.run(head.mode, options(), async (outer) => {
    let inner: G[];
    try {
      inner = await takeAll(others, () => ({ ...options(), within: outer }));
    } catch (error) {
      // Before its callback ends as one that has failed.
      if (outer.hold.isNested) await giveBack([outer]);
      throw error;
    }
    const end = new End<T>();
    try {
      end.succeed(await fn([outer, ...inner]));
    } catch (error) {
      end.fail(error);
    }
    for (const guard of inner.reverse()) {
      try {
        await guard.settle(end.finished);
      } catch (error) {
        end.fail(error);
      }
    }
    return end.result();
  }) as Promise<T>;
}

/** How a call with several locks ends: of what is thrown on the way, the first says most, unless a hold was lost. */
export class End<T> {
  #value: T | undefined = undefined;
  #failure: { error: unknown } | undefined = undefined;

  /** Whether all went well until now. */
  get finished(): boolean {
    return this.#failure === undefined;
  }

  succeed(value: T): void {
    this.#value = value;
  }

  fail(error: unknown): void {
    if (this.#failure === undefined || (isLoss(error) && !isLoss(this.#failure.error)))
      this.#failure = { error };
  }

  /** @throws what has failed */
  result(): T {
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#value as T;
  }
}

/** `acquireAll()`: `(wanted, options?)`, `(wanted, fn)` and `(wanted, options, fn)`. */
export async function acquireMany<G extends TakenGuard & Ownable, M extends Many<G>, T>(
  kind: 'local' | 'remote',
  wanted: unknown,
  first: unknown,
  second: unknown,
  multi: (steps: Steps<unknown>, taken: G[]) => M,
): Promise<M | T> {
  const steps = stepsOf<Lockable<G>>(wanted, kind);
  const { options, fn } = restOf<(guard: M) => T | PromiseLike<T>>(first, second);
  const deadline = deadlineOf(steps, options);
  if (fn === undefined) return multi(steps, await takeAll(steps.steps, deadline));
  let guard: M | undefined;
  try {
    return await callWithAll(steps, deadline, (guards: G[]) => {
      guard = multi(steps, guards);
      return fn(guard);
    });
  } finally {
    guard?.end();
  }
}

/** Releases what is not released yet, in reverse, for somebody who has another error to tell, and has repaired nothing. */
export async function giveBack(guards: readonly TakenGuard[]): Promise<void> {
  const settle = async (guard: TakenGuard): Promise<void> => {
    try {
      // What others hold around us goes on, and comes to its end by itself.
      await guard.settle(guard.hold.isNested);
    } catch {
      // It was lost: nothing is held any more.
    }
  };
  await Promise.all([...guards].reverse().map(settle));
}

/** What the guards of several locks have in common. */
export abstract class Many<G extends ManyGuard> {
  /** One for each of the locks that were asked for, in that order; the same one for a lock that was named twice. */
  readonly guards: G[];
  /** Each once, in the order in which the locks were taken. */
  readonly #taken: readonly G[];
  #done = false;
  #lost: Joined | undefined = undefined;

  /** @internal They come from `acquireAll` and its like. */
  constructor(guards: G[], taken: readonly G[]) {
    this.guards = guards;
    this.#taken = taken;
  }

  /** Whether all of them are released. */
  get released(): boolean {
    return this.#taken.length === 0 ? this.#done : this.#taken.every(({ released }) => released);
  }

  /** Aborts when one of the holds has ended without us, for its reason. Made when it is first read. */
  get lost(): AbortSignal {
    this.#lost ??= join(this.#taken.map(({ lost }) => lost));
    for (const guard of this.#taken) void guard.lost; // looks again
    this.#lost.look();
    return this.#lost.signal;
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): ManyData<G> {
    return { guards: this.guards };
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    return `MultiGuard ${inspect(this.guards, options)}`;
  }

  /**
   * Those to be released, in reverse.
   * @internal
   * @throws {LockError} `ERR_LOCK_NOT_HELD` the second time
   */
  protected leaving(): G[] {
    if (this.#done) throw notHeldError({ name: this.guards.map(nameOf).join(', ') }, 'all were released');
    this.end();
    return this.#taken.filter(({ released }) => !released).reverse();
  }

  /** @internal Those that are not released yet are going to be, by whoever took them. */
  end(): void {
    this.#done = true;
  }

  /** @internal */
  protected get isDone(): boolean {
    return this.#done;
  }
}

function nameOf(guard: ManyGuard): string {
  return (guard as unknown as { lock: { name: string } }).lock.name;
}

/** The guards of several locks, as plain data. */
export interface ManyData<G> {
  /** In the order in which the locks were named. */
  guards: readonly G[];
}

/** Several signals as one. */
export interface Joined {
  /** Aborts when one of them does, for its reason. */
  readonly signal: AbortSignal;
  /** Aborts at once if one of them has, though its other listeners are told first. */
  look(): void;
  /** Listens to them no longer. */
  stop(): void;
}

export function join(signals: readonly AbortSignal[]): Joined {
  const controller = new AbortController();
  const listeners = signals.map((signal) => ({
    signal,
    listener: () => {
      stop();
      controller.abort(signal.reason);
    },
  }));
  const stop = (): void => {
    for (const { signal, listener } of listeners) stopListening(signal, listener);
  };
  const look = (): void => listeners.find(({ signal }) => signal.aborted)?.listener();
  for (const { signal, listener } of listeners) {
    if (!controller.signal.aborted) listenTo(signal, listener);
  }
  look();
  return { signal: controller.signal, look, stop };
}
