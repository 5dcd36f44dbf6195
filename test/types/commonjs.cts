// `require` gives what `import` gives, type for type: what contract.mts promises holds in CommonJS as well.
import proclock = require('proclock');

import type * as esm from 'proclock' with { 'resolution-mode': 'import' };
import type { typeOf as TypeOf } from './expect.mjs' with { 'resolution-mode': 'import' };

declare const typeOf: typeof TypeOf;

function sameAsInModules(): void {
  typeOf<Pick<typeof proclock, keyof typeof proclock>>(proclock).is<Pick<typeof esm, keyof typeof esm>>();
  // A guard of one is a guard of the other.
  const guard: proclock.LockGuard = new proclock.SharedLock().sharedSync();
  const options: esm.AcquireOptions = { within: guard };
  typeOf(new proclock.Lock().acquire(options, () => 1)).is<Promise<number>>();
  typeOf<proclock.LockErrorCode>('ERR_LOCK_CLOSED').is<esm.LockErrorCode>();
}

async function imported(): Promise<void> {
  const { SharedLock } = await import('proclock');
  const lock: proclock.SharedLock = new SharedLock();
  using guard = lock.sharedSync();
  typeOf(guard).is<proclock.LockGuard>();
}

export = { sameAsInModules, imported };
