// Waits that go round in a circle, as this thread sees them: in which context it waits and holds, and what it says when the
// native part has found a cycle. What a cycle is, and who of it fails, is in native/core/deadlock.h.
import { publishDeadlock } from '../common/channels';
import { deadlockError, type LockError, shownCycle } from '../common/errors';
import { HoldSet, type Ownable, type Owner } from '../common/owner';
import { warn } from '../common/warnings';
import { type Native, Report, Told } from './binding';
import { Hold } from './hold';
import type { WaitedLock } from './ready';

/** The numbers of contexts of which others were told. */
const numbers = new WeakMap<Owner, number>();

function numberOf(owner: Owner, native: Native): number {
  let number = numbers.get(owner);
  if (number === undefined) {
    number = native.binding.newContext(0);
    numbers.set(owner, number);
  }
  return number;
}

/** What was named by `within`, of a thread. Once that is released, its hold may be another one. */
function holdsOf(within: Ownable | undefined): Hold[] {
  const { hold, released } = within as unknown as { hold: Hold; released: boolean };
  return released ? [] : [hold];
}

interface Context {
  readonly owner: Owner;
  readonly holds: Hold[];
}

/** Whether somebody waits for anything of what the owner holds. Asked once a second for each wait: it makes nothing new. */
function isWanted(owner: Owner, within: Ownable | undefined, native: Native): boolean {
  const test = (hold: unknown): boolean => hold instanceof Hold && native.binding.isWanted(hold.index) !== 0;
  if (!(owner instanceof HoldSet)) return holdsOf(within).some(test);
  for (let set = owner.innermostActive(); set !== undefined; set = set.outer()) {
    if (set.holdsSome(test)) return true;
  }
  return false;
}

/** From the inside out. */
function contextsOf(owner: Owner, within: Ownable | undefined): Context[] {
  // The thread: of all that it holds, what was named.
  if (!(owner instanceof HoldSet)) return [{ owner, holds: holdsOf(within) }];
  const contexts: Context[] = [];
  for (let set = owner.innermostActive(); set !== undefined; set = set.outer()) {
    contexts.push({ owner: set, holds: set.held().filter((hold) => hold instanceof Hold) });
  }
  return contexts;
}

/**
 * What whoever waits holds: the number of a context and the index of a hold, and so on, from the inside out. What contexts in one
 * another hold both, since the inner one has nested in it, is the outer one's. `undefined`: nobody waits for any of it.
 */
export function ownedBy(
  owner: Owner | undefined,
  within: Ownable | undefined,
  native: Native,
): number[] | undefined {
  if (owner === undefined || !isWanted(owner, within, native)) return undefined;
  const contexts = contextsOf(owner, within);
  const outermost = new Map<Hold, Owner>();
  for (const { owner: of, holds } of contexts) for (const hold of holds) outermost.set(hold, of);
  const owned: number[] = [];
  for (const { owner: of, holds } of contexts) {
    for (const hold of holds) {
      if (outermost.get(hold) !== of) continue;
      hold.isInContext = true;
      owned.push(numberOf(of, native), hold.index);
    }
  }
  return owned;
}

/**
 * To be called when a wait has tried again in vain, or has looked. Warns if it is the one of its process that is to do so.
 * @returns why the wait is to fail, if it is
 */
export function hearOfCycle(record: WaitedLock, index: number): LockError | undefined {
  const told = record.ready.native.reported(Report.TOLD);
  if (told === 0) return undefined;
  const cycle = record.cycleOf(index);
  if (cycle.length === 0) return undefined;
  const fails = (told & Told.VICTIM) !== 0;
  publishDeadlock(record, cycle, fails);
  if (fails) return deadlockError(cycle);
  warn(
    `Likely a deadlock: ${shownCycle(cycle)}. Nobody of them can go on, unless code beside gives a lock back; take locks in ` +
      "the same order everywhere, as acquireAll does, or let one of them fail: { deadlock: 'throw' }",
    'PROCLOCK_DEADLOCK',
  );
  return undefined;
}
