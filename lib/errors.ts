// The only place where status codes become words.
import { constants } from 'node:os';
import type { LockInfo } from './types';

/** Every `code` that a {@link LockError} can have. */
export type LockErrorCode =
  | 'ERR_LOCK_TIMEOUT'
  | 'ERR_LOCK_NOT_REENTRANT'
  | 'ERR_LOCK_UPGRADE'
  | 'ERR_LOCK_NOT_HELD'
  | 'ERR_LOCK_WOULD_DEADLOCK'
  | 'ERR_LOCK_CLOSED'
  | 'ERR_LOCK_CAPACITY'
  | 'ERR_LOCK_NO_SPACE'
  | 'ERR_LOCK_PERMISSION'
  | 'ERR_LOCK_INCOMPATIBLE'
  | 'ERR_LOCK_CORRUPT'
  | 'ERR_LOCK_NAMESPACE_REMOVED'
  | 'ERR_LOCK_UNSUPPORTED';

/** What went wrong with a lock. Tell errors apart by {@link LockError.code}, never by their text. */
export class LockError extends Error {
  /** `'LockError'`. */
  override readonly name = 'LockError';
  /** What went wrong. */
  readonly code: LockErrorCode;
  /** With `ERR_LOCK_TIMEOUT`: who held the lock when the time was up. */
  declare readonly holders?: LockInfo[];

  constructor(code: LockErrorCode, message: string, details: { cause?: unknown; holders?: LockInfo[] } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.holders !== undefined) this.holders = details.holders;
  }
}

/** Results of native calls; the same values as `enum class Status` in native/status.h. */
export const Status = {
  OK: 0,
  BUSY: -1,
  CLOSED: -2,
  NOT_HELD: -3,
  CAPACITY: -4,
  NO_SPACE: -5,
  PERMISSION: -6,
  INCOMPATIBLE: -7,
  CORRUPT: -8,
  REMOVED: -9,
  TIMEOUT: -10,
  AGAIN: -11,
  SYSTEM: -12,
  STALLED: -13,
  STOLEN: -14,
} as const;

/** What an error message needs to know of the lock that it is about. */
interface Named {
  readonly name: string;
}
export interface Subject extends Named {
  readonly segment: string;
}

/** What the native part found when it could not enter a namespace. */
export interface OpenFailure {
  readonly errno: number;
  readonly foundVersion: number;
  readonly foundAbi: number;
  readonly ourVersion: number;
  readonly ourAbi: number;
}

const shown = (name: string): string => {
  const text = JSON.stringify(name);
  return text.length > 80 ? `${text.slice(0, 79)}…"` : text;
};

const file = (subject: Subject): string => `/dev/shm${subject.segment}`;

const libc = (abi: number): string => ({ 1: 'glibc', 2: 'musl' })[abi & 0xff] ?? 'an unknown libc';

