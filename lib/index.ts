export { LockError, type LockErrorCode } from './errors';
export type { LockGuard } from './guard';
export { Local } from './local';
export { Lock, RLock } from './lock';
export {
  LockManager,
  type LockManagerOptions,
  type LockManagerSnapshot,
  type LockRequestOptions,
  locks,
  type WebLock,
} from './lock-manager';
export { SharedLock, SharedRLock } from './shared-lock';
export type {
  Abandoned,
  AcquireOptions,
  LockInfo,
  LockMode,
  LockOptions,
  LockSnapshot,
} from './types';
