// What the published declarations promise to a program in ESM. Compiled, never run: an error of the compiler is a failed
// test, and so is a line that is marked @ts-expect-error and has no error.

import * as proclock from 'proclock';
import {
  type Abandoned,
  type AcquireOptions,
  type GuardedLock,
  Lock,
  LockError,
  type LockErrorCode,
  type LockGuard,
  type LockInfo,
  type LockMode,
  type LockOptions,
  type LockSnapshot,
  RLock,
  SharedLock,
  SharedRLock,
} from 'proclock';
import { typeOf } from './expect.mjs';

declare const shared: SharedLock;
declare const lock: Lock;
declare const guard: LockGuard;
declare const options: AcquireOptions;

const text = (_: LockGuard): string => '';
const later = async (_: LockGuard): Promise<number> => 1;
declare const thenable: (guard: LockGuard) => PromiseLike<boolean>;
declare const either: () => string | Promise<number>;

export function construction(): void {
  new SharedLock();
  new SharedRLock('name', { namespace: 'n', fair: true, group: 'users' });
  new Lock(undefined, { group: 100 });
  for (const Class of [SharedLock, SharedRLock, Lock, RLock])
    typeOf<ConstructorParameters<typeof Class>>(['']).is<
      [name?: string | undefined, options?: LockOptions | undefined]
    >();
  // @ts-expect-error a name is a string
  new SharedLock(1);
  // @ts-expect-error null is no name
  new Lock(null);
  // @ts-expect-error there is no such option
  new SharedLock('name', { fairness: true });
  // @ts-expect-error a timeout is an option of an acquire
  new Lock('name', { timeout: 1 });
  // @ts-expect-error fair is a boolean
  new Lock('name', { fair: 1 });
  // @ts-expect-error guards come from locks
  new proclock.LockGuard();
}

export function asyncCalls(): void {
  for (const call of [shared.shared, shared.exclusive, shared.acquire, lock.acquire] as const) {
    typeOf(call()).is<Promise<LockGuard>>();
    typeOf(call({})).is<Promise<LockGuard>>();
    typeOf(call(options)).is<Promise<LockGuard>>();
    typeOf(call({ timeout: 1, signal: new AbortController().signal, within: guard, deadlock: 'throw' })).is<
      Promise<LockGuard>
    >();
  }
  typeOf(shared.shared(text)).is<Promise<string>>();
  typeOf(shared.shared(options, text)).is<Promise<string>>();
  typeOf(shared.exclusive(later)).is<Promise<number>>();
  typeOf(shared.exclusive(undefined, later)).is<Promise<number>>();
  typeOf(shared.acquire(thenable)).is<Promise<boolean>>();
  typeOf(shared.acquire({ exclusive: true, timeout: 1 }, thenable)).is<Promise<boolean>>();
  typeOf(lock.acquire(() => {})).is<Promise<void>>();
  typeOf(lock.acquire(options, async () => null)).is<Promise<null>>();
  typeOf(lock.acquire((inner) => inner)).is<Promise<LockGuard>>();
  typeOf(shared.shared<string | number>(either)).is<Promise<string | number>>();
  shared.exclusive((inner) => typeOf(inner).is<LockGuard>());
  lock.acquire(options, async (inner) => typeOf(inner).is<LockGuard>());

  // @ts-expect-error the function comes last
  shared.shared(text, options);
  // @ts-expect-error null stands for no options
  shared.exclusive(null);
  // @ts-expect-error in milliseconds, as a number
  lock.acquire({ timeout: '10' });
  // @ts-expect-error the signal, not its controller
  lock.acquire({ signal: new AbortController() });
  // @ts-expect-error within is a guard
  lock.acquire({ within: lock });
  // @ts-expect-error it throws or warns
  lock.acquire({ deadlock: 'ignore' });
  // @ts-expect-error there is no such option
  shared.acquire({ mode: 'exclusive' });
  // @ts-expect-error a lock has no third argument
  shared.acquire(options, text, text);
}

export function syncCalls(): void {
  for (const call of [
    shared.sharedSync,
    shared.exclusiveSync,
    shared.acquireSync,
    lock.acquireSync,
  ] as const) {
    typeOf(call()).is<LockGuard>();
    typeOf(call(options)).is<LockGuard>();
  }
  typeOf(shared.sharedSync(text)).is<string>();
  typeOf(shared.sharedSync(options, text)).is<string>();
  typeOf(shared.exclusiveSync(undefined, text)).is<string>();
  typeOf(shared.acquireSync({ exclusive: true }, text)).is<string>();
  typeOf(lock.acquireSync(text)).is<string>();
  // What the function returns is handed on as it is: nobody waits for it.
  typeOf(lock.acquireSync(options, later)).is<Promise<number>>();
  shared.acquireSync((inner) => typeOf(inner).is<LockGuard>());
}

