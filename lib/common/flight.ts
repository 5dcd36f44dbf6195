// One of many: one does the work, and those who came meanwhile have it done.
//
// That a flight was finished is a count beside the lock, which grows when a holder releases that came to the end of its `fn`.
// Who had to wait compares it with what it was when the wait began. So whoever was granted without a wait flies, and so does
// whoever waited for holders that did something else, died or threw.
import { checkLock, checkWork } from './lead';
import type { Lockable, ManyGuard } from './many';

/** What became of a call of `singleFlight()`. */
export type Flight<T> =
  | {
      /** This caller ran the function. */
      ran: true;
      /** What it returned. */
      value: T;
    }
  | {
      /** While this caller waited, another one ran it to its end. */
      ran: false;
    };

/** A guard, as far as flights go. */
export interface FlightGuard extends ManyGuard {
  readonly hold: {
    /** To be set when a flight has come to its end: it is counted with the release. */
    isFlight: boolean;
  };
  settle(finished: boolean): void | Promise<void>;
}

/** A lock, as far as flights go. */
export interface FlightLock<G extends FlightGuard> extends Lockable<G> {
  /** To be called before a wait. Tells of the guard that comes of it whether a flight was finished meanwhile. */
  watchFlights(): (guard: G) => boolean;
}

export async function flyWith<G extends FlightGuard, T>(
  lock: FlightLock<G>,
  fn: (guard: G) => T | PromiseLike<T>,
  options: object | undefined,
): Promise<Flight<T>> {
  checkLock(lock);
  checkWork(fn);
  const sawFlight = lock.watchFlights();
  return lock.run('exclusive', options, async (guard): Promise<Flight<T>> => {
    if (sawFlight(guard)) {
      await guard.settle(false); // whoever repairs what a dead holder left is not us
      return { ran: false };
    }
    const value = await fn(guard);
    // Given back before, it is no flight any more: whoever came next has not waited for it.
    if (!guard.released) guard.hold.isFlight = true;
    return { ran: true, value };
  }) as Promise<Flight<T>>;
}
