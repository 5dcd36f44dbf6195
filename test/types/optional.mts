// Without exactOptionalPropertyTypes, `undefined` stands for the default, as it does at run time.
import { Lock, type LockGuard, SharedLock } from 'proclock';
import { typeOf } from './expect.mjs';

export function accepted(): void {
  new SharedLock('name', { namespace: undefined, fair: undefined, group: undefined });
  typeOf(new Lock().acquire({ timeout: undefined, signal: undefined, within: undefined })).is<
    Promise<LockGuard>
  >();
  typeOf(new SharedLock().acquireSync({ exclusive: undefined })).is<LockGuard>();
  typeOf(new SharedLock().tryAcquire({ exclusive: undefined })).is<LockGuard | null>();
}
