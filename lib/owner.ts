// Who owns a hold, for nested acquires. Three kinds of owner: the thread (sync calls), the async context of a callback,
// and whoever a guard names explicitly (`within`).
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Hold } from './hold';
import type { LockRecord } from './record';

/** Finds the hold that this owner has of a lock. One that was stolen is none. */
export interface Owner {
  find(record: LockRecord): Hold | undefined;
  add(hold: Hold): void;
}

/**
 * The holds of one callback, or of one guard that was named by `within`. A callback's context sees those of the
 * contexts around it, and of the owner it was acquired within; it stops to be an owner when its callback has settled.
 */
export class HoldSet implements Owner {
  private readonly firstSerial: number;
  private more: Array<{ hold: Hold; serial: number }> | undefined;
  private active = true;

  constructor(
    private readonly first: Hold,
    private readonly parent?: HoldSet,
    private readonly within?: Owner,
  ) {
    this.firstSerial = first.serial;
  }

  find(record: LockRecord): Hold | undefined {
    for (let set: HoldSet | undefined = this; set !== undefined; set = set.parent) {
      if (!set.active) continue;
      // A hold object serves many holds, one after the other: the serial number tells which one was meant.
      if (isHeld(set.first, set.firstSerial, record)) return set.first;
      const found = set.more?.find(({ hold, serial }) => isHeld(hold, serial, record));
      const inherited = found?.hold ?? set.within?.find(record);
      if (inherited !== undefined) return inherited;
    }
    return undefined;
  }

  add(hold: Hold): void {
    this.more ??= [];
    this.more.push({ hold, serial: hold.serial });
  }

  end(): void {
    this.active = false;
  }
}

function isHeld(hold: Hold, serial: number, record: LockRecord): boolean {
  return hold.record === record && hold.serial === serial && !hold.wasStolen();
}

/** Sync calls belong to the JavaScript thread that makes them. */
export const threadOwner: Owner = {
  find: (record) => {
    const hold = record.threadHold();
    return hold === undefined || hold.wasStolen() ? undefined : hold;
  },
  add: (hold) => hold.record.setThreadHold(hold),
};

const contexts = new AsyncLocalStorage<HoldSet>();
let used = false;

/** The context of the innermost callback around the caller. */
export function currentContext(): HoldSet | undefined {
  return used ? contexts.getStore() : undefined;
}

export function runInContext<A, T>(context: HoldSet, fn: (argument: A) => T, argument: A): T {
  // The first run() makes every await of the process slower on Node 20: programs without callback forms never pay.
  used = true;
  return contexts.run(context, fn, argument);
}
