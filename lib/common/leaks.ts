// Finds guards that were dropped without being released.
//
// Registering every guard with a FinalizationRegistry would cost more than the lock. Most guards live for microseconds:
// only those that are still open when their turn of the event loop is over are registered.
import { publishLeak } from './channels';
import { isClosing, type LockError, shown } from './errors';
import { Recent } from './recent';
import type { LockMode } from './types';
import { warn } from './warnings';

/** What is to be known of a guard to miss it. */
export interface Watched {
  readonly lock: { readonly name: string; readonly namespace: string };
  readonly mode: LockMode;
  readonly released: boolean;
  readonly hold: Leaving;
  /** Who has to be told when it is released. */
  watcher: LeakFinder | undefined;
}

interface Leaving {
  /** Whether it has ended without its holder. */
  wasLost(): boolean;
  /** Aborts then, with why. */
  readonly lost: AbortSignal;
  leave(finished: boolean): void | Promise<void>;
}

interface Leak {
  readonly hold: Leaving;
  readonly name: string;
  readonly namespace: string;
  readonly mode: LockMode;
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

  /** To be called when the mode of a guard that has this watcher has changed. */
  modeChanged(guard: Watched): void {
    this.registry.unregister(guard);
    this.register(guard);
  }

  private register(guard: Watched): void {
    // One that a program has frozen takes no watcher.
    if (guard.released || Object.isFrozen(guard)) return;
    guard.watcher = this;
    const { hold, mode } = guard;
    const { name, namespace } = guard.lock;
    this.registry.register(guard, { hold, name, namespace, mode }, guard);
  }
}

function giveBack(leak: Leak): void {
  const { hold, name, mode } = leak;
  const wasLost = hold.wasLost();
  // Whoever closes a space has given back what it held.
  if (wasLost && isClosing(hold.lost.reason as LockError)) return;
  try {
    hold.leave(false)?.catch(() => {});
  } catch {
    // It was lost: nobody is there to be told.
  }
  publishLeak(leak, mode);
  warn(
    `A guard of lock ${shown(name)} (${mode}) was garbage-collected before it was released; ` +
      `${wasLost ? 'the hold had been lost before' : 'the lock is released now'}. ` +
      'Release guards in a finally block, or use `using`, or the callback forms',
    'PROCLOCK_LEAKED_GUARD',
  );
}
