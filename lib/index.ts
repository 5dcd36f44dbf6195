export { LockError, type LockErrorCode } from './errors';
export { LockGuard } from './guard';
export { Local } from './local';
export { Lock, RLock } from './lock';
export { SharedLock, SharedRLock } from './shared-lock';
export type {
  Abandoned,
  AcquireOptions,
  LockInfo,
  LockMode,
  LockOptions,
  LockSnapshot,
} from './types';