export function tryCalls(): void {
  for (const call of [shared.tryShared, shared.tryExclusive, shared.tryAcquire, lock.tryAcquire] as const)
    typeOf(call()).is<LockGuard | null>();
  typeOf(shared.tryAcquire({ exclusive: true })).is<LockGuard | null>();
  // @ts-expect-error it may be null
  shared.tryShared().release();
  // @ts-expect-error it does not wait
  shared.tryAcquire({ timeout: 1 });
  // @ts-expect-error it takes no options
  shared.tryExclusive({});
  // @ts-expect-error it takes no options
  lock.tryAcquire({ exclusive: true });
}

export function exclusiveOnly(): void {
  // @ts-expect-error a Lock has one mode
  lock.shared();
  // @ts-expect-error a Lock has one mode
  lock.exclusive();
  // @ts-expect-error a Lock has one mode
  lock.sharedSync();
  // @ts-expect-error a Lock has one mode
  lock.tryShared();
  // @ts-expect-error a Lock has one mode
  lock.acquire({ exclusive: true });
  // @ts-expect-error a Lock has one mode
  lock.acquireSync({ exclusive: false });
  // @ts-expect-error a Lock has one mode
  new RLock().shared();
}

export function inheritance(): [SharedLock, Lock] {
  // @ts-expect-error the acquire of a SharedLock is shared: it is no Lock
  const alone: Lock = new SharedLock();
  void alone;
  // @ts-expect-error a Lock is no SharedLock
  const other: SharedLock = new Lock();
  return [other, new RLock()] satisfies [SharedLock, Lock];
}

export function properties(): void {
  for (const each of [shared, lock] as const) {
    typeOf(each.name).is<string>();
    typeOf(each.namespace).is<string>();
    typeOf(each.query()).is<LockSnapshot>();
    typeOf(each.close()).is<void>();
    // @ts-expect-error readonly
    each.name = '';
    // @ts-expect-error readonly
    each.namespace = '';
  }
  typeOf(guard.mode).is<LockMode>();
  typeOf(guard.lock).is<GuardedLock>();
  const locks: GuardedLock[] = [shared, lock];
  for (const each of locks) typeOf(each.name).is<string>();
  typeOf(guard.token).is<bigint>();
  typeOf(guard.abandoned).is<Abandoned | null>();
  typeOf(guard.released).is<boolean>();
  typeOf(guard.release()).is<void>();
  typeOf(guard.downgrade()).is<void>();
  typeOf(guard.upgrade()).is<Promise<void>>();
  typeOf(guard.upgrade({ timeout: 1, signal: guard.lost })).is<Promise<void>>();
  typeOf(guard.tryUpgrade()).is<boolean>();
  // @ts-expect-error milliseconds
  guard.upgrade({ timeout: '1' });
  // @ts-expect-error readonly
  guard.mode = 'shared';
  // @ts-expect-error readonly
  guard.lock = lock;
  // @ts-expect-error readonly
  guard.token = 1n;
  // @ts-expect-error readonly
  guard.abandoned = null;
  // @ts-expect-error readonly
  guard.released = true;
}

export function records(): void {
  typeOf<LockMode>('shared').is<'shared' | 'exclusive'>();
  type Info = {
    name: string;
    mode: LockMode;
    clientId: string;
    pid: number;
    threadId: number;
    host?: string;
    since: Date;
    command?: string;
    stopped?: boolean;
  };
  typeOf<Pick<LockInfo, keyof LockInfo>>(shared.query().held[0]!).is<Info>();
  typeOf(lock.query().held).is<LockInfo[]>();
  typeOf(lock.query().pending).is<LockInfo[]>();
  typeOf<Pick<Abandoned, keyof Abandoned>>(guard.abandoned!).is<{
    pid: number;
    threadId: number;
    since: Date;
    token: bigint;
  }>();
  typeOf<Required<Pick<LockOptions, keyof LockOptions>>>({} as never).is<{
    namespace: string;
    fair: boolean;
    group: string | number;
  }>();
  typeOf<Required<Pick<AcquireOptions, keyof AcquireOptions>>>({} as never).is<{
    timeout: number;
    signal: AbortSignal;
    within: LockGuard;
    deadlock: 'throw' | 'warn';
  }>();
}

export async function disposal(): Promise<void> {
  using handle = new SharedLock();
  using exclusive = new RLock();
  using held = handle.sharedSync();
  using nested = await handle.shared();
  await using later = await exclusive.acquire();
  using maybe = exclusive.tryAcquire();
  typeOf(maybe).is<LockGuard | null>();
  typeOf(held[Symbol.dispose]()).is<void>();
  typeOf(nested[Symbol.asyncDispose]()).is<Promise<void>>();
  typeOf(handle[Symbol.dispose]()).is<void>();
  // @ts-expect-error a promise is not disposed of: what it fulfils with is
  using early = handle.shared();
  typeOf(later).is<LockGuard>();
  void early;
}

