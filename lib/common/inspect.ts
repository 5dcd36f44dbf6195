// How locks, guards, managers and spaces are printed: by what their users know of them. Nothing is asked of anybody for it.
import type { InspectOptions } from 'node:util';
import type { Abandoned, LockMode } from './types';

/** In an object: the method by which `util.inspect()` prints it. */
export const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom') as never;

/** What `util.inspect()` gives to that method, to print what is inside. */
export type Inspect = (value: unknown, options: InspectOptions) => string;

/** A lock, as plain data. */
export interface LockData {
  /** Of the lock. */
  name: string;
  /** Of the lock. */
  namespace: string;
}

/** A manager, as plain data. */
export interface ManagerData {
  /** Of its locks. */
  namespace: string;
}

/** A guard, as plain data. */
export interface GuardData extends LockData {
  /** How it is held. */
  mode: LockMode;
  /** In decimal digits: JSON has no integers of that size. */
  token: string;
  /** As that of the guard, with its token in decimal digits, and its date as an ISO string. */
  abandoned: AbandonedData | null;
}

/** An exclusive holder that ended without releasing, as plain data. */
export interface AbandonedData {
  /** Of the dead process. */
  pid: number;
  /** 0: its main thread. */
  threadId: number;
  /** As an ISO string. */
  since: string;
  /** In decimal digits. */
  token: string;
}

export function lockData({ name, namespace }: LockData): LockData {
  return { name, namespace };
}

export function abandonedData(abandoned: Abandoned): AbandonedData {
  const { pid, threadId, since, token } = abandoned;
  return { pid, threadId, since: since.toISOString(), token: `${token}` };
}

interface Guard {
  readonly lock: LockData;
  readonly mode: LockMode;
  readonly token: bigint;
  readonly abandoned: Abandoned | null;
}

export function guardData({ abandoned, lock, mode, token }: Guard): GuardData {
  return {
    ...lockData(lock),
    mode,
    token: `${token}`,
    abandoned: abandoned === null ? null : abandonedData(abandoned),
  };
}

/** `SharedLock 'ledger' { namespace: 'default' }` */
export function inspectLock(lock: LockData, options: InspectOptions, inspect: Inspect): string {
  const { name, namespace } = lock;
  return `${lock.constructor.name} ${inspect(name, options)} ${inspect({ namespace }, options)}`;
}

/** `LockGuard 'ledger' (exclusive, token 1795…n)` */
export function inspectGuard(guard: Guard, options: InspectOptions, inspect: Inspect): string {
  const { lock, mode, token } = guard;
  return `LockGuard ${inspect(lock.name, options)} (${mode}, token ${inspect(token, options)})`;
}
