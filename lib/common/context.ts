// The owner context of the callback around the caller. Beside the listeners of signals.ts, and what clock.ts has asked, the only state of lib/common: one
// for each copy of the package in a thread.
//
// On Node 20 an AsyncLocalStorage makes every await of the process slower from its first run() on, and is kept in a list of
// the process, for ever. Programs without callback forms never pay; and when no callback has been running for some turns of
// the event loop, it is taken off the list, so that a copy of the package that nobody uses any more is garbage.
import { AsyncLocalStorage } from 'node:async_hooks';
import { startSoon } from './clock';
import { type Held, HoldSet, type Owner } from './owner';

/** Too few to matter to who counts turns, enough for a busy program to begin the next callback. */
const IDLE_TURNS = 4;

const contexts = new AsyncLocalStorage<HoldSet>();
/** Contexts that have begun and not ended. */
let active = 0;
let enabled = false;
let idleTurns = 0;
let lookIsDue = false;

/** The context of the innermost callback around the caller that has not settled. */
export function currentContext(): HoldSet | undefined {
  return enabled ? contexts.getStore()?.innermostActive() : undefined;
}

/** A context for a callback that holds this, inside of another one, or `within` some other owner. */
export function beginContext(hold: Held, parent: HoldSet | undefined, within: Owner | undefined): HoldSet {
  active++;
  return new HoldSet(hold, parent, within);
}

/** What runs in it is no owner from now on. */
export function endContext(context: HoldSet): void {
  context.end();
  if (--active > 0) return;
  idleTurns = 0;
  if (!lookIsDue) lookAfterTurn();
}

export function runInContext<A, T>(context: HoldSet, fn: (argument: A) => T, argument: A): T {
  enabled = true;
  return contexts.run(context, fn, argument);
}

function lookAfterTurn(): void {
  startSoon(look, false);
  lookIsDue = true;
}

function look(): void {
  lookIsDue = false;
  if (active > 0) return;
  if (++idleTurns < IDLE_TURNS) {
    lookAfterTurn();
    return;
  }
  enabled = false;
  contexts.disable();
}
