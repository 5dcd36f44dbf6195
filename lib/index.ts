export { LockError, type LockErrorCode } from './common/errors';
export type {
  Abandoned,
  LockInfo,
  LockMode,
  LockSnapshot,
  WaitOptions,
} from './common/types';
export type { LockManagerSnapshot, LockRequestOptions, WebLock } from './common/web-locks';
export { Local } from './local/local';
export type { GuardedLock, LockGuard } from './shm/guard';
export { Lock, RLock } from './shm/lock';
export { LockManager, type LockManagerOptions, locks } from './shm/lock-manager';
export type { AcquireOptions, LockOptions } from './shm/options';
export { SharedLock, SharedRLock } from './shm/shared-lock';
