// What the declarations of proclock/remote, proclock/memory and proclock/etcd promise. Compiled, never run: see contract.mts.
import * as local from 'proclock';
import { connect, type EtcdOptions } from 'proclock/etcd';
import { type MemorySpace, memory, type SpaceOptions } from 'proclock/memory';
import * as remote from 'proclock/remote';
import {
  type Abandoned,
  type AcquireOptions,
  type GuardedLock,
  Lock,
  LockError,
  type LockErrorCode,
  type LockGuard,
  type LockInfo,
  LockManager,
  type LockManagerSnapshot,
  type LockMode,
  type LockOptions,
  type LockRequestOptions,
  type LockSnapshot,
  RLock,
  SharedLock,
  SharedRLock,
  type Space,
  type WebLock,
} from 'proclock/remote';
import { typeOf } from './expect.mjs';

declare const space: Space;
declare const shared: SharedLock;
declare const lock: Lock;
declare const guard: LockGuard;
declare const options: AcquireOptions;

const text = (_: LockGuard): string => '';
const later = async (_: LockGuard): Promise<number> => 1;
declare const thenable: (guard: LockGuard) => PromiseLike<boolean>;

export async function spaces(): Promise<void> {
  typeOf(memory()).is<MemorySpace>();
  typeOf(memory({})).is<MemorySpace>();
  typeOf(memory({ namespace: 'n', ttl: 5000 })).is<MemorySpace>();
  typeOf<Parameters<typeof memory>>([{}]).is<[options?: SpaceOptions | undefined]>();
  await using mine: Space = memory();
  typeOf(mine.kind).is<'postgres' | 'etcd' | 'memory'>();
  typeOf(mine.namespace).is<string>();
  typeOf(mine.query()).is<Promise<LockSnapshot>>();
  typeOf(mine.close()).is<Promise<void>>();
  typeOf(memory().peer()).is<MemorySpace>();
  typeOf(memory().kill()).is<void>();
  // @ts-expect-error a ttl is a number
  memory({ ttl: '5000' });
  // @ts-expect-error there is no such option
  memory({ fair: true });
  // @ts-expect-error it is read-only
  space.namespace = 'another';
  // @ts-expect-error nothing of it can be done at once
  using _space = memory();
}

export function overEtcd(): void {
  typeOf(connect('host:2379')).is<Promise<Space>>();
  typeOf(connect(['http://a:2379', 'https://b:2379'], {})).is<Promise<Space>>();
  typeOf<Parameters<typeof connect>>(['host:2379']).is<
    [endpoints: string | string[], options?: EtcdOptions | undefined]
  >();
  const rootCertificate = Buffer.of();
  connect('host:2379', { namespace: 'n', ttl: 5000, prefix: 'p/', credentials: { rootCertificate } });
  connect('host:2379', { auth: { username: 'worker', password: 'secret' } });
  // @ts-expect-error both are needed
  connect('host:2379', { auth: { username: 'worker' } });
  // @ts-expect-error it has to be said where
  connect();
  // @ts-expect-error there is no such option
  connect('host:2379', { pooler: 'none' });
}

export function construction(): void {
  new SharedLock('name', { space });
  new RLock(undefined, { space: memory() });
  for (const Class of [SharedLock, SharedRLock, Lock, RLock])
    typeOf<ConstructorParameters<typeof Class>>(['', { space }]).is<
      [name: string | undefined, options: LockOptions]
    >();
  new LockManager({ space });
  // @ts-expect-error a lock is in a space
  new SharedLock('name');
  // @ts-expect-error a lock is in a space
  new Lock('name', {});
  // @ts-expect-error a manager is in a space
  new LockManager();
  // @ts-expect-error the namespace is that of the space
  new SharedLock('name', { space, namespace: 'n' });
  // @ts-expect-error they always are
  new SharedLock('name', { space, fair: true });
  // @ts-expect-error a name is a string
  new SharedLock(1, { space });
  // @ts-expect-error guards come from locks
  new remote.LockGuard();
}

