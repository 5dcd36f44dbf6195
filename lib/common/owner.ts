// Who owns a hold, for nested acquires. Three kinds of owner: the thread (sync calls), the async context of a callback,
// and whoever a guard names explicitly (`within`).
//
// A context is looked for from the inside out. One that has ended keeps nothing but the way to those around it, and that
// way leads past all that have ended before it: a chain of jobs, each of which starts the next one inside of its callback,
// neither grows nor gets slower.
import { notReentrantError, upgradeError } from './errors';
import type { LockMode } from './types';

/** What the owner table has to know of a hold. The object may serve other holds later: `serial` tells them apart. */
export interface Held {
  /** Stands for the lock: the same object for all holds of it. */
  readonly record: object;
  readonly mode: LockMode;
  readonly serial: number;
  /** To be told when the hold ends. */
  owner: Owner | undefined;
  /** Whether it ended without its holder: it was stolen. */
  wasLost(): boolean;
}

/** Finds the hold that this owner has of a lock. One that was lost is none. */
export interface Owner {
  find(record: object): Held | undefined;
  add(hold: Held): void;
  /** To be called when a hold that was added has ended. */
  forget(hold: Held): void;
}

/** In a guard: the method that returns the owner that `{ within: guard }` means, or throws if it was released. */
export const OWNER: unique symbol = Symbol('proclock.owner');

/** What `within` takes. */
export interface Ownable {
  [OWNER](): Owner;
}

export function isOwnable(value: unknown): value is Ownable {
  return typeof value === 'object' && value !== null && OWNER in value;
}

/** Who waits, for whoever looks for deadlocks: where an owner is named, and code runs further inside of it, that holds more. */
export function innermostOf(owner: Owner | undefined, context: HoldSet | undefined): Owner | undefined {
  return owner === undefined || context?.isWithin(owner) ? context : owner;
}

/** The owner table: whether an owner that holds a lock may acquire it once more. */
export function mayNest(reentrant: boolean, held: LockMode, wanted: LockMode): boolean {
  return reentrant && (held === 'exclusive' || wanted === 'shared');
}

/** @throws {LockError} `ERR_LOCK_UPGRADE` or `ERR_LOCK_NOT_REENTRANT` if the owner table refuses */
export function checkNested(
  lock: { readonly name: string },
  reentrant: boolean,
  held: LockMode,
  wanted: LockMode,
): void {
  if (mayNest(reentrant, held, wanted)) return;
  if (held === 'shared' && wanted === 'exclusive') throw upgradeError(lock);
  throw notReentrantError(lock, held, wanted);
}

/**
 * The holds of one callback, or of one guard that was named by `within`. A callback's context sees those of the
 * contexts around it, and of the owner it was acquired within; it stops to be an owner when its callback has settled.
 */
export class HoldSet implements Owner {
  private readonly firstSerial: number;
  private first: Held | undefined;
  private parent: HoldSet | undefined;
  private within: Owner | undefined;
  private more: Map<object, Held[]> | undefined = undefined;

  constructor(first: Held, parent?: HoldSet, within?: Owner) {
    this.first = first;
    this.firstSerial = first.serial;
    this.parent = parent;
    this.within = within;
  }

  find(record: object): Held | undefined {
    for (let set: HoldSet | undefined = this; set !== undefined; set = set.parent) {
      const { first, more } = set;
      if (first === undefined) continue;
      if (first.record === record && first.serial === set.firstSerial && !first.wasLost()) return first;
      const found = more?.get(record)?.find((hold) => !hold.wasLost()) ?? set.within?.find(record);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  add(hold: Held): void {
    this.more ??= new Map();
    const others = this.more.get(hold.record);
    if (others === undefined) this.more.set(hold.record, [hold]);
    else others.push(hold);
    hold.owner = this;
  }

  forget(hold: Held): void {
    const all = this.more?.get(hold.record);
    if (all === undefined) return;
    if (all.length === 1) this.more?.delete(hold.record);
    else all.splice(all.indexOf(hold), 1);
  }

  /** What it holds itself. */
  held(): Held[] {
    const { first } = this;
    const all = first !== undefined && first.serial === this.firstSerial ? [first] : [];
    // There may be as many as a namespace has names.
    for (const holds of this.more?.values() ?? []) for (const hold of holds) all.push(hold);
    return all;
  }

  /** Whether it holds itself something of which this is true. */
  holdsSome(test: (hold: Held) => boolean): boolean {
    const { first } = this;
    if (first !== undefined && first.serial === this.firstSerial && test(first)) return true;
    for (const holds of this.more?.values() ?? []) if (holds.some(test)) return true;
    return false;
  }

  /** Whose holds whoever is in this one holds as well. */
  outer(): HoldSet | undefined {
    const { parent, within } = this;
    return (within instanceof HoldSet ? within : parent)?.innermostActive();
  }

  /** Whether what is called in it holds what that owner does. */
  isWithin(owner: Owner): boolean {
    for (let set: HoldSet | undefined = this; set !== undefined; set = set.outer()) {
      if (set === owner) return true;
    }
    return false;
  }

  end(): void {
    this.parent = this.parent?.innermostActive();
    this.first = undefined;
    this.within = undefined;
    this.more = undefined;
  }

  /** This one, or the nearest around it that has not ended. */
  innermostActive(): HoldSet | undefined {
    let set: HoldSet | undefined = this;
    while (set !== undefined && set.first === undefined) set = set.parent;
    return set;
  }
}
