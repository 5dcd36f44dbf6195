// The namespaces in which this thread has locks open, and those locks.
import { warn } from '../common/warnings';
import { Report, segmentOf } from './binding';
import { errorOf, Status } from './errors';
import { Holds } from './hold';
import { Ready } from './ready';
import { LockRecord, type Opener, type Space } from './record';

/** How many records sleep at once when a namespace is full: so many that looking for them costs an open hardly anything. */
const SLEEPERS_MAX = 4096;

/** All locks that are open in this thread. */
export class Records implements Opener {
  readonly ready = new Ready();
  readonly holds = new Holds(this.ready);
  /** By namespace: those of this user. */
  private readonly own = new Map<string, Space>();
  /** By group id and namespace. */
  private readonly ofGroups = new Map<string, Space>();
  private hasWarnedOfMarks = false;

  /**
   * The lock of this name, with one user more; `group` is a gid, or -1 for this user alone.
   * @param make whether to make the namespace where there is none
   */
  enter(name: string, namespace: string, group: number, make = true): LockRecord {
    const space = this.spaceOf(namespace, group);
    let record = space.records.get(name);
    // A namespace that was deleted since is left to those who still use it; a new handle enters the new one.
    if (record === undefined || record.isGone()) {
      record = new LockRecord(this, name, space, this.openNative(space, name, make));
      space.records.set(name, record);
      this.spaces(group).set(keyOfSpace(namespace, group), space);
    }
    record.addUser();
    return record;
  }

  /** Nobody uses this one any more. */
  close(record: LockRecord): void {
    const { space, name } = record;
    if (space.records.get(name) === record) space.records.delete(name);
    if (space.records.size === 0) this.spaces(space.group).delete(keyOfSpace(space.namespace, space.group));
    record.closeNative();
  }

  /** The native lock of that name: its id. */
  openNative(space: Space, name: string, make = true): number {
    const { segment, file, group } = space;
    const { native } = this.ready;
    const open = (): number => native.binding.openLock(segment, group, make, name);
    let id = open();
    if (id === Status.CAPACITY && makeRoom(space)) id = open();
    this.warnOfDroppedMarks(file);
    if (id < 0) throw errorOf(id, 'open', { name, file }, native.failure());
    return id;
  }

  /** Says once that names made room whose holders had died: whoever opens such a name again is not told of that any more. */
  private warnOfDroppedMarks(file: string): void {
    if (this.hasWarnedOfMarks || this.ready.native.reported(Report.MARKS_DROPPED) === 0) return;
    this.hasWarnedOfMarks = true;
    warn(
      `${file} is full: the oldest \`abandoned\` marks of locks that nobody has open make room for new names. ` +
        'Open and repair what dead processes leave, or use fewer names',
      'PROCLOCK_ABANDONED_DROPPED',
    );
  }

  /**
   * The namespace as it is open already, here or in another thread: a program that has become another user since goes on in
   * that of the former one, or a name would have two holders in one process.
   */
  private spaceOf(namespace: string, group: number): Space {
    const known = this.spaces(group).get(keyOfSpace(namespace, group));
    if (known !== undefined) return known;
    const segment = this.segmentOf(namespace, group);
    return { namespace, group, segment, file: this.ready.native.fileOf(segment), records: new Map() };
  }

  private segmentOf(namespace: string, group: number): string {
    const inUse = group < 0 ? this.ready.native.binding.segmentInUse('/proclock-', `-${namespace}`) : '';
    return inUse !== '' ? inUse : segmentOf(namespace, group);
  }

  private spaces(group: number): Map<string, Space> {
    return group < 0 ? this.own : this.ofGroups;
  }
}

/**
 * Closes locks that nobody uses, natively. Garbage is among them: handles that were dropped are found by the garbage collector,
 * but their finalisers run when the event loop turns, and a loop that opens a lock for each key need not let it.
 * @returns whether there were any
 */
function makeRoom({ records }: Space): boolean {
  let sleepers = 0;
  let looks = records.size;
  for (const [name, record] of records) {
    if (looks-- === 0 || sleepers === SLEEPERS_MAX) break;
    if (record.sleep()) sleepers++;
    // To the end of the line, for the next time to begin with those that were not looked at.
    records.delete(name);
    records.set(name, record);
  }
  return sleepers > 0;
}

function keyOfSpace(namespace: string, group: number): string {
  return group < 0 ? namespace : `${group} ${namespace}`;
}
