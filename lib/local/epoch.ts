// When the state of this process stops being its own: a program that is started from a V8 startup snapshot, and the child
// of a raw fork(), begin with a copy of what another process had.
//
// JavaScript is told of a start from a snapshot, but not of a fork(): even `process.pid` stays what it was. The native
// part counts forks in memory that it shares with JavaScript; where it is not loaded, none is noticed. This file does not
// load it, nor node:v8, which takes some milliseconds (local.ts tells of snapshots). The count is the only state of lib/local.

let count: Int32Array = new Int32Array(1);

/** Another number in each process that goes on with the same state. */
export function currentEpoch(): number {
  return count[0] as number;
}

/** To be called where a process goes on with the state of another one. */
export function beginEpoch(): void {
  count[0] = currentEpoch() + 1;
}

/** From now on counts in this array of length 1, in which the native part adds one in the child of a fork(). */
export function followForks(shared: Int32Array): void {
  shared[0] = currentEpoch();
  count = shared;
}
