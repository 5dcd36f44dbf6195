// The words of shared memory: the only place where status codes become errors, and what the loader of the native part says.
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { LockError, type LockErrorCode, type Named, shown } from '../common/errors';
import { place } from './place';

/** Results of native calls; the same values as `enum class Status` in native/core/status.h. */
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
  UPGRADING: -15,
} as const;

/** What an error message needs to know of the lock that it is about. */
export interface Subject extends Named {
  /** The file of its namespace. */
  readonly file: string;
}

/** What the native part found when it could not enter a namespace. */
export interface OpenFailure {
  readonly errno: number;
  readonly foundVersion: number;
  readonly foundAbi: number;
  readonly ourVersion: number;
  readonly ourAbi: number;
}

/** Which builds can share a segment: kAbiFamily in native/platform. */
const FAMILIES: Record<number, string> = {
  1: 'glibc',
  2: 'musl',
  3: 'macOS on Intel (or under Rosetta)',
  4: 'macOS on Apple silicon',
};

const family = (abi: number): string => FAMILIES[abi & 0xff] ?? 'an unknown libc';

/** What this process or machine has run out of, by errno. */
const shortages: Record<number, (subject: Subject) => string> = {
  [constants.errno.EMFILE]: (subject) =>
    `this process has no file descriptor left to open ${subject.file} (EMFILE); close what is not needed, or raise its ` +
    'limit (ulimit -n)',
  [constants.errno.ENFILE]: (subject) =>
    `this machine has no file descriptor left to open ${subject.file} (ENFILE); find out who has so many open, or raise ` +
    'the limit (sysctl fs.file-max; macOS: kern.maxfiles)',
};

/** Why the segment may not be used. Whoever was let in, and finds that it is another file than it should be, has no errno. */
function permissionReason(subject: Subject, errno: number): string {
  const { EACCES, EPERM, EROFS } = constants.errno;
  if (errno === EROFS) {
    return `${subject.file} can not be written, ${place.readOnly}`;
  }
  const group = Number(/\/proclock-g(\d+)-/.exec(subject.file)?.[1] ?? -1);
  const refused = errno === EACCES || errno === EPERM;
  if (refused && group >= 0 && process.getegid?.() !== group && !process.getgroups?.().includes(group)) {
    return (
      `${subject.file} is for the members of group ${group}, and this process is none; add its user to the group (a ` +
      'process that runs already does not notice), or use another group'
    );
  }
  if (errno === EPERM) {
    return (
      `the system does not permit to use ${subject.file} (EPERM): a sandbox forbids it (seccomp, the policy of a ` +
      'container or service); allow shared memory there'
    );
  }
  if (errno === EACCES && !existsSync(subject.file)) {
    return `${subject.file} can not be made, ${place.unwritable}`;
  }
  return (
    `${subject.file} is not ours, or its mode is not the one that this namespace has (0600, with a group 0660); ` +
    'use the same user, open the namespace with the `group` option, or remove the file if nobody uses it'
  );
}

