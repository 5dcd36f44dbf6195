// Finds guards that were dropped without being released.
//
// Registering every guard with a FinalizationRegistry would cost more than the lock. Most guards live for microseconds:
// new ones are kept, strongly, in a short list, and only those that are still open when the list is full or a while has
// passed are registered.
import { setTimeout as setTimer } from 'node:timers';
import type { LockGuard } from './guard';
import type { Hold } from './hold';

const RECENT_MAX = 64;
const RECENT_MS = 100;

interface Leak {
  hold: Hold;
  name: string;
  mode: string;
}

// A new array for each batch, because: a young object that is stored into an old one costs a write barrier.
let recent: LockGuard[] = new Array(RECENT_MAX);
let recentCount = 0;
let sweepIsDue = false;

const registry = new FinalizationRegistry<Leak>(({ hold, name, mode }) => {
  process.emitWarning(
    `A guard of lock ${JSON.stringify(name.slice(0, 80))} (${mode}) was garbage-collected before it was released; ` +
      'the lock is released now. Release guards in a finally block, or use `using`, or the callback forms',
    { type: 'Warning', code: 'PROCLOCK_LEAKED_GUARD' },
  );
  try {
    hold.leave(false);
  } catch {
    // It was stolen, or its namespace is gone: nothing is held any more, and nobody is there to be told.
  }
});

function sweep(): void {
  for (let i = 0; i < recentCount; i++) {
    const guard = recent[i] as LockGuard;
    if (guard.released) continue;
    guard.watched = true;
    registry.register(guard, { hold: guard.hold, name: guard.lock.name, mode: guard.mode }, guard);
  }
  recentCount = 0;
  recent = new Array(RECENT_MAX);
}

export function watchGuard(guard: LockGuard): void {
  // Before the newest is in the list: that one is still open for certain.
  if (recentCount === RECENT_MAX) sweep();
  recent[recentCount++] = guard;
  if (!sweepIsDue) sweepSoon();
}

function sweepSoon(): void {
  sweepIsDue = true;
  setTimer(() => {
    sweepIsDue = false;
    sweep();
  }, RECENT_MS).unref();
}

export function forgetGuard(guard: LockGuard): void {
  registry.unregister(guard);
}
