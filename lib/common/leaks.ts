// Finds guards that were dropped without being released.
//
// Registering every guard with a FinalizationRegistry would cost more than the lock. Most guards live for microseconds:
// only those that are still open when their turn of the event loop is over are registered.
import { Recent } from './recent';

/** What is to be known of a guard to miss it. */
export interface Watched {
  readonly lock: { readonly name: string };
  readonly mode: string;
  readonly released: boolean;
  readonly hold: Leaving;
  /** Who has to be told when it is released. */
  watcher: LeakFinder | undefined;
}

interface Leaving {
  /** A remote lock answers later. */
  leave(finished: boolean): unknown;
}

interface Leak {
  readonly hold: Leaving;
  readonly name: string;
  readonly mode: string;
}

export class LeakFinder {
  private readonly registry = new FinalizationRegistry<Leak>(giveBack);
  private readonly recent = new Recent<Watched>((guards, count) => {
    for (let i = 0; i < count; i++) this.register(guards[i] as Watched);
  });

  /** From now on a garbage collection of this guard is a leak. */
  watch(guard: Watched): void {
    this.recent.add(guard);
  }

  /** To be called when a guard that has this watcher is released. */
  forget(guard: Watched): void {
    this.registry.unregister(guard);
  }

  private register(guard: Watched): void {
    if (guard.released) return;
    guard.watcher = this;
    this.registry.register(guard, { hold: guard.hold, name: guard.lock.name, mode: guard.mode }, guard);
  }
}

function giveBack({ hold, name, mode }: Leak): void {
  process.emitWarning(
    `A guard of lock ${JSON.stringify(name.slice(0, 80))} (${mode}) was garbage-collected before it was released; ` +
      'the lock is released now. Release guards in a finally block, or use `using`, or the callback forms',
    { type: 'Warning', code: 'PROCLOCK_LEAKED_GUARD' },
  );
  try {
    Promise.resolve(hold.leave(false)).catch(() => {});
  } catch {
    // It was stolen, or its namespace is gone: nothing is held any more, and nobody is there to be told.
  }
}
