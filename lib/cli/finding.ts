// What `proclock doctor` says: whether something is well, worth knowing, or wrong.
import { readFileSync, statfsSync } from 'node:fs';

export type Level = 'ok' | 'note' | 'wrong';

export interface Finding {
  readonly level: Level;
  readonly text: string;
}

export const ok = (text: string): Finding => ({ level: 'ok', text });
export const note = (text: string): Finding => ({ level: 'note', text });
export const wrong = (text: string): Finding => ({ level: 'wrong', text });

export const MIB = 2 ** 20;
const FREE_MIN = MIB;
const FILES_MIN = 64;

export const mib = (bytes: number): string => `${(bytes / MIB).toFixed(0)} MiB`;

/** `''` if it can not be read. */
export function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Whether there is space in the folder of segments. `sizeSmall`: other programs soon fill what is no larger. */
export function checkSpace(folder: string, sizeSmall = 0): Finding {
  const { bavail, blocks, bsize } = statfsSync(folder);
  const [size, free] = [blocks * bsize, bavail * bsize];
  const room = `${folder}: ${mib(free)} free of ${mib(size)}`;
  if (free < FREE_MIN)
    return wrong(`${room}: ERR_LOCK_NO_SPACE is near; remove what fills it, or make it larger`);
  if (size <= sizeSmall) return note(`${room}: other programs may fill it (docker: --shm-size)`);
  return ok(room);
}

/** @param files how many this process may have open */
export function checkFiles(files: number): Finding[] {
  return files < FILES_MIN ? [wrong(`${files} open files are allowed: raise the limit (ulimit -n)`)] : [];
}
