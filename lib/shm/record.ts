// The locks that are open in this thread.
import type { Owner } from '../common/owner';
import type { LockInfo, LockMode, LockSnapshot } from '../common/types';
import { ATTENTION, keyOf, type Native, type NativeInfo } from './binding';
import { errorOf, Status } from './errors';
import { type Hold, Holds, type LockOfHold } from './hold';
import { Ready } from './ready';

/** One lock as this thread knows it, shared by all handles of its name; closed when neither handle nor hold is left. */
export class LockRecord implements LockOfHold {
  readonly ready: Ready;
  readonly holds: Holds;
  private readonly native: Native;
  private users = 0;
  private sync: Hold | undefined;

  constructor(
    private readonly records: Records,
    readonly name: string,
    readonly segment: string,
    readonly id: number,
  ) {
    this.ready = records.ready;
    this.native = this.ready.native;
    this.holds = records.holds;
  }

  /** Counts one user, who is to call {@link leave}. */
  addUser(): void {
    this.users++;
  }

  leave(): void {
    if (--this.users > 0) return;
    this.records.close(this);
  }

  threadHold(): Hold | undefined {
    return this.sync;
  }

  setThreadHold(hold: Hold): void {
    this.sync = hold;
  }

  /** To be called when a hold of this lock ends. */
  forgetHold(hold: Hold): void {
    if (this.sync === hold) this.sync = undefined;
    this.leave();
  }

  key(mode: LockMode, fair: boolean): number {
    return keyOf(this.id, mode === 'exclusive', fair);
  }

  /** Takes the lock if it is free. `key` says the same as `mode`, and whether strictly in order. */
  tryNow(key: number, mode: LockMode): Hold | undefined {
    const index = this.native.tryAcquire(key);
    if (index >= 0 && index < ATTENTION) return this.holds.at(index).begin(this, mode);
    // The grant first: settling makes native calls, and they write the report.
    const hold = index >= 0 ? this.holds.granted(this, index & ~ATTENTION, mode) : undefined;
    this.ready.settle();
    if (hold === undefined && index !== Status.BUSY) throw errorOf(index, `acquire (${mode})`, this);
    return hold;
  }

  /** Once more, after a look whether those who hold it are alive. */
  tryAgain(key: number, mode: LockMode): Hold | undefined {
    const status = this.native.binding.look(this.id);
    this.ready.settle();
    if (status !== Status.OK) throw errorOf(status, `acquire (${mode})`, this);
    return this.tryNow(key, mode);
  }

  /** @param patient whether to block for up to a second if a process was stopped in the middle of a change */
  snapshot(patient: boolean): LockSnapshot {
    const infos = this.native.binding.query(this.id, patient);
    this.ready.settle(); // it may have found somebody dead
    return this.snapshotOf(infos);
  }

  /** All locks of this one's namespace. */
  snapshotOfAll(): LockSnapshot {
    const infos = this.native.binding.queryAll(this.id);
    this.ready.settle();
    return this.snapshotOf(infos);
  }

  private snapshotOf(infos: NativeInfo[] | number): LockSnapshot {
    if (typeof infos === 'number') throw errorOf(infos, 'query', this);
    return {
      held: infos.filter((info) => !info.pending).map((info) => this.info(info)),
      pending: infos.filter((info) => info.pending).map((info) => this.info(info)),
    };
  }

  /** @throws {LockError} `ERR_LOCK_NAMESPACE_REMOVED` if newcomers would find another namespace than that of this lock */
  checkNamespace(): void {
    const status = this.native.binding.check(this.id);
    this.ready.settle(); // its waits are over
    if (status !== Status.OK) throw errorOf(status, 'enter the namespace of', this);
  }

  /** Whether the namespace was deleted since. */
  isGone(): boolean {
    return this.native.binding.check(this.id) !== Status.OK;
  }

  private info(info: NativeInfo): LockInfo {
    return {
      name: info.name ?? this.name,
      mode: info.exclusive ? 'exclusive' : 'shared',
      clientId: clientIdOf(info),
      pid: info.pid,
      threadId: info.threadId,
      since: new Date(info.since),
    };
  }
}

/** All locks that are open in this thread. */
export class Records {
  readonly ready = new Ready();
  readonly holds = new Holds(this.ready);
  private readonly open = new Map<string, LockRecord>();

  /** The lock of this name, with one user more. */
  enter(name: string, segment: string, group: number): LockRecord {
    const key = keyInMap(segment, name);
    let record = this.open.get(key);
    // A namespace that was deleted since is left to those who still use it; a new handle enters the new one.
    if (record === undefined || record.isGone()) {
      const { native } = this.ready;
      const id = native.binding.openLock(segment, group, name);
      if (id < 0) throw errorOf(id, 'open', { name, segment }, native.failure());
      record = new LockRecord(this, name, segment, id);
      this.open.set(key, record);
    }
    record.addUser();
    return record;
  }

  /** Nobody uses this one any more. */
  close(record: LockRecord): void {
    const key = keyInMap(record.segment, record.name);
    if (this.open.get(key) === record) this.open.delete(key);
    this.ready.native.binding.closeLock(record.id);
  }
}

function keyInMap(segment: string, name: string): string {
  return `${segment}\0${name}`;
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

/** The segment of a namespace; `group` is a gid, or -1 for this user alone. */
export function segmentOf(namespace: string, group: number): string {
  return `/proclock-${group < 0 ? process.geteuid?.() : `g${group}`}-${namespace}`;
}

/** Unique on the machine: a pid alone is not, across PID namespaces and reuse. */
function clientIdOf(info: NativeInfo): string {
  return [info.pidNamespace, info.pid, info.startTime, info.threadId]
    .map((part) => part.toString(36))
    .join('-');
}
