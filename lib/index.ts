export {
  type AbandonedEvent,
  type AcquireEvent,
  channels,
  type DeadlockEvent,
  type LeakEvent,
  type LostEvent,
  type ReleaseEvent,
} from './common/channels';
export { LockError, type LockErrorCode } from './common/errors';
export type { Flight } from './common/flight';
export type { LeadOptions, Term } from './common/lead';
export type { WantedLock } from './common/many';
export type {
  Abandoned,
  LockInfo,
  LockMode,
  LockSnapshot,
  QueryOptions,
  WaitOptions,
} from './common/types';
export type { LockManagerSnapshot, LockRequestOptions, WebLock } from './common/web-locks';
export { Local } from './local/local';
export type { GuardedLock, LockGuard } from './shm/guard';
export { Lock, RLock } from './shm/lock';
export { LockManager, type LockManagerOptions, locks } from './shm/lock-manager';
export { acquireAll, acquireAllSync, type MultiGuard, tryAcquireAll, type Wanted } from './shm/many';
export { lead, singleFlight } from './shm/one-of-many';
export type { AcquireOptions, LockOptions } from './shm/options';
export { SharedLock, SharedRLock } from './shm/shared-lock';
