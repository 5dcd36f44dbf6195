// Locks and those who hold them, as lines of text; and how a line is said that is no output.
import { writeSync } from 'node:fs';
import type { LockInfo } from '../common/types';

// What would change a terminal that it is printed on.
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function escaped(text: string): string {
  return text.replaceAll(UNPRINTABLE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/**
 * Writes a line to standard error, if somebody reads it: by a blocking write, for a stream of Node.js would change the file for a
 * command that has it as well, and end us where nobody does.
 */
export function complain(line: string): void {
  try {
    writeSync(2, `${line}\n`);
  } catch {
    // Nobody reads it, or not now.
  }
}

/** A name, in one line that changes no terminal; in quotes where it would not be taken for a name. */
export function printable(name: string): string {
  const plain = /^[\w.:/@+-]+$/.test(name);
  const text = plain ? name : `'${escaped(name)}'`;
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

export function seconds(ms: number): string {
  if (ms < 100) return `${Math.max(ms, 0).toFixed(0)} ms`;
  if (ms < 100_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

export const ageOf = ({ since }: LockInfo): string => seconds(Date.now() - since.getTime());

/** Who it is: `123`, `123/2` for a thread, `123@host`. */
export function whoOf({ host, pid, threadId }: LockInfo): string {
  return `${pid}${threadId === 0 ? '' : `/${threadId}`}${host === undefined ? '' : `@${escaped(host)}`}`;
}

/** What it is, as far as the system tells. */
export function commandOf({ command, stopped }: LockInfo): string {
  return `${stopped === true ? 'STOPPED ' : ''}${escaped(command ?? '')}`.trim();
}

/** One of them in a sentence. */
export function infoLine(info: LockInfo): string {
  const command = commandOf(info);
  return `pid ${whoOf(info)} (${info.mode}) for ${ageOf(info)}${command === '' ? '' : `: ${command}`}`;
}
