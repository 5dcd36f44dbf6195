// What the system tells of the processes of others, where it does.
import type { Native, NativeInfo } from './binding';

/** Of a command line: in characters. */
const COMMAND_MAX = 200;

/** What is known of a process beyond its locks. */
export interface ProcessDetails {
  /** The first 200 characters of its command line, if it may be read. */
  command?: string;
  /** Whether it stands still, by SIGSTOP or a debugger. */
  stopped?: boolean;
}

/**
 * Tells of the processes of many holds and waits, and looks at each process once. To read a command line can take long beside a
 * process that the kernel has in its hands.
 */
export function processTeller(native: Native, withCommand: boolean): (info: NativeInfo) => ProcessDetails {
  const seen = new Map<string, ProcessDetails>();
  return (info) => {
    const key = `${info.pidNamespace}-${info.pid}-${info.startTime}`;
    let details = seen.get(key);
    if (details === undefined) {
      details = detailsOf(native, info, withCommand);
      seen.set(key, details);
    }
    return details;
  };
}

function detailsOf(native: Native, info: NativeInfo, withCommand: boolean): ProcessDetails {
  const seen = native.lookAt(info, withCommand);
  if (seen === undefined) return {};
  const [stopped, given] = seen;
  const command = given.replace(/\0+$/, '').replaceAll('\0', ' ');
  return command === '' ? { stopped } : { command: [...command].slice(0, COMMAND_MAX).join(''), stopped };
}
