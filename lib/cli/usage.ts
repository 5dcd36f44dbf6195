// What is typed, and what the command answers by its exit code.
import { parseArgs } from 'node:util';
import type { LockErrorCode } from '../common/errors';

/** As in sysexits.h, where there is a code for it. */
export const Exit = {
  OK: 0,
  FAILED: 1,
  USAGE: 64,
  UNAVAILABLE: 69,
  INTERNAL: 70,
  LOST: 74,
  CONFLICT: 75,
  PERMISSION: 77,
  NOT_EXECUTABLE: 126,
  NOT_FOUND: 127,
  BY_SIGNAL: 128,
} as const;

const EXIT_OF: Partial<Record<LockErrorCode, number>> = {
  ERR_LOCK_UNSUPPORTED: Exit.UNAVAILABLE,
  ERR_LOCK_UNAVAILABLE: Exit.UNAVAILABLE,
  ERR_LOCK_LOST: Exit.LOST,
  ERR_LOCK_TIMEOUT: Exit.CONFLICT,
  ERR_LOCK_PERMISSION: Exit.PERMISSION,
};

/** What was typed makes no sense. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'USAGE';
}

/** A wrong argument of ours is one of whoever typed it. */
export function usageOf(error: unknown): unknown {
  const isArgument = error instanceof TypeError || error instanceof RangeError;
  return isArgument ? new UsageError((error as Error).message) : error;
}

export function exitOf(error: unknown): number {
  if (error instanceof UsageError) return Exit.USAGE;
  return EXIT_OF[(error as { code?: LockErrorCode }).code as LockErrorCode] ?? Exit.INTERNAL;
}

/** In one line, with the code. */
export function wordsOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const said = String(message ?? error).replaceAll(/\s*\n\s*/g, ' ');
  return `${typeof code === 'string' && code !== 'USAGE' ? `${code}: ` : ''}${said}`;
}

/** As it is printed. */
export const lineOf = (error: unknown): string => `proclock: ${wordsOf(error)}`;

interface OptionConfig {
  type: 'string' | 'boolean';
  short?: string;
}

export type OptionConfigs = Record<string, OptionConfig>;

/** What is typed for each option. */
export type Values = Record<string, string | boolean | undefined>;

/** @throws {UsageError} for what is no option */
export function parse(args: string[], options: OptionConfigs): { values: Values; names: string[] } {
  try {
    const { positionals, values } = parseArgs({ args, options, allowPositionals: true, strict: true });
    return { values: values as Values, names: positionals };
  } catch (error) {
    throw new UsageError((error as Error).message.split('\n')[0]);
  }
}

/**
 * Where the first word is that is neither an option nor the value of one: what comes from there on is not ours to parse. `--`
 * ends the options as well.
 */
export function firstWord(args: readonly string[], options: OptionConfigs): number {
  const takesValue = (config: OptionConfig | undefined): boolean => config?.type === 'string';
  const byShort = (letter: string) => Object.values(options).find(({ short }) => short === letter);
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string;
    if (arg === '--' || arg === '-' || !arg.startsWith('-')) return at;
    if (arg.startsWith('--')) {
      if (!arg.includes('=') && takesValue(options[arg.slice(2)])) at++;
      continue;
    }
    // `-sw 5`, `-sw5`: the first letter that takes a value has the rest of the word, or else the next one.
    const letters = [...arg.slice(1)];
    const valued = letters.findIndex((letter) => takesValue(byShort(letter)));
    if (valued === letters.length - 1) at++;
  }
  return args.length;
}

/** @throws {UsageError} unless it is a number of that range */
export function numberOf(
  option: string,
  text: string,
  max: number,
  what: 'a whole number' | 'a number of seconds',
): number {
  const value = Number(text);
  const valid =
    /^[0-9.]+$/.test(text) && value <= max && (what !== 'a whole number' || Number.isInteger(value));
  if (!valid) throw new UsageError(`${option} takes ${what} from 0 to ${max}: ${text}`);
  return value;
}
