// The state of this thread, and all of it: what lib/shm keeps beyond the objects that its users have. There is one for each
// copy of the package (test runners load it anew for each file), and it goes when the copy goes.
import { LeakFinder } from '../common/leaks';
import { Records } from './records';

let opened: Records | undefined;

/** The locks of this thread. The native part is loaded at the first use, so that `require('proclock')` works everywhere. */
export function records(): Records {
  opened ??= new Records();
  return opened;
}

export const leaks = new LeakFinder(() => opened?.holds.giveBackUnguarded());

/** What handles that are garbage-collected had open. */
export const droppedHandles = new FinalizationRegistry<{ leave(): void }>((open) => open.leave());
