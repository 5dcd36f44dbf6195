// What the command `proclock` does with shared memory beyond what programs do with locks: all namespaces of a user, what is in
// them, those that nobody uses, and programs that end with us.
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { LockError } from '../common/errors';
import type { Abandoned, LockInfo } from '../common/types';
import { load, nativeFile, segmentOf } from './binding';
import { errorOf, Status } from './errors';
import type { LockRecord } from './record';
import { records } from './thread';

const NAMESPACE = /^[A-Za-z0-9._-]{1,64}$/;

/** The file of a namespace. */
export interface Segment {
  readonly file: string;
  readonly namespace: string;
  /** -1: of a user. */
  readonly group: number;
}

/** What is in a namespace. */
export interface SegmentContent {
  readonly held: readonly LockInfo[];
  readonly pending: readonly LockInfo[];
  /** What dead holders have left, by the lock's name. */
  readonly abandoned: ReadonlyMap<string, Abandoned>;
  /** The names of the locks that are waited for in circles. */
  readonly deadlocks: ReadonlySet<string>;
}

/** The binary, and what of others it can share memory with. */
export function describeNative(): { file: string; layoutVersion: number; abi: number } {
  const { abi, layoutVersion } = load();
  return { file: nativeFile(), layoutVersion, abi };
}

/** The file of a namespace. */
export function fileOf(namespace: string, group = -1): string {
  return load().segmentFile(segmentOf(namespace, group));
}

/** Where those of this user are. */
export function folderOfUser(): string {
  return dirname(fileOf('default'));
}

/** Those of this user, and of the groups that it is in, by name. */
export function segmentsOfUser(): Segment[] {
  const groups = new Set([process.getegid?.() ?? -1, ...(process.getgroups?.() ?? [])]);
  const segments = [-1, ...groups].flatMap((group) => segmentsOf(group));
  return segments.sort((a, b) => (a.file < b.file ? -1 : 1));
}

function segmentsOf(group: number): Segment[] {
  const native = load();
  const fileAt = (namespace: string): string => native.segmentFile(segmentOf(namespace, group));
  const folder = dirname(fileAt(''));
  const prefix = basename(fileAt(''));
  const segments: Segment[] = [];
  for (const name of readdirSync(folder)) {
    if (!name.startsWith(prefix)) continue;
    // A file system that does not tell A from a has `+a` for it.
    const namespace = name.slice(prefix.length).replace(/\+([a-z])/g, (_, letter) => letter.toUpperCase());
    const file = `${folder}/${name}`;
    if (NAMESPACE.test(namespace) && fileAt(namespace) === file) segments.push({ file, namespace, group });
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

const NOTHING: SegmentContent = { held: [], pending: [], abandoned: new Map(), deadlocks: new Set() };

/**
 * What is in a namespace: nothing, if it was removed meanwhile, or to enter it would make it anew. To look at it enters it for as
 * long as the process lives.
 * @throws {LockError} if it can not be entered, or what is in there is not possible
 */
export function contentOf({ group, namespace }: Segment): SegmentContent {
  let record: LockRecord;
  try {
    record = records().enter('', namespace, group, false);
  } catch (error) {
    if ((error as LockError).code === 'ERR_LOCK_NAMESPACE_REMOVED') return NOTHING;
    throw error;
  }
  try {
    return {
      ...record.snapshotOfAll(true),
      abandoned: record.marks(),
      deadlocks: new Set(record.locksInCycles()),
    };
  } finally {
    record.leave();
  }
}

/**
 * Removes a namespace that nobody is attached to. Without `remove` it only says whether it would.
 * @returns false if somebody is attached, or it is gone already
 * @throws {LockError} if it is not ours to remove
 */
export function prune({ file, group, namespace }: Segment, remove: boolean): boolean {
  const status = load().prune(segmentOf(namespace, group), group, remove);
  if (status === Status.OK) return true;
  if (status === Status.BUSY || status === Status.REMOVED) return false;
  throw errorOf(status, 'prune', { name: '', file }) as LockError;
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

/** Whether the keys of the terminal send their signals to this process. */
export function isInForeground(): boolean {
  return load().isInForeground();
}
