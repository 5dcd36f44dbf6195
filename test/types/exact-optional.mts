// With exactOptionalPropertyTypes, `undefined` is no value of an option. (Without it, it stands for the default.)
import { Lock, SharedLock } from 'proclock';

export function refused(): void {
  // @ts-expect-error leave it out instead
  new SharedLock('name', { namespace: undefined });
  // @ts-expect-error leave it out instead
  new Lock('name', { fair: undefined });
  // @ts-expect-error leave it out instead
  new Lock().acquire({ timeout: undefined });
  // @ts-expect-error leave it out instead
  new SharedLock().acquireSync({ exclusive: undefined });
  // @ts-expect-error leave it out instead
  new SharedLock().tryAcquire({ exclusive: undefined });
}
