// The one loader of the native part, and the one statement of what it offers.
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isAbsolute, join } from 'node:path';
import { threadId } from 'node:worker_threads';
import type { LockMode } from '../common/types';
import { followForks } from '../local/epoch';
import { bundledError, missingNativeError, type OpenFailure, unusableNativeError } from './errors';

/** A hold or wait as the native part reports it. */
export interface NativeInfo {
  readonly pending: boolean;
  readonly exclusive: boolean;
  readonly pid: number;
  readonly startTime: number;
  readonly pidNamespace: number;
  readonly threadId: number;
  readonly since: number;
  /** Of its lock; not said by `query`. */
  readonly name?: string;
}

/** pid, threadId, since in ms, token */
export type AbandonedTuple = [number, number, number, bigint];

/** A lock that a dead holder has left. */
export interface NativeMark {
  readonly name: string;
  readonly abandoned: AbandonedTuple;
}

/**
 * The native surface. Numbers >= 0 are results, numbers below are a `Status`. A *key* is a lock's id and how it is
 * wanted (see `wayOf`); a *hold* is a small integer that names one hold or wait of this thread until it ends.
 */
export interface NativeBinding {
  /** What calls say beyond their result: see `Report`. */
  readonly report: ArrayBuffer;
  /**
   * Opens a name in a segment; `group` is a gid, or -1. Returns an id. REMOVED: there is no such segment, and none was to be made.
   */
  openLock(segment: string, group: number, make: boolean, name: string): number;
  /** [errno, layout version found, ABI found] of the last `openLock` that failed. */
  failure(): [number, number, number];
  closeLock(id: number): number;
  /** Whether the namespace of this lock is still the one that newcomers find. */
  check(id: number): number;

  /** Takes the lock if it is free. Never waits. Key and hold pass through the report: call `Native.tryAcquire`. */
  tryAcquire(): void;
  /** Queues. `report[GRANTED]` tells whether it was granted at once. Arguments and hold pass through the report: call `Native.enqueue`. */
  enqueue(): void;
  /** Tries again, after a poke: OK (granted, or upgraded), AGAIN, or why the wait is over. */
  react(hold: number): number;
  /** Blocks for at most 50 ms: OK (granted), AGAIN, or why the wait is over. */
  wait(hold: number, timeoutMs: number): number;
  withdraw(hold: number): number;
  /** Takes the lock exclusively from whoever holds it, in whatever process: a hold. */
  steal(key: number): number;
  /** Has this hold become ready when it is stolen. STOLEN: it was already. */
  listen(hold: number): number;
  /** OK or STOLEN. */
  checkHold(hold: number): number;
  /** Hold and status pass through the report: call `Native.release`. */
  release(): void;
  downgrade(hold: number): number;
  /** Shared to exclusive, if nobody else holds: OK, BUSY, UPGRADING (another one waits to be upgraded), .. */
  tryUpgrade(hold: number): number;
  /** The same, but waits instead of BUSY: AGAIN, until `react` says otherwise, or `withdraw` gives it up. */
  upgrade(hold: number): number;
  abandoned(hold: number): AbandonedTuple | undefined;
  /** What the dead holder left is repaired: its mark goes. */
  finishRepair(hold: number): number;
  /** Counts what this exclusive hold did as a finished flight. */
  finishFlight(hold: number): number;
  /** How many flights of this lock were finished. */
  flights(id: number): number;

