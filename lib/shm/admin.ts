// What the command `proclock` does with shared memory beyond what programs do with locks: all namespaces of a user, what is in
// them, those that nobody uses, and programs that end with us.
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import type { LockError } from '../common/errors';
import type { Abandoned, LockInfo } from '../common/types';
import { load, nativeFile } from './binding';
import { errorOf, Status } from './errors';
import { records } from './thread';

const FOLDER = '/dev/shm';
const SEGMENT = /^proclock-(g?)(\d+)-([A-Za-z0-9._-]{1,64})$/;

/** The file of a namespace. */
export interface Segment {
  readonly file: string;
  readonly namespace: string;
  /** -1: of a user. */
  readonly group: number;
}

/** One lock, as all see it. */
export interface LockState {
  readonly namespace: string;
  readonly group?: number;
  readonly name: string;
  readonly held: LockInfo[];
  readonly pending: LockInfo[];
  readonly abandoned: Abandoned | null;
  readonly deadlock: boolean;
}

/** The binary, and what of others it can share memory with. */
export function describeNative(): { file: string; layoutVersion: number; abi: number } {
  const { abi, layoutVersion } = load();
  return { file: nativeFile(), layoutVersion, abi };
}

/** Those of this user, and of the groups that it is in, by name. */
export function segmentsOfUser(): Segment[] {
  const groups = new Set([process.getegid?.(), ...(process.getgroups?.() ?? [])]);
  const user = process.geteuid?.();
  const segments: Segment[] = [];
  for (const file of readdirSync(FOLDER).sort()) {
    const match = SEGMENT.exec(file);
    if (match === null) continue;
    const [, ofGroup, id, namespace] = match as unknown as [string, string, string, string];
    if (ofGroup !== '' ? !groups.has(Number(id)) : Number(id) !== user) continue;
    segments.push({ file: `${FOLDER}/${file}`, namespace, group: ofGroup !== '' ? Number(id) : -1 });
  }
  return segments;
}

/** What the head of a segment says. `undefined`: it is none of ours to read, or was never used. */
export function layoutOf({ file }: Segment): { version: number; abi: number } | undefined {
  const head = Buffer.alloc(16);
  try {
    if (!statSync(file).isFile()) return undefined;
    const fd = openSync(file, 'r');
    try {
      if (readSync(fd, head, 0, head.length, 0) < head.length) return undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
  if (head.readBigUInt64LE(0) === 0n) return undefined;
  return { version: head.readUInt32LE(8), abi: head.readUInt32LE(12) };
}

/**
 * Every lock of a namespace that is held, waited for, or left by a dead holder. To look at it enters it for as long as the
 * process lives; what has another layout is left alone.
 * @throws {LockError} if it can not be entered
 */
export function locksOf(segment: Segment): LockState[] {
  const { group, namespace } = segment;
  const layout = layoutOf(segment);
  const own = load();
  if (layout?.version !== own.layoutVersion || layout.abi !== own.abi) return [];
  const record = records().enter('', namespace, group);
  try {
    const { held, pending } = record.snapshotOfAll(true);
    const marks = record.marks();
    const deadlocks = new Set(record.locksInCycles());
    const names = new Set([...held, ...pending].map(({ name }) => name));
    for (const name of marks.keys()) names.add(name);
    return [...names].sort().map((name) => ({
      namespace,
      ...(group >= 0 && { group }),
      name,
      held: held.filter((info) => info.name === name),
      pending: pending.filter((info) => info.name === name),
      abandoned: marks.get(name) ?? null,
      deadlock: deadlocks.has(name),
    }));
  } finally {
    record.leave();
  }
}

/**
 * Removes a namespace that nobody is attached to. Without `remove` it only says whether it would.
 * @returns false if somebody is attached, or it is gone already
 * @throws {LockError} if it is not ours to remove
 */
export function prune({ file, group }: Segment, remove: boolean): boolean {
  const segment = file.slice(FOLDER.length);
  const status = load().prune(segment, group, remove);
  if (status === Status.OK) return true;
  if (status === Status.BUSY || status === Status.REMOVED) return false;
  throw errorOf(status, 'prune', { name: '', segment }) as LockError;
}

/** Starts a program that is killed when this process ends: its pid, or an errno below 0. */
export function startEnding(argv: readonly string[], env: NodeJS.ProcessEnv): number {
  return load().startEnding(
    argv,
    Object.entries(env).map(([name, value]) => `${name}=${value}`),
  );
}

/** How a program that was started so has ended: its exit code, or 256 + its signal; -1: it runs. */
export function reap(pid: number): number {
  return load().reap(pid);
}
