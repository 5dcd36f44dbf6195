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
export type { Abandoned, LockInfo, LockMode, LockSnapshot, WaitOptions } from './common/types';
export type { LockManagerSnapshot, LockRequestOptions, WebLock } from './common/web-locks';
export type { GuardedLock, LockGuard } from './remote/guard';
export { LockManager } from './remote/lock-manager';
export { Lock, RLock, SharedLock, SharedRLock } from './remote/locks';
export { acquireAll, type MultiGuard, tryAcquireAll, type Wanted } from './remote/many';
export type { AcquireOptions, LockOptions, Work } from './remote/named-lock';
export { lead, singleFlight } from './remote/one-of-many';
export type { Space } from './remote/space';