  /** Looks whether somebody who holds this lock, or waits for it, is dead. */
  look(id: number): number;
  heldByThread(id: number): number;
  /** `whole`: holders and waiters, with a second of patience for a stalled latch; otherwise the holders, with 5 ms. */
  query(id: number, whole: boolean): NativeInfo[] | number;
  /** All locks of the namespace of this one. */
  queryAll(id: number): NativeInfo[] | number;
  /** A number for one context of this thread. */
  newContext(unused: 0): number;
  /** 1: somebody waits for the lock of this hold. */
  isWanted(hold: number): number;
  /** This hold belongs to no context any more. */
  leaveContext(hold: number): number;
  /**
   * For a wait that has lasted a second: looks for a cycle of waits through it. `owned`: the context and the index of each hold
   * that the owner of the wait has, from the inside out. Returns whether to look again soon. `report[TOLD]`: see {@link Told}.
   */
  lookForCycle(wait: number, owned: readonly number[]): boolean;
  /**
   * For many waits that are to look at the same time: first each says what its owner holds, as to `lookForCycle`. Returns false if
   * nobody waits for any of that.
   */
  sayContexts(wait: number, owned: readonly number[]): boolean;
  /**
   * Then, those of this thread's waits that are in cycles, if there are any: only they need look. `report[TOLD]`: `Told.UNKNOWN` if
   * not all could be looked at, since a process is stopped in the latch of their namespace.
   */
  waitsInCycles(): number[];
  /** The waits of the cycle that this one was told of, from it on; none: it goes on. */
  cycleOf(wait: number): NativeInfo[] | number;
  /** The names of the locks in the namespace of this one that are waited for in cycles. */
  locksInCycles(id: number): string[] | number;
  /** The locks of the namespace of this one that a dead holder has left. */
  marks(id: number): NativeMark[] | number;
  /** How many wait ahead of this wait. */
  place(hold: number): number;
  /** The next hold that was poked, or was listened for and stolen: call `Native.nextReady`. */
  nextReady(): void;
  /** Does what could not be done because a process was stopped in the guard; how many holds are left with such work. */
  settleOwed(unused: 0): number;
  /** Does what the native thread would do, where none can be had (`report[UNSERVED]`); 1: it need not be called again. */
  serve(unused: 0): number;
  /** Whether pending waits keep the event loop running. */
  keepAlive(on: boolean): void;
  /** OK: `report` says the token of the last exclusive grant of this lock. Call `Native.lastToken`. */
  lastToken(id: number): number;
  /** -1: no such group. Otherwise below 0: the errno for which that can not be found out. */
  groupId(name: string): number;
  /** The segment `prefix<number>suffix` in which a thread of this process has locks open; `''`: there is none. */
  segmentInUse(prefix: string, suffix: string): string;
}

/** What the addon exports. */
export interface NativeModule {
  readonly supported: boolean;
  readonly layoutVersion: number;
  readonly abi: number;
  /** Where a segment is; `''` where that can not be told. */
  segmentFile(segment: string): string;
  /** A binding for this thread. `onReady` is called when waits that were begun through it were poked. */
  open(threadId: number, onReady: () => void): NativeBinding;
  /** Removes the file of a namespace if nobody is alive in it: a status. Without `remove` it only says whether it could. */
  prune(segment: string, group: number, remove: boolean): number;
  /** Starts a program that is killed when this process ends: its pid, or an errno below 0. */
  startEnding(argv: readonly string[], env: readonly string[]): number;
  /** How a program that was started so has ended: its exit code, or 256 + its signal; -1: it runs. */
  reap(pid: number): number;
  /**
   * Whether a process stands still, and its arguments with a NUL after each (empty: they were not wanted, or may not be read).
   * `undefined` if it is not there any more, another one has its pid, or nothing can be told.
   */
  lookAt(
    pid: number,
    startTime: number,
    pidNamespace: number,
    withCommand: boolean,
  ): [stopped: boolean, command: string] | undefined;
  /** Whether the keys of the terminal send their signals to this process. */
  isInForeground(): boolean;
}

/** Indices into the report: what a native call says beyond its result. */
export const Report = {
  TOKEN_LOW: 0,
  TOKEN_HIGH: 1,
  ABANDONED: 2,
  READY: 3,
  GRANTED: 4,
  OWED: 5,
  ARGUMENT: 6,
  RESULT: 7,
  FORKS: 8,
  UNSERVED: 9,
  MARKS_DROPPED: 10,
  TOLD: 11,
  HOW: 12,
  TRIED: 13,
} as const;