const advice: Record<number, (subject: Subject, errno: number) => [LockErrorCode, string]> = {
  [Status.CLOSED]: () => ['ERR_LOCK_CLOSED', 'its handle was closed; make a new one with the same name'],
  [Status.NOT_HELD]: () => [
    'ERR_LOCK_NOT_HELD',
    'it is not held by this guard; lock released too many times',
  ],
  [Status.CAPACITY]: (subject) => [
    'ERR_LOCK_CAPACITY',
    `namespace ${subject.file} is full (at most 2,047 processes, 262,144 names in use and 524,288 open holds and ` +
      'waits); close locks that are not needed, or spread them over several namespaces',
  ],
  [Status.NO_SPACE]: (subject, errno) => [
    'ERR_LOCK_NO_SPACE',
    errno === constants.errno.ENOMEM
      ? `there is no memory left to map ${subject.file} (ENOMEM), which takes 160 MB of addresses but hardly any memory; ` +
        'raise the limit of this process (ulimit -v) or of its container'
      : `there is no shared memory left for ${subject.file} (ENOSPC, or a file-size limit); ${place.full}`,
  ],
  [Status.PERMISSION]: (subject, errno) => ['ERR_LOCK_PERMISSION', permissionReason(subject, errno)],
  [Status.CORRUPT]: (subject) => [
    'ERR_LOCK_CORRUPT',
    `the content of ${subject.file} is not possible; stop the programs that use it and remove the file`,
  ],
  [Status.REMOVED]: (subject) => [
    'ERR_LOCK_NAMESPACE_REMOVED',
    `${subject.file} was deleted while it was in use, so it no longer excludes anybody who comes later; find out who ` +
      `deletes files there (${place.cleaners}), then close this lock and open it again`,
  ],
  [Status.TIMEOUT]: (subject) => [
    'ERR_LOCK_TIMEOUT',
    `another process is initialising ${subject.file} and does not finish; it may be stopped`,
  ],
  [Status.STALLED]: (subject) => [
    'ERR_LOCK_TIMEOUT',
    `a process was stopped (SIGSTOP, a debugger) while it had the guard of ${subject.file}; let it continue, or end it`,
  ],
  [Status.SYSTEM]: (subject, errno) => [
    'ERR_LOCK_UNSUPPORTED',
    shortages[errno]?.(subject) ?? place.lacking[errno]?.(subject.file) ?? place.unusable(subject.file),
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
  const what = subject.name === '' ? subject.file : shown(subject.name);
  if (status === Status.INCOMPATIBLE && failure !== undefined) {
    return new LockError(
      'ERR_LOCK_INCOMPATIBLE',
      `Cannot ${wanted} ${what}: ${subject.file} is in use by layout version ${failure.foundVersion} ` +
        `built for ${family(failure.foundAbi)}, this is layout version ${failure.ourVersion} for ` +
        `${family(failure.ourAbi)}; use the same build everywhere, or another namespace`,
    );
  }
  const [code, reason] = advice[status]?.(subject, failure?.errno ?? 0) ?? [
    'ERR_LOCK_CORRUPT',
    `native status ${status}`,
  ];
  return new LockError(code, `Cannot ${wanted} ${what}: ${reason}`, { cause });
}

/** How the native part can be made where there is no binary of it. */
const buildCommand = (folder: string): string =>
  `npm install node-addon-api && cd ${JSON.stringify(folder)} && ` +
  `echo '{ "includes": ["proclock.gypi"] }' > binding.gyp && npx --yes node-gyp rebuild && rm binding.gyp`;

const here = (): string => `${process.platform}-${process.arch} (Node ${process.version})`;

/** The package was made part of another file, far from its binaries. */
export function bundledError(file: string): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `proclock was bundled into ${file}, and its native part was not. Mark it external, so that it is loaded from ` +
      "node_modules when the program runs. webpack: externals: { proclock: 'commonjs proclock' }. Next.js: " +
      "serverExternalPackages: ['proclock']. Vite: ssr: { external: ['proclock'] }, or for Rollup external: ['proclock']. " +
      'esbuild: --external:proclock',
  );
}

/** There is no binary. `complete`: the package has those that it is published with. */
export function missingNativeError(
  folder: string,
  lookedFor: readonly string[],
  complete: boolean,
  cause: unknown,
): LockError {
  const reason = complete
    ? 'it comes with binaries for Linux and macOS on x64 and arm64'
    : 'the folder prebuilds is missing, so the package is not installed completely; install it again';
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `proclock has no native part for ${here()}: looked for ${lookedFor.join(' and ')} in ${folder}; ${reason}. ` +
      `On Linux and macOS, with a C++ toolchain and Python, it can be built: ${buildCommand(folder)}`,
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
    `On Linux and macOS, with a C++ toolchain and Python, another one can be built: ${buildCommand(folder)}`;
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `proclock can not use its native part on ${here()}: ${file}: ${reason}. ${advice}`,
    { cause },
  );
}