export function several(): void {
  const { acquireAll, acquireAllSync, tryAcquireAll } = proclock;
  typeOf(acquireAll([lock, shared])).is<Promise<proclock.MultiGuard>>();
  typeOf(acquireAll([lock, { lock: shared, mode: 'shared' }], { timeout: 1 })).is<
    Promise<proclock.MultiGuard>
  >();
  typeOf(acquireAll([lock], async ({ guards }) => guards.length)).is<Promise<number>>();
  typeOf(acquireAll([lock], options, () => 'text')).is<Promise<string>>();
  typeOf(acquireAllSync([lock], options)).is<proclock.MultiGuard>();
  typeOf(acquireAllSync([], () => 'text')).is<string>();
  typeOf(tryAcquireAll([shared])).is<proclock.MultiGuard | null>();
  typeOf(acquireAllSync([lock]).guards).is<LockGuard[]>();
  // @ts-expect-error there is no such mode
  void acquireAll([{ lock, mode: 'both' }]);
  // @ts-expect-error they come from the functions
  new proclock.MultiGuard();
}

export function oneOfMany(): void {
  const { lead, singleFlight } = proclock;
  typeOf(lead(lock, async ({ signal, token }) => [signal.aborted, token] as const)).is<
    Promise<readonly [boolean, bigint]>
  >();
  typeOf(lead(shared, () => 'text', { signal: guard.lost })).is<Promise<string>>();
  typeOf(singleFlight(lock, async () => 1)).is<Promise<proclock.Flight<number>>>();
  typeOf(singleFlight(lock, (held) => held.token, { timeout: 1 })).is<Promise<proclock.Flight<bigint>>>();
  const narrowed = async () => {
    const flight = await singleFlight(lock, () => 'text');
    return flight.ran ? flight.value : undefined;
  };
  typeOf(narrowed()).is<Promise<string | undefined>>();
  // @ts-expect-error it has to have something to do
  void lead(lock);
}

export function errors(caught: unknown): void {
  if (!(caught instanceof LockError)) return;
  caught satisfies Error;
  typeOf(caught.code).is<LockErrorCode>();
  typeOf(caught.cause).is<unknown>();
  typeOf(caught.holders).is<LockInfo[] | undefined>();
  typeOf(caught.cycle).is<LockInfo[] | undefined>();
  typeOf<LockErrorCode>('ERR_LOCK_TIMEOUT').is<
    | 'ERR_LOCK_TIMEOUT'
    | 'ERR_LOCK_NOT_REENTRANT'
    | 'ERR_LOCK_UPGRADE'
    | 'ERR_LOCK_NOT_HELD'
    | 'ERR_LOCK_WOULD_DEADLOCK'
    | 'ERR_LOCK_CLOSED'
    | 'ERR_LOCK_CAPACITY'
    | 'ERR_LOCK_NO_SPACE'
    | 'ERR_LOCK_PERMISSION'
    | 'ERR_LOCK_INCOMPATIBLE'
    | 'ERR_LOCK_CORRUPT'
    | 'ERR_LOCK_NAMESPACE_REMOVED'
    | 'ERR_LOCK_UNSUPPORTED'
    | 'ERR_LOCK_LOST'
    | 'ERR_LOCK_DEADLOCK'
    | 'ERR_LOCK_UNAVAILABLE'
  >();
  // @ts-expect-error readonly
  caught.code = 'ERR_LOCK_CLOSED';
  // @ts-expect-error there is no such code
  void (caught.code === 'ERR_LOCK_ELSEWHERE');
}

/** What is left to see of a class, by those who use it. */
export function internals(): void {
  type GuardMembers =
    | 'lock'
    | 'mode'
    | 'token'
    | 'abandoned'
    | 'lost'
    | 'released'
    | 'release'
    | 'downgrade'
    | 'upgrade'
    | 'tryUpgrade'
    | typeof Symbol.dispose
    | typeof Symbol.asyncDispose;
  typeOf<keyof LockGuard>('lock').is<GuardMembers>();
  type Handle = 'name' | 'namespace' | 'query' | 'close' | typeof Symbol.dispose;
  type Acquires = 'acquire' | 'acquireSync' | 'tryAcquire';
  typeOf<keyof Lock>('name').is<Handle | Acquires>();
  typeOf<keyof RLock>('name').is<Handle | Acquires>();
  type InBothModes = `${LockMode}${'' | 'Sync'}` | 'tryShared' | 'tryExclusive';
  typeOf<keyof SharedLock>('name').is<Handle | Acquires | InBothModes>();
  typeOf<keyof SharedRLock>('name').is<Handle | Acquires | InBothModes>();
}
