// What the system tells of the processes of others, where it does.
import { readFileSync, statSync } from 'node:fs';
import type { NativeInfo } from './binding';

/** Of a command line: in characters. */
const COMMAND_MAX = 200;

/** What is known of a process beyond its locks. */
export interface ProcessDetails {
  /** The first 200 characters of its command line, if it may be read. */
  command?: string;
  /** Whether it stands still, by SIGSTOP or a debugger. */
  stopped?: boolean;
}

function read(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return undefined; // it has ended, or is none of ours to look at
  }
}

/** The fields of /proc/<pid>/stat from the third on: what is before may contain anything. */
function statFields(pid: number): string[] | undefined {
  const stat = read(pid, 'stat');
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
}

function ownNamespace(): number | undefined {
  try {
    return statSync('/proc/self/ns/pid').ino;
  } catch {
    return undefined;
  }
}

/** Of a process that the native part has seen; nothing of one whose pid counts elsewhere, or is another's by now. */
function isThere(info: NativeInfo, fields: string[] | undefined): fields is string[] {
  if (fields === undefined || info.pidNamespace !== ownNamespace()) return false;
  return info.startTime === 0 || Number(fields[19]) === info.startTime;
}

export function isStopped(info: NativeInfo): boolean | undefined {
  const fields = statFields(info.pid);
  return isThere(info, fields) ? fields[0] === 'T' || fields[0] === 't' : undefined;
}

export function detailsOf(info: NativeInfo): ProcessDetails {
  const stopped = isStopped(info);
  if (stopped === undefined) return {};
  const command = read(info.pid, 'cmdline')?.replace(/\0+$/, '').replaceAll('\0', ' ');
  return command ? { command: [...command].slice(0, COMMAND_MAX).join(''), stopped } : { stopped };
}
