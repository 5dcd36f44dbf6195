// What can be watched from outside, by `node:diagnostics_channel`: the one place that publishes.
//
// An acquire publishes in the order of `TracingChannel.traceSync()` and `tracePromise()`: `start`, `end`; after that, if it may
// wait, `asyncStart` and `asyncEnd`; `error` comes before `end` where it blocks, and before `asyncStart` where it does not. It
// is not done with these two functions, since a promise of theirs would come between the grant and whoever waits for it.
//
// A copy of the package that nobody watches looks whether somebody does, and no more.
import { channel } from 'node:diagnostics_channel';
import { now } from './clock';
import type { Abandoned, LockInfo, LockMode } from './types';

/**
 * The names of the channels of `node:diagnostics_channel`. `acquire` is one for `tracingChannel()`, the others are plain.
 *
 * @example
 * ```ts
 * import { subscribe, tracingChannel } from 'node:diagnostics_channel';
 *
 * tracingChannel(channels.acquire).subscribe({ asyncEnd: ({ name, waitMs }) => console.log(name, waitMs) });
 * subscribe(channels.abandoned, ({ name, abandoned }) => console.error(name, abandoned.pid));
 * ```
 */
export const channels = {
  /** Of each acquire, also of `try..` and of requests of a `LockManager`: {@link AcquireEvent}. */
  acquire: 'proclock:acquire',
  /** A hold was released: {@link ReleaseEvent}. */
  release: 'proclock:release',
  /** A holder was told that an earlier one died: {@link AbandonedEvent}. */
  abandoned: 'proclock:abandoned',
  /** It was noticed that a hold has ended without its holder: {@link LostEvent}. */
  lost: 'proclock:lost',
  /** A guard was garbage-collected before it was released: {@link LeakEvent}. */
  leak: 'proclock:leak',
  /** A cycle of waits was found: {@link DeadlockEvent}. */
  deadlock: 'proclock:deadlock',
} as const;

/** The context of one acquire: the same object in all its events. */
export interface AcquireEvent {
  /** Of the lock. */
  readonly name: string;
  /** Of the lock. */
  readonly namespace: string;
  /** As it is wanted. */
  readonly mode: LockMode;
  /** Whether it blocks its thread, or never waits. */
  readonly sync: boolean;
  /** Whether it had to wait. */
  contended: boolean;
  /** From the call to the grant or the failure, in milliseconds. */
  waitMs: number;
  /** That of the hold. `undefined`: not granted, or not yet. */
  token: bigint | undefined;
  /** Why it failed. */
  error?: unknown;
}

/** A hold was released by its holder. */
export interface ReleaseEvent {
  /** Of the lock. */
  readonly name: string;
  /** Of the lock. */
  readonly namespace: string;
  /** As it was held last. */
  readonly mode: LockMode;
  /** Since it was granted, in milliseconds; some milliseconds exact if nobody was subscribed at that time. */
  readonly holdMs: number;
}

/** A holder was told that an earlier one died. */
export interface AbandonedEvent {
  /** Of the lock. */
  readonly name: string;
  /** Of the lock. */
  readonly namespace: string;
  /** That of the holder who is told. */
  readonly mode: LockMode;
  /** Who died. */
  readonly abandoned: Abandoned;
}

/** A hold has ended without its holder. */
export interface LostEvent {
  /** Of the lock. */
  readonly name: string;
  /** Of the lock. */
  readonly namespace: string;
  /** As it was held. */
  readonly mode: LockMode;
  /** The `ERR_LOCK_LOST`, whose `cause` says why. */
  readonly error: Error;
}

/** A guard was garbage-collected before it was released. */
export interface LeakEvent {
  /** Of the lock. */
  readonly name: string;
  /** Of the lock. */
  readonly namespace: string;
  /** As it was held. */
  readonly mode: LockMode;
}

/** A cycle of waits. */
export interface DeadlockEvent {
  /** Of the lock that the member in this process waits for. */
  readonly name: string;
  /** Of that lock. */
  readonly namespace: string;
  /** Who waits for whom: it ends where it began. */
  readonly cycle: LockInfo[];
  /** Whether the wait of this process fails because of it. Otherwise it goes on. */
  readonly fails: boolean;
}

