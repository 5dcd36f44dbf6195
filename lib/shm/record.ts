// The locks that are open in this thread.
import { threadId } from 'node:worker_threads';
import { now } from '../common/clock';
import type { Owner } from '../common/owner';
import type { Abandoned, LockInfo, LockMode, LockSnapshot } from '../common/types';
import { ATTENTION, keyOf, type Native, type NativeInfo } from './binding';
import { errorOf, Status } from './errors';
import { abandonedOf, type Hold, type Holds, type LockOfHold } from './hold';
import { type ProcessDetails, processTeller } from './processes';
import type { Ready } from './ready';

/** In place of a native id, of which there are never so many. */
const ASLEEP = 2 ** 29 - 1;

/** A namespace in which locks of this thread are open. */
export interface Space {
  readonly namespace: string;
  readonly group: number;
  readonly segment: string;
  /** Where that is. */
  readonly file: string;
  /** By name. */
  readonly records: Map<string, LockRecord>;
}

/** Where the locks of this thread are opened and closed: `Records`. */
export interface Opener {
  readonly ready: Ready;
  readonly holds: Holds;
  /** Nobody uses this one any more. */
  close(record: LockRecord): void;
  /** The native lock of that name: its id. */
  openNative(space: Space, name: string): number;
}

/** One lock as this thread knows it, shared by all handles of its name; closed when neither handle nor hold is left. */
export class LockRecord implements LockOfHold {
  readonly ready: Ready;
  readonly holds: Holds;
  private readonly native: Native;
  /** Handles. */
  private users = 0;
  /** Holds and waits. */
  private uses = 0;
  private id: number;
  private sync: Hold | undefined = undefined;
  private exclusive: Hold | undefined = undefined;
  /** When the namespace was looked at last, by `now()`. */
  private lookedMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly records: Opener,
    readonly name: string,
    readonly space: Space,
    id: number,
  ) {
    this.id = id;
    this.ready = records.ready;
    this.native = this.ready.native;
    this.holds = records.holds;
  }

  get file(): string {
    return this.space.file;
  }

  get namespace(): string {
    return this.space.namespace;
  }

  /** Counts one handle, which is to call {@link leave}. */
  addUser(): void {
    this.users++;
  }

  leave(): void {
    if (--this.users === 0 && this.uses === 0) this.records.close(this);
  }

  /** Counts one wait, which is to call {@link endUse}. */
  addUse(): void {
    this.uses++;
  }

  /** The same for a hold, which is to call {@link forgetHold} as well. */
  addHold(hold: Hold): void {
    this.uses++;
    if (hold.mode === 'exclusive') this.exclusive = hold;
  }

  endUse(): void {
    if (--this.uses === 0 && this.users === 0) this.records.close(this);
  }

  /** Gives the native lock back if nobody holds it or waits for it here. The next one who needs it opens it again. */
  sleep(): boolean {
    if (this.uses > 0 || this.id === ASLEEP) return false;
    this.native.binding.closeLock(this.id);
    this.id = ASLEEP;
    return true;
  }

  /** The native id. */
  private open(): number {
    if (this.id === ASLEEP) this.id = this.records.openNative(this.space, this.name);
    return this.id;
  }

  closeNative(): void {
    if (this.id !== ASLEEP) this.native.binding.closeLock(this.id);
  }

  threadHold(): Hold | undefined {
    return this.sync;
  }

  setThreadHold(hold: Hold): void {
    this.sync = hold;
  }

  /** To be called when a hold of this lock ends: its thread does not own it any more. */
  forgetHold(hold: Hold): void {
    if (this.sync === hold) this.sync = undefined;
    if (this.exclusive === hold) this.exclusive = undefined;
  }

  /** Whether this thread got it exclusively. It may not know that the lock was stolen since. */
  isExclusiveHere(): boolean {
    return this.exclusive?.mode === 'exclusive';
  }

  /**
   * Takes the lock if it is free. `way` says the same as `mode`, and whether strictly in order. A hold that has no guard when the
   * turn is over is given back.
   */
  tryNow(way: number, mode: LockMode): Hold | undefined {
    const { holds } = this;
    if (holds.fresh >= 0) holds.setAside();
    const index = this.native.tryAcquire(keyOf(this.id, way));
    if (index >= 0) holds.fresh = index & ~ATTENTION;
    if (index >= 0 && index < ATTENTION) return holds.taken(index).begin(this, mode);
    if (this.id === ASLEEP) {
      this.open();
      return this.tryNow(way, mode);
    }
    // The grant first: settling makes native calls, and they write the report.
    const hold = index >= 0 ? holds.told(holds.taken(index & ~ATTENTION).begin(this, mode)) : undefined;
    this.ready.settle();
    if (hold === undefined && index !== Status.BUSY) throw errorOf(index, `acquire (${mode})`, this);
    return hold;
  }

  /** Once more, after a look whether those who hold it are alive. */
  tryAgain(way: number, mode: LockMode): Hold | undefined {
    this.look(`acquire (${mode})`);
    return this.tryNow(way, mode);
  }

  look(wanted: string): void {
    const status = this.native.binding.look(this.open());
    this.ready.settle();
    if (status !== Status.OK) throw errorOf(status, wanted, this);
  }

  /** Blocks for up to a second if a process was stopped in the middle of a change. */
  snapshot(processes = false): LockSnapshot {
    const infos = this.native.binding.query(this.open(), true);
    this.ready.settle(); // it may have found somebody dead
    return this.snapshotOf(infos, processes);
  }

  /**
   * Who holds it.
   * @param stopped is given those that do not run
   * @throws {LockError} `ERR_LOCK_TIMEOUT` where that can not be seen at once
   */
  holders(stopped?: Set<LockInfo>): LockInfo[] {
    const infos = this.native.binding.query(this.open(), false);
    this.ready.settle();
    const { held } = this.snapshotOf(infos);
    if (stopped === undefined) return held;
    const tell = processTeller(this.native, false);
    for (const [index, holder] of held.entries()) {
      if (tell((infos as NativeInfo[])[index] as NativeInfo).stopped === true) stopped.add(holder);
    }
    return held;
  }

  /** For how long this thread has held it so; of several holds, the oldest one. */
  heldMs(mode: LockMode): number {
    const infos = this.native.binding.query(this.open(), false);
    if (typeof infos === 'number') return 0;
    const isOurs = (info: NativeInfo): boolean =>
      info.pid === process.pid && info.threadId === threadId && info.exclusive === (mode === 'exclusive');
    const from = infos.filter(isOurs).reduce((oldest, { since }) => Math.min(oldest, since), Infinity);
    return Math.max(Date.now() - from, 0);
  }

  /** A place in its queue. */
  enqueue(way: number, how: number): number {
    return this.native.enqueue(keyOf(this.open(), way), how);
  }

  /** The cycle that a wait was told of, from it back to itself; none: it goes on. */
  cycleOf(index: number): LockInfo[] {
    const infos = this.native.binding.cycleOf(index);
    if (typeof infos === 'number' || infos.length === 0) return [];
    const cycle = infos.map((info) => this.info(info));
    return [...cycle, cycle[0] as LockInfo];
  }

  /** The names of the locks of its namespace that are waited for in cycles. */
  locksInCycles(): string[] {
    const names = this.native.binding.locksInCycles(this.open());
    this.ready.settle();
    if (typeof names === 'number') throw errorOf(names, 'query', this);
    return names;
  }

  /** How many wait ahead of that wait, if it can be seen at once. */
  placeOf(wait: number): number | undefined {
    const place = this.native.binding.place(wait);
    return place < 0 ? undefined : place;
  }

  steal(way: number): number {
    return this.native.binding.steal(keyOf(this.open(), way));
  }

  /** Whether this thread holds it, in whatever way. */
  isHeldByThread(): boolean {
    return this.native.binding.heldByThread(this.open()) !== 0;
  }

  /** All locks of this one's namespace. */
  snapshotOfAll(processes = false): LockSnapshot {
    const infos = this.native.binding.queryAll(this.open());
    this.ready.settle();
    return this.snapshotOf(infos, processes);
  }

  /** The locks of its namespace that a dead holder has left, by name. */
  marks(): Map<string, Abandoned> {
    const marks = this.native.binding.marks(this.open());
    this.ready.settle();
    if (typeof marks === 'number') throw errorOf(marks, 'query', this);
    return new Map(marks.map(({ abandoned, name }) => [name, abandonedOf(abandoned)]));
  }

  private snapshotOf(infos: NativeInfo[] | number, processes = false): LockSnapshot {
    if (typeof infos === 'number') throw errorOf(infos, 'query', this);
    const tell = processes ? processTeller(this.native, true) : undefined;
    const held: LockInfo[] = [];
    const pending: LockInfo[] = [];
    for (const info of infos) (info.pending ? pending : held).push(this.info(info, tell));
    return { held, pending };
  }

  /**
   * @param recentlyMs how old the last look may be, if it is to be relied on
   * @throws {LockError} `ERR_LOCK_NAMESPACE_REMOVED` if newcomers would find another namespace than that of this lock
   */
  checkNamespace(recentlyMs: number): void {
    const time = now();
    if (time - this.lookedMs < recentlyMs) return;
    this.lookedMs = time;
    const status = this.native.binding.check(this.open());
    this.ready.settle(); // its waits are over
    if (status !== Status.OK) throw errorOf(status, 'enter the namespace of', this);
  }

  /** Whether the namespace was deleted since. */
  isGone(): boolean {
    return this.id !== ASLEEP && this.native.binding.check(this.id) !== Status.OK;
  }

  /** How many flights of it were finished; it begins anew at 0. */
  flights(): number {
    return this.native.binding.flights(this.open());
  }

  /** The token of the last exclusive grant, to whomever, if it can be read. */
  lastToken(): bigint | undefined {
    return this.native.lastToken(this.open());
  }

  private info(info: NativeInfo, tell?: (info: NativeInfo) => ProcessDetails): LockInfo {
    return {
      name: info.name ?? this.name,
      mode: info.exclusive ? 'exclusive' : 'shared',
      clientId: clientIdOf(info),
      pid: info.pid,
      threadId: info.threadId,
      since: new Date(info.since),
      ...tell?.(info),
    };
  }
}

/** Sync calls belong to the JavaScript thread that makes them. */
export const threadOwner: Owner = {
  find: (record) => {
    const hold = (record as LockRecord).threadHold();
    return hold === undefined || hold.wasLost() ? undefined : hold;
  },
  // Its record forgets it when it ends.
  add: (hold) => (hold.record as LockRecord).setThreadHold(hold as Hold),
  forget: () => {},
};

/** Unique on the machine: a pid alone is not, across PID namespaces and reuse. */
function clientIdOf(info: NativeInfo): string {
  return [info.pidNamespace, info.pid, info.startTime, info.threadId]
    .map((part) => part.toString(36))
    .join('-');
}
