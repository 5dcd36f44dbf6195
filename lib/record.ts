import { ATTENTION, keyOf, type NativeInfo, tryAcquire } from './binding';
import { errorOf, Status, type Subject } from './errors';
import { granted, type Hold, holdAt } from './hold';
import { settleReady, thread } from './thread';
import type { LockInfo, LockMode, LockSnapshot } from './types';

const records = new Map<string, LockRecord>();

/** One lock as this thread knows it, shared by all handles of its name; closed when neither handle nor hold is left. */
export class LockRecord implements Subject {
  private users = 0;
  private sync: Hold | undefined;

  private constructor(
    readonly name: string,
    readonly segment: string,
    readonly id: number,
  ) {}

  /** Counts one user, who is to call {@link leave}. */
  static enter(name: string, segment: string, group: number): LockRecord {
    const key = `${segment}\0${name}`;
    let record = records.get(key);
    // A namespace that was deleted since is left to those who still use it; a new handle enters the new one.
    if (record === undefined || record.isGone()) {
      const id = thread().binding.openLock(segment, group, name);
      if (id < 0) throw errorOf(id, 'open', { name, segment }, thread().failure());
      record = new LockRecord(name, segment, id);
      records.set(key, record);
    }
    record.users++;
    return record;
  }

  enter(): void {
    this.users++;
  }

  leave(): void {
    if (--this.users > 0) return;
    const key = `${this.segment}\0${this.name}`;
    if (records.get(key) === this) records.delete(key);
    thread().binding.closeLock(this.id);
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
    const index = tryAcquire(key);
    if (index >= 0 && index < ATTENTION) return holdAt(index).begin(this, mode);
    // The grant first: settling makes native calls, and they write the report.
    const hold = index >= 0 ? granted(this, index & ~ATTENTION, mode) : undefined;
    settleReady();
    if (hold === undefined && index !== Status.BUSY) throw errorOf(index, `acquire (${mode})`, this);
    return hold;
  }

  /** Once more, after a look whether those who hold it are alive. */
  tryAgain(key: number, mode: LockMode): Hold | undefined {
    const status = thread().binding.look(this.id);
    settleReady();
    if (status !== Status.OK) throw errorOf(status, `acquire (${mode})`, this);
    return this.tryNow(key, mode);
  }

  /** @param patient whether to block for up to a second if a process was stopped in the middle of a change */
  snapshot(patient: boolean): LockSnapshot {
    const infos = thread().binding.query(this.id, patient);
    settleReady(); // it may have found somebody dead
    return this.snapshotOf(infos);
  }

  /** All locks of this one's namespace. */
  snapshotOfAll(): LockSnapshot {
    const infos = thread().binding.queryAll(this.id);
    settleReady();
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
    const status = thread().binding.check(this.id);
    settleReady(); // its waits are over
    if (status !== Status.OK) throw errorOf(status, 'enter the namespace of', this);
  }

  private isGone(): boolean {
    return thread().binding.check(this.id) !== Status.OK;
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
