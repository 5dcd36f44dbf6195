export { LockError, type LockErrorCode } from './common/errors';
export type { Abandoned, LockInfo, LockMode, LockSnapshot, WaitOptions } from './common/types';
export type { LockManagerSnapshot, LockRequestOptions, WebLock } from './common/web-locks';
export type { GuardedLock, LockGuard } from './remote/guard';
export { LockManager } from './remote/lock-manager';
export { Lock, RLock, SharedLock, SharedRLock } from './remote/locks';
export type { AcquireOptions, LockOptions, Work } from './remote/named-lock';
export type { Space } from './remote/space';
