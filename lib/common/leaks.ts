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
  /** What is to be done if it is garbage-collected before it was released; set if it lives for longer than a turn. */
  leak: Leak | undefined;
}

interface Leaving {
  /** Whether it has ended without its holder. */
  wasLost(): boolean;
  /** Aborts then, with why. */
  readonly lost: AbortSignal;
  leave(finished: boolean): void | Promise<void>;
}

/** What is done when a guard is garbage-collected. */
export class Leak {
  /** Whether the guard was released: to be set at once, since what is called after that may not come to its end. */
  ended = false;

  constructor(
    private readonly registry: FinalizationRegistry<Leak>,
    readonly hold: Leaving,
    readonly lock: { readonly name: string; readonly namespace: string },
    public mode: LockMode,
  ) {}

  /** To be called when the guard was released. */
  forget(guard: Watched): void {
    this.registry.unregister(guard);
  }
}

export class LeakFinder {
  private readonly registry = new FinalizationRegistry<Leak>(giveBack);
  private readonly recent = new Recent<Watched>(
    (guard) => this.register(guard),
    (guard) => guard.released,
    () => this.then(),
  );

  /** @param then is called after each turn in which there were guards, or were to be */
  constructor(private readonly then: () => void = () => {}) {}

  /** To be called before something is acquired: `then` will be called, also if it comes to no guard. */
  expect(): void {
    this.recent.expect();
  }

  /** From now on a garbage collection of this guard is a leak. */
  watch(guard: Watched): void {
    this.recent.add(guard);
  }

  private register(guard: Watched): void {
    // One that a program has frozen can not be told of it.
    if (guard.released || Object.isFrozen(guard)) return;
    const { hold, mode } = guard;
    const { name, namespace } = guard.lock;
    guard.leak = new Leak(this.registry, hold, { name, namespace }, mode);
    this.registry.register(guard, guard.leak, guard);
  }
}

function giveBack(leak: Leak): void {
  if (leak.ended) return;
  const { hold, lock, mode } = leak;
  const wasLost = hold.wasLost();
  // Whoever closes a space has given back what it held.
  if (wasLost && isClosing(hold.lost.reason as LockError)) return;
  try {
    hold.leave(false)?.catch(() => {});
  } catch {
    // It was lost: nobody is there to be told.
  }
  publishLeak(lock, mode);
  warn(
    `A guard of lock ${shown(lock.name)} (${mode}) was garbage-collected before it was released; ` +
      `${wasLost ? 'the hold had been lost before' : 'the lock is released now'}. ` +
      'Release guards in a finally block, or use `using`, or the callback forms',
    'PROCLOCK_LEAKED_GUARD',
  );
}