export function tokenOf(high: number, low: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

/** How to wait. */
export const How = { ASYNC: 1, ENDS: 2, THROWS: 4 } as const;

/** What a wait is told of a cycle that it is in, when it has tried again in vain, or has looked; `UNKNOWN`: see `waitsInCycles`. */
export const Told = { VICTIM: 1, WARNS: 2, UNKNOWN: 4 } as const;

/** The name of a segment, as the native part takes it; `group` is a gid, or -1 for this user. */
export function segmentOf(namespace: string, group: number): string {
  return group < 0 ? `/proclock-${process.geteuid?.()}-${namespace}` : `/proclock-g${group}-${namespace}`;
}

/** How a lock is wanted: what makes a key of its id. */
export function wayOf(mode: LockMode, fair: boolean): number {
  return (fair ? 2 : 0) | (mode === 'exclusive' ? 1 : 0);
}

export function keyOf(id: number, way: number): number {
  return (id << 2) | way;
}

/**
 * The folder of the package.
 * @throws {LockError} if this code is not there, but in a bundle: what is in the folders around that is somebody else's
 */
function packageFolder(): string {
  // Bundlers make programs in which there is neither __filename nor __dirname.
  const file = typeof __filename === 'string' ? __filename : 'an ES module';
  if (!isAbsolute(file) || !/[\\/](dist|lib)[\\/]shm[\\/]binding\.[jt]s$/.test(file))
    throw bundledError(file);
  return join(__dirname, '../..');
}

// Not our own `require`: what is loaded first by a file keeps that file for ever, in a program that loads us anew.
const requireFrom = (folder: string): NodeJS.Require => createRequire(join(folder, 'package.json'));

/**
 * The file of the native part.
 * @throws {LockError} `ERR_LOCK_UNSUPPORTED`
 */
export function nativeFile(): string {
  const folder = packageFolder();
  return find(folder, requireFrom(folder));
}

/** @throws {LockError} `ERR_LOCK_UNSUPPORTED` */
export function load(): NativeModule {
  const folder = packageFolder();
  const requireForAll = requireFrom(folder);
  const file = find(folder, requireForAll);
  let module: NativeModule;
  try {
    module = requireForAll(file) as NativeModule;
  } catch (cause) {
    throw unusableNativeError(folder, file, cause);
  }
  if (!module.supported) throw unusableNativeError(folder, file, undefined);
  return module;
}

/** The binary in prebuilds/ or build/. It is looked for at run time, so that a bundler leaves it alone. */
function find(folder: string, requireForAll: NodeJS.Require): string {
  // Every Linux but Alpine is one with glibc to node-gyp-build, unless it is told; it reads this when it is loaded.
  const told = process.env.LIBC;
  const musl = told === undefined ? usesMusl() : told === 'musl';
  if (musl) process.env.LIBC = 'musl';
  try {
    return requireForAll('node-gyp-build').resolve(folder);
  } catch (cause) {
    const { code, resource } = cause as NodeJS.ErrnoException & { resource?: string };
    if (code === 'ERR_ACCESS_DENIED') throw unusableNativeError(folder, resource ?? folder, cause);
    const libc = process.platform === 'linux' ? (musl ? '.musl' : '.glibc') : '';
    const lookedFor = [
      `prebuilds/${process.platform}-${process.arch}/proclock${libc}.node`,
      'build/Release/proclock.node',
    ];
    throw missingNativeError(folder, lookedFor, existsSync(join(folder, 'prebuilds')), cause);
  } finally {
    if (told === undefined) delete process.env.LIBC;
  }
}

/** In the headers of an ELF executable: where the name of its loader is. */
const PT_INTERP = 3;

/** Whether this process was started by musl's loader. */
function usesMusl(): boolean {
  if (process.platform !== 'linux') return false;
  try {
    const fd = openSync(process.execPath, 'r');
    try {
      const read = (position: number, length: number): Buffer => {
        const bytes = Buffer.alloc(length);
        readSync(fd, bytes, 0, length, position);
        return bytes;
      };
      const elf = read(0, 64);
      if (elf[4] !== 2 || elf[5] !== 1) return false; // Not of 64 bits and little-endian, as all that have a binary are.
      const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
      const segments = read(Number(elf.readBigUInt64LE(32)), size * count);
      for (let at = 0; at < segments.length; at += size) {
        if (segments.readUInt32LE(at) !== PT_INTERP) continue;
        const [position, length] = [segments.readBigUInt64LE(at + 8), segments.readBigUInt64LE(at + 32)];
        return read(Number(position), Number(length)).includes('/ld-musl-');
      }
      return false;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false; // Not allowed to be read, as under --permission.
  }
}

/** Set in a hold or an OK that passes through the report if that has more to say: READY or ABANDONED. */
export const ATTENTION = 1 << 30;

/**
 * The native part as one thread sees it.
 *
 * V8 looks up the binding's functions by name at each call. Those that are called for each acquire are kept in fields; argument
 * and result go through the report, which halves the cost of a call.
 */
export class Native {
  private readonly report: Int32Array;
  private readonly callTryAcquire: () => void;
  private readonly callRelease: () => void;
  private readonly callEnqueue: () => void;
  private readonly callNextReady: () => void;

  private constructor(
    private readonly module: NativeModule,
    readonly binding: NativeBinding,
  ) {
    this.report = new Int32Array(binding.report);
    this.callTryAcquire = binding.tryAcquire;
    this.callRelease = binding.release;
    this.callEnqueue = binding.enqueue;
    this.callNextReady = binding.nextReady;
    followForks(this.report.subarray(Report.FORKS, Report.FORKS + 1));
  }

  /** Loads the native part, if that was not done, and opens it for this thread. */
  static open(onReady: () => void): Native {
    const module = load();
    return new Native(module, module.open(threadId, onReady));
  }

  /** Takes the lock if it is free: a hold, or a status. Never waits. */
  tryAcquire(key: number): number {
    const { report } = this;
    report[Report.ARGUMENT] = key;
    this.callTryAcquire();
    return report[Report.RESULT] as number;
  }

  /** Gives a hold back: a status. */
  release(hold: number): number {
    const { report } = this;
    report[Report.ARGUMENT] = hold;
    this.callRelease();
    return report[Report.RESULT] as number;
  }

  /** Queues: a hold, or a status. `how`: bits of {@link How}. */
  enqueue(key: number, how: number): number {
    const { report } = this;
    report[Report.ARGUMENT] = key;
    report[Report.HOW] = how;
    this.callEnqueue();
    const result = report[Report.RESULT] as number;
    return result < 0 ? result : result & ~ATTENTION;
  }

  /**
   * The next hold that was poked, or was listened for and stolen; -1: there is none. If it waits it has tried again, and
   * `report[TRIED]` says what came of it: OK (granted, or upgraded), AGAIN, or why the wait is over.
   */
  nextReady(): number {
    this.callNextReady();
    const result = this.report[Report.RESULT] as number;
    return result < 0 ? result : result & ~ATTENTION;
  }

  /** What the last call said beyond its result; `index` is one of {@link Report}. */
  reported(index: number): number {
    return this.report[index] as number;
  }

  /** The file of a segment. */
  fileOf(segment: string): string {
    return this.module.segmentFile(segment);
  }

  /** What is known of a process beyond its locks: see `NativeModule.lookAt`. */
  lookAt(
    { pid, pidNamespace, startTime }: NativeInfo,
    withCommand: boolean,
  ): [stopped: boolean, command: string] | undefined {
    return this.module.lookAt(pid, startTime, pidNamespace, withCommand);
  }

  /** The token of the last exclusive grant of a lock, to whomever, if it can be read. */
  lastToken(id: number): bigint | undefined {
    if (this.binding.lastToken(id) !== 0) return undefined;
    return tokenOf(this.reported(Report.TOKEN_HIGH), this.reported(Report.TOKEN_LOW));
  }

  /** Why the last `openLock` failed. */
  failure(): OpenFailure {
    const [errno, foundVersion, foundAbi] = this.binding.failure();
    const { layoutVersion, abi } = this.module;
    return { errno, foundVersion, foundAbi, ourVersion: layoutVersion, ourAbi: abi };
  }
}