const advice: Record<number, (subject: Subject, errno: number) => [LockErrorCode, string]> = {
  [Status.CLOSED]: () => ['ERR_LOCK_CLOSED', 'its handle was closed; make a new one with the same name'],
  [Status.NOT_HELD]: () => [
    'ERR_LOCK_NOT_HELD',
    'it is not held by this guard; lock released too many times',
  ],
  [Status.STOLEN]: () => [
    'ERR_LOCK_NOT_HELD',
    'it was stolen: a LockManager request with `steal` took it from this holder',
  ],
  [Status.CAPACITY]: (subject) => [
    'ERR_LOCK_CAPACITY',
    `namespace ${file(subject)} is full (at most 2,048 processes, 262,144 names in use and 524,288 open holds and ` +
      'waits); close locks that are not needed, or spread them over several namespaces',
  ],
  [Status.NO_SPACE]: (subject) => [
    'ERR_LOCK_NO_SPACE',
    `there is no shared memory left for ${file(subject)} (ENOSPC, or a file-size limit); free space in /dev/shm ` +
      'or make it larger (in a container: --shm-size)',
  ],
  [Status.PERMISSION]: (subject, errno) => [
    'ERR_LOCK_PERMISSION',
    errno === constants.errno.EROFS
      ? `${file(subject)} can not be written, since /dev/shm is mounted read-only; mount it writable ` +
        '(mount -o remount,rw /dev/shm; in a container with a read-only root: --tmpfs /dev/shm)'
      : `${file(subject)} is not ours, or its mode is not the one that this namespace has (0600, with a group 0660); ` +
        'use the same user, open the namespace with the `group` option, or remove the file if nobody uses it',
  ],
  [Status.CORRUPT]: (subject) => [
    'ERR_LOCK_CORRUPT',
    `the content of ${file(subject)} is not possible; stop the programs that use it and remove the file`,
  ],
  [Status.REMOVED]: (subject) => [
    'ERR_LOCK_NAMESPACE_REMOVED',
    `${file(subject)} was deleted while it was in use, so it no longer excludes anybody who comes later; find out who ` +
      'deletes files there (systemd RemoveIPC, a cleaning script), then close this lock and open it again',
  ],
  [Status.TIMEOUT]: (subject) => [
    'ERR_LOCK_TIMEOUT',
    `another process is initialising ${file(subject)} and does not finish; it may be stopped`,
  ],
  [Status.STALLED]: (subject) => [
    'ERR_LOCK_TIMEOUT',
    `a process was stopped (SIGSTOP, a debugger) while it had the guard of ${file(subject)}; let it continue, or end it`,
  ],
  [Status.SYSTEM]: (subject) => [
    'ERR_LOCK_UNSUPPORTED',
    `POSIX shared memory can not be used (${file(subject)}); is /dev/shm mounted and writable, and ` +
      'was the file descriptor of it closed by somebody (daemonizing closes them all)?',
  ],
};

function systemError(failure: OpenFailure): Error {
  const { errno } = failure;
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
  return Object.assign(new Error(`system error ${errno} (${code})`), { code, ...failure });
}

/** The error for a status that is neither success nor a matter of course. */
export function errorOf(status: number, wanted: string, subject: Subject, failure?: OpenFailure): LockError {
  const cause = failure?.errno ? systemError(failure) : undefined;
  if (status === Status.INCOMPATIBLE && failure !== undefined) {
    return new LockError(
      'ERR_LOCK_INCOMPATIBLE',
      `Cannot ${wanted} ${shown(subject.name)}: ${file(subject)} is in use by layout version ${failure.foundVersion} ` +
        `built for ${libc(failure.foundAbi)}, this is layout version ${failure.ourVersion} for ` +
        `${libc(failure.ourAbi)}; use the same build everywhere, or another namespace`,
    );
  }
  const [code, reason] = advice[status]?.(subject, failure?.errno ?? 0) ?? [
    'ERR_LOCK_CORRUPT',
    `native status ${status}`,
  ];
  return new LockError(code, `Cannot ${wanted} ${shown(subject.name)}: ${reason}`, { cause });
}

export function timeoutError(
  subject: Named,
  mode: string,
  timeoutMs: number,
  holders: LockInfo[],
): LockError {
  const who = holders.map((holder) => `pid ${holder.pid} thread ${holder.threadId} (${holder.mode})`);
  const found =
    who.length === 0 ? 'nobody held it at that moment, others were first' : `held by ${who.join(', ')}`;
  return new LockError(
    'ERR_LOCK_TIMEOUT',
    `Could not acquire ${shown(subject.name)} (${mode}) within ${timeoutMs} ms: ${found}`,
    { holders },
  );
}

export function notReentrantError(subject: Named, held: string, wanted: string): LockError {
  return new LockError(
    'ERR_LOCK_NOT_REENTRANT',
    `Cannot acquire ${shown(subject.name)} (${wanted}): this owner holds it already (${held}), and the lock is not ` +
      'reentrant; use SharedRLock or RLock, or release it first',
  );
}

export function nestedDowngradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_NOT_REENTRANT',
    `Cannot downgrade ${shown(subject.name)}: guards of nested acquires count on its exclusive mode; release them first`,
  );
}

