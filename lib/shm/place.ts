// What is to be said of the place where segments are, on each system. No file is read here, and none is named: native code knows
// where a segment is.
import { constants } from 'node:os';

/** Words about the place, for the messages of errors. Each is the rest of a sentence. */
export interface Place {
  /** It is mounted read-only. */
  readonly readOnly: string;
  /** This process may not make a file in it. */
  readonly unwritable: string;
  /** There is no space left. */
  readonly full: string;
  /** Who deletes files in it. */
  readonly cleaners: string;
  /** Nothing better is known: `file` could not be used. */
  unusable(file: string): string;
  /** Why a system, on which segments should work, can not have any; by errno. */
  readonly lacking: Readonly<Record<number, (file: string) => string>>;
}

export const linux: Place = {
  readOnly:
    'since /dev/shm is mounted read-only; mount it writable (mount -o remount,rw /dev/shm; in a container with a read-only ' +
    'root: --tmpfs /dev/shm)',
  unwritable:
    'since this process may not write to /dev/shm (EACCES): its mode is not 1777, or a sandbox forbids it (snap, AppArmor, ' +
    'SELinux); allow it there',
  full: 'free space in /dev/shm or make it larger (in a container: --shm-size)',
  cleaners: 'systemd RemoveIPC, a cleaning script',
  unusable: (file) =>
    `POSIX shared memory can not be used (${file}); is /dev/shm mounted and writable, and ` +
    'was the file descriptor of it closed by somebody (daemonizing closes them all)?',
  lacking: {},
};

export const darwin: Place = {
  readOnly: 'since its volume is mounted read-only',
  unwritable:
    "since this process may not write to the user's cache folder (getconf DARWIN_USER_CACHE_DIR): it is not this user's, or the " +
    'App Sandbox forbids it',
  full: 'free space on its volume',
  cleaners: 'a cleaning app or script',
  unusable: (file) =>
    `a file in the user's cache folder can not be shared (${file}); does getconf DARWIN_USER_CACHE_DIR name a folder of this ` +
    'user, and was the file descriptor of it closed by somebody (daemonizing closes them all)?',
  lacking: {
    [constants.errno.ENOLCK]: (file) =>
      `two open files of ${file} do not exclude each other (ENOLCK), and without that nobody can tell who is alive; it has to be ` +
      'on a volume of this machine (APFS), with macOS 11 or later',
    [constants.errno.ENOTSUP]: (file) =>
      `a thread that waits in ${file || 'shared memory'} can not be woken by another process (ENOTSUP), or this user has no ` +
      'cache folder (getconf DARWIN_USER_CACHE_DIR); macOS 11 or later is needed',
  },
};

/** That of this machine. */
export const place: Place = process.platform === 'darwin' ? darwin : linux;
