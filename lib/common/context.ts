// The owner context of the callback around the caller. The only state of lib/common: one for each copy of the package in a
// thread.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { HoldSet } from './owner';

const contexts = new AsyncLocalStorage<HoldSet>();
let used = false;

/** The context of the innermost callback around the caller that has not settled. */
export function currentContext(): HoldSet | undefined {
  return used ? contexts.getStore()?.innermostActive() : undefined;
}

export function runInContext<A, T>(context: HoldSet, fn: (argument: A) => T, argument: A): T {
  // The first run() makes every await of the process slower on Node 20: programs without callback forms never pay.
  used = true;
  return contexts.run(context, fn, argument);
}