export function calls(): void {
  for (const call of [shared.shared, shared.exclusive, shared.acquire, lock.acquire] as const) {
    typeOf(call()).is<Promise<LockGuard>>();
    typeOf(call(options)).is<Promise<LockGuard>>();
    typeOf(call({ timeout: 1, signal: new AbortController().signal, within: guard, deadlock: 'throw' })).is<
      Promise<LockGuard>
    >();
  }
  typeOf(shared.shared(text)).is<Promise<string>>();
  typeOf(shared.shared(options, text)).is<Promise<string>>();
  typeOf(shared.exclusive(later)).is<Promise<number>>();
  typeOf(shared.exclusive(undefined, later)).is<Promise<number>>();
  typeOf(shared.acquire({ exclusive: true, timeout: 1 }, thenable)).is<Promise<boolean>>();
  typeOf(lock.acquire(() => {})).is<Promise<void>>();
  typeOf(shared.tryShared()).is<Promise<LockGuard | null>>();
  typeOf(shared.tryExclusive()).is<Promise<LockGuard | null>>();
  typeOf(shared.tryAcquire({ exclusive: true })).is<Promise<LockGuard | null>>();
  typeOf(lock.tryAcquire()).is<Promise<LockGuard | null>>();
  typeOf(shared.query()).is<Promise<LockSnapshot>>();
  typeOf(shared.close()).is<void>();
  typeOf(shared[Symbol.asyncDispose]()).is<Promise<void>>();
  // @ts-expect-error a Lock is exclusive always
  lock.acquire({ exclusive: true });
  // @ts-expect-error a Lock is exclusive always
  lock.exclusive();
  // @ts-expect-error a guard of shared memory owns nothing here
  shared.shared({ within: new local.SharedLock().sharedSync() });
  // @ts-expect-error nothing blocks
  shared.sharedSync();
  // @ts-expect-error nothing blocks
  shared.exclusiveSync();
  // @ts-expect-error nothing blocks
  shared.acquireSync();
  // @ts-expect-error nothing blocks
  lock.acquireSync();
}

export async function guards(): Promise<void> {
  typeOf(guard.mode).is<LockMode>();
  typeOf(guard.lock).is<GuardedLock>();
  typeOf(guard.token).is<bigint>();
  typeOf(guard.abandoned).is<Abandoned | null>();
  typeOf(guard.released).is<boolean>();
  typeOf(guard.lost).is<AbortSignal>();
  typeOf(guard.release()).is<Promise<void>>();
  typeOf(guard.downgrade()).is<Promise<void>>();
  typeOf(guard.upgrade()).is<Promise<void>>();
  typeOf(guard.upgrade({ timeout: 1, signal: guard.lost })).is<Promise<void>>();
  typeOf(guard.tryUpgrade()).is<Promise<boolean>>();
  typeOf(guard[Symbol.asyncDispose]()).is<Promise<void>>();
  const _guarded: GuardedLock[] = [shared, lock];
  await using _guard = await shared.exclusive();
  await using _lock = new Lock('name', { space });
  // @ts-expect-error it is released later
  using _now = await shared.exclusive();
  // @ts-expect-error it is read-only
  guard.mode = 'shared';
  // @ts-expect-error a timeout is a number
  guard.upgrade({ timeout: '1' });
}

export function webLocks(manager: LockManager, request: LockRequestOptions): void {
  typeOf(manager.request('name', () => 1)).is<Promise<number>>();
  typeOf(manager.request('name', async ({ name, mode }: WebLock) => [name, mode] as const)).is<
    Promise<readonly [string, LockMode]>
  >();
  typeOf(manager.request('name', { mode: 'shared' }, (held) => typeOf(held).is<WebLock>())).is<
    Promise<void>
  >();
  manager.request('name', { ifAvailable: true }, (held) => typeOf(held).is<WebLock | null>());
  manager.request('name', request, (held) => typeOf(held).is<WebLock | null>());
  typeOf(manager.query()).is<Promise<LockManagerSnapshot>>();
}

export function words(info: LockInfo, error: LockError): void {
  typeOf(info.host).is<string | undefined>();
  // What is thrown here is what is thrown there.
  typeOf(LockError).is<typeof local.LockError>();
  typeOf<LockErrorCode>('ERR_LOCK_LOST').is<local.LockErrorCode>();
  typeOf<LockErrorCode>('ERR_LOCK_UNAVAILABLE').is<local.LockErrorCode>();
  typeOf(error.holders).is<LockInfo[] | undefined>();
}