export function upgradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_UPGRADE',
    `Cannot upgrade a shared lock to an exclusive lock: ${shown(subject.name)} is held shared by this owner; release ` +
      'it first, or acquire it exclusively from the start',
  );
}

export function closedError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_CLOSED',
    `The handle of ${shown(subject.name)} was closed; make a new one with the same name`,
  );
}

export function notHeldError(subject: Named, what = 'lock released too many times'): LockError {
  return new LockError('ERR_LOCK_NOT_HELD', `${shown(subject.name)} is not held by this guard: ${what}`);
}

export function deadlockError(subject: Named, mode: string): LockError {
  return new LockError(
    'ERR_LOCK_WOULD_DEADLOCK',
    `Waiting for ${shown(subject.name)} (${mode}) would block the very thread that holds it; release the guard first, ` +
      'or wait asynchronously',
  );
}

/** How the native part can be made where there is no binary of it. */
const buildCommand = (folder: string): string =>
  `npm install node-addon-api && cd ${JSON.stringify(folder)} && ` +
  `echo '{ "includes": ["proclock.gypi"] }' > binding.gyp && npx --yes node-gyp rebuild && rm binding.gyp`;

const here = (): string => `${process.platform}-${process.arch} (Node ${process.version})`;

/** There is no binary. `complete`: the package has those that it is published with. */
export function missingNativeError(
  folder: string,
  lookedFor: readonly string[],
  complete: boolean,
  cause: unknown,
): LockError {
  const reason = complete
    ? 'it comes with binaries for Linux on x64 and arm64'
    : 'the folder prebuilds is missing, so the package is not installed completely; install it again';
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `proclock has no native part for ${here()}: looked for ${lookedFor.join(' and ')} in ${folder}; ${reason}. ` +
      `On Linux, with a C++ toolchain and Python, it can be built: ${buildCommand(folder)}`,
    { cause },
  );
}

/** There is a binary, but it can not be used. */
export function unusableNativeError(folder: string, file: string, cause: unknown): LockError {
  const { code, message } = (cause ?? {}) as { code?: unknown; message?: unknown };
  const reason = String(message ?? 'it does not support this platform').replace(/\.$/, '');
  const advice =
    {
      ERR_DLOPEN_DISABLED: 'Start Node with --allow-addons (--permission and --no-addons forbid native code)',
      ERR_ACCESS_DENIED: 'Start Node with --allow-fs-read for it (--permission forbids to read it)',
    }[String(code)] ??
    `On Linux, with a C++ toolchain and Python, another one can be built: ${buildCommand(folder)}`;
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `proclock can not use its native part on ${here()}: ${file}: ${reason}. ${advice}`,
    { cause },
  );
}

// ---- wrong arguments, in the words of Node's own API

function received(value: unknown): string {
  if (value == null) return ` Received ${value}`;
  if (typeof value === 'function') return ` Received function ${value.name}`;
  if (typeof value === 'object') return ` Received an instance of ${value.constructor?.name ?? 'Object'}`;
  return ` Received type ${typeof value} (${typeof value === 'string' ? shown(value) : String(value)})`;
}

const withCode = <E extends Error>(error: E, code: string): E & { code: string } =>
  Object.assign(error, { code });

export function argumentTypeError(name: string, expected: string, value: unknown): TypeError {
  return withCode(
    new TypeError(`The "${name}" argument must be ${expected}.${received(value)}`),
    'ERR_INVALID_ARG_TYPE',
  );
}

export function argumentValueError(name: string, reason: string, value: unknown): TypeError {
  return withCode(
    new TypeError(`The argument "${name}" ${reason}.${received(value)}`),
    'ERR_INVALID_ARG_VALUE',
  );
}

export function returnTypeError(name: string, expected: string, value: unknown): TypeError {
  return withCode(
    new TypeError(`The "${name}" function must return ${expected}.${received(value)}`),
    'ERR_INVALID_RETURN_VALUE',
  );
}

export function outOfRangeError(name: string, range: string, value: unknown): RangeError {
  return withCode(
    new RangeError(`The value of "${name}" is out of range. It must be ${range}.${received(value)}`),
    'ERR_OUT_OF_RANGE',
  );
}
