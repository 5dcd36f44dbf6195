// Arguments are checked here, once; everything behind this passes them on.
import { argumentTypeError, argumentValueError, outOfRangeError } from './errors';
import { isOwnable, type Ownable } from './owner';
import type { QueryOptions, WaitOptions } from './types';

const NAMESPACE = /^[A-Za-z0-9._-]{1,64}$/;

export function checkName(name: unknown): asserts name is string {
  if (typeof name !== 'string') throw argumentTypeError('name', 'of type string', name);
}

/** For a lock without a name: nobody else has it. */
export function newName(): string {
  // Loaded where it is needed: it takes some milliseconds.
  const { randomUUID } = require('node:crypto') as typeof import('node:crypto');
  return `anonymous-${randomUUID()}`;
}

export function checkObject(name: string, value: unknown): void {
  if (value === null || typeof value !== 'object') throw argumentTypeError(name, 'of type object', value);
}

export function checkBoolean(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean')
    throw argumentTypeError(name, 'of type boolean', value);
}

export function checkNamespace(namespace: unknown): string {
  if (namespace === undefined) return 'default';
  if (typeof namespace !== 'string')
    throw argumentTypeError('options.namespace', 'of type string', namespace);
  if (!NAMESPACE.test(namespace)) {
    throw argumentValueError(
      'options.namespace',
      'must be 1 to 64 characters of A-Z a-z 0-9 . _ -',
      namespace,
    );
  }
  return namespace;
}

/** Options of one acquire, checked. */
export interface Acquire {
  /** Milliseconds, or Infinity. */
  timeout: number;
  signal: AbortSignal | undefined;
  within: Ownable | undefined;
  deadlock: 'throw' | 'warn';
}

export const NO_OPTIONS: Acquire = {
  timeout: Number.POSITIVE_INFINITY,
  signal: undefined,
  within: undefined,
  deadlock: 'warn',
};

/** Also one of another realm, or of a library, as Node's own API takes them. */
export function isAbortSignal(value: unknown): value is AbortSignal {
  return typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value;
}

/** Why it was aborted. Those of some libraries do not say. */
export function reasonOf(signal: AbortSignal): unknown {
  return signal.reason === undefined
    ? new DOMException('This operation was aborted', 'AbortError')
    : signal.reason;
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw reasonOf(signal);
}

export function checkAcquireOptions(
  options: (WaitOptions & { within?: unknown; exclusive?: boolean; deadlock?: unknown }) | undefined,
): Acquire {
  if (options === undefined) return NO_OPTIONS;
  checkObject('options', options);
  const { timeout = Number.POSITIVE_INFINITY, signal, within, deadlock = 'warn' } = options;
  if (typeof timeout !== 'number') throw argumentTypeError('options.timeout', 'of type number', timeout);
  if (Number.isNaN(timeout) || timeout < 0) throw outOfRangeError('options.timeout', '>= 0', timeout);
  if (signal !== undefined && !isAbortSignal(signal)) {
    throw argumentTypeError('options.signal', 'an instance of AbortSignal', signal);
  }
  if (within !== undefined && !isOwnable(within)) {
    throw argumentTypeError('options.within', 'an instance of LockGuard', within);
  }
  checkBoolean('options.exclusive', options.exclusive);
  if (deadlock !== 'throw' && deadlock !== 'warn')
    throw argumentValueError('options.deadlock', "must be 'throw' or 'warn'", deadlock);
  return { timeout, signal, within, deadlock };
}

/** @returns whether processes are to be looked at */
export function checkQueryOptions(options: QueryOptions | undefined): boolean {
  if (options === undefined) return false;
  checkObject('options', options);
  checkBoolean('options.processes', options.processes);
  return options.processes === true;
}

export function checkFunction(value: unknown): void {
  if (value !== undefined && typeof value !== 'function')
    throw argumentTypeError('fn', 'of type function', value);
}

/** @returns whether exclusive mode is wanted */
export function checkTryOptions(options: { exclusive?: boolean }): boolean {
  checkObject('options', options);
  checkBoolean('options.exclusive', options.exclusive);
  return options.exclusive === true;
}
