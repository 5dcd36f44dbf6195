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
    readonly space: Space,
    readonly id: number,
  ) {
    this.ready = records.ready;
    this.native = this.ready.native;
    this.holds = records.holds;
  }

  get segment(): string {
    return this.space.segment;
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

/** A namespace in which locks of this thread are open. */
interface Space {
  readonly namespace: string;
  readonly group: number;
  readonly segment: string;
  /** By name. */
  readonly records: Map<string, LockRecord>;
}

/** All locks that are open in this thread. */
export class Records {
  readonly ready = new Ready();
  readonly holds = new Holds(this.ready);
  /** By namespace: those of this user. */
  private readonly own = new Map<string, Space>();
  /** By group id and namespace. */
  private readonly ofGroups = new Map<string, Space>();

  /** The lock of this name, with one user more; `group` is a gid, or -1 for this user alone. */
  enter(name: string, namespace: string, group: number): LockRecord {
    const space = this.spaceOf(namespace, group);
    let record = space.records.get(name);
    // A namespace that was deleted since is left to those who still use it; a new handle enters the new one.
    if (record === undefined || record.isGone()) {
      const { native } = this.ready;
      const id = native.binding.openLock(space.segment, group, name);
      if (id < 0) throw errorOf(id, 'open', { name, segment: space.segment }, native.failure());
      record = new LockRecord(this, name, space, id);
      space.records.set(name, record);
      this.spaces(group).set(keyOfSpace(namespace, group), space);
    }
    record.addUser();
    return record;
  }

  /** Nobody uses this one any more. */
  close(record: LockRecord): void {
    const { space, name, id } = record;
    if (space.records.get(name) === record) space.records.delete(name);
    if (space.records.size === 0) this.spaces(space.group).delete(keyOfSpace(space.namespace, space.group));
    this.ready.native.binding.closeLock(id);
  }

  /**
   * The namespace as it is open already: a program that has become another user since goes on in that of the former one,
   * or a name would have two holders in one process.
   */
  private spaceOf(namespace: string, group: number): Space {
    return (
      this.spaces(group).get(keyOfSpace(namespace, group)) ?? {
        namespace,
        group,
        segment: `/proclock-${group < 0 ? process.geteuid?.() : `g${group}`}-${namespace}`,
        records: new Map(),
      }
    );
  }

  private spaces(group: number): Map<string, Space> {
    return group < 0 ? this.own : this.ofGroups;
  }
}

function keyOfSpace(namespace: string, group: number): string {
  return group < 0 ? namespace : `${group} ${namespace}`;
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