const started = channel(`tracing:${channels.acquire}:start`);
const ended = channel(`tracing:${channels.acquire}:end`);
const asyncStarted = channel(`tracing:${channels.acquire}:asyncStart`);
const asyncEnded = channel(`tracing:${channels.acquire}:asyncEnd`);
const failed = channel(`tracing:${channels.acquire}:error`);
const releases = channel(channels.release);
const abandonedHolds = channel(channels.abandoned);
const losses = channel(channels.lost);
const leaks = channel(channels.leak);
const deadlocks = channel(channels.deadlock);

/** Whether somebody wants to hear of acquires, or of what is reckoned from them. */
export function isWatched(): boolean {
  return (
    started.hasSubscribers ||
    ended.hasSubscribers ||
    asyncStarted.hasSubscribers ||
    asyncEnded.hasSubscribers ||
    failed.hasSubscribers ||
    releases.hasSubscribers
  );
}

interface Lock {
  readonly name: string;
  readonly namespace: string;
}

/** What is to be known of a hold. */
export interface WatchedHold {
  readonly token: bigint;
  /** To be told of its grant, and of the time of it by `now()`. */
  grantedAt(time: number): void;
}

function eventOf({ name, namespace }: Lock, mode: LockMode, sync: boolean): AcquireEvent {
  return { name, namespace, mode, sync, contended: false, waitMs: 0, token: undefined };
}

function settled(event: AcquireEvent, began: number, hold: WatchedHold | undefined): void {
  const time = now();
  event.waitMs = time - began;
  if (hold === undefined) return;
  event.token = hold.token;
  hold.grantedAt(time);
}

function refused(event: AcquireEvent, began: number, error: unknown): void {
  settled(event, began, undefined);
  event.error = error;
  failed.publish(event);
}

/** One acquire that blocks, or never waits. `take` says of the event whether it was contended. */
export function traceSync<H extends WatchedHold | undefined>(
  lock: Lock,
  mode: LockMode,
  take: (event: AcquireEvent) => H,
): H {
  const event = eventOf(lock, mode, true);
  const began = now();
  return started.runStores(event, () => {
    try {
      const hold = take(event);
      settled(event, began, hold);
      return hold;
    } catch (error) {
      refused(event, began, error);
      throw error;
    } finally {
      ended.publish(event);
    }
  });
}

/** One acquire that may wait, or is answered at once. */
export function traceAsync<H extends WatchedHold | undefined>(
  lock: Lock,
  mode: LockMode,
  take: (event: AcquireEvent) => H | Promise<H>,
): H | Promise<H> {
  const event = eventOf(lock, mode, false);
  const began = now();
  const succeed = (hold: H): H => {
    settled(event, began, hold);
    continued(event);
    return hold;
  };
  const fail = (error: unknown): never => {
    refused(event, began, error);
    continued(event);
    throw error;
  };
  let taken: H | Promise<H>;
  try {
    taken = started.runStores(event, () => {
      try {
        return take(event);
      } finally {
        ended.publish(event);
      }
    });
  } catch (error) {
    return fail(error);
  }
  return taken instanceof Promise ? taken.then(succeed, fail) : succeed(taken);
}

function continued(event: AcquireEvent): void {
  asyncStarted.publish(event);
  asyncEnded.publish(event);
}

export function hasReleaseWatchers(): boolean {
  return releases.hasSubscribers;
}

export function publishRelease({ name, namespace }: Lock, mode: LockMode, holdMs: number): void {
  releases.publish({ name, namespace, mode, holdMs } satisfies ReleaseEvent);
}

export function publishAbandoned({ name, namespace }: Lock, mode: LockMode, abandoned: Abandoned): void {
  if (!abandonedHolds.hasSubscribers) return;
  abandonedHolds.publish({ name, namespace, mode, abandoned } satisfies AbandonedEvent);
}

export function publishLost({ name, namespace }: Lock, mode: LockMode, error: Error): void {
  if (!losses.hasSubscribers) return;
  losses.publish({ name, namespace, mode, error } satisfies LostEvent);
}

export function publishLeak({ name, namespace }: Lock, mode: LockMode): void {
  if (!leaks.hasSubscribers) return;
  leaks.publish({ name, namespace, mode } satisfies LeakEvent);
}

export function publishDeadlock({ name, namespace }: Lock, cycle: LockInfo[], fails: boolean): void {
  if (!deadlocks.hasSubscribers) return;
  deadlocks.publish({ name, namespace, cycle, fails } satisfies DeadlockEvent);
}
