// What the tests of single locks have in common.
import { Lock, type LockOptions, RLock, SharedLock, SharedRLock } from '../../lib';
import type { Actor, Snapshot } from './actor';
import { name, testNamespace } from './namespace';
import { until } from './until';

export { name };

const classes = { SharedLock, SharedRLock, Lock, RLock };
export const CLASS_NAMES = Object.keys(classes) as Array<keyof typeof classes>;
export const MODES = ['shared', 'exclusive'] as const;

/** The owner table: what may be held by the locks of each class, and wanted beside that. */
export const OWNER_ROWS = CLASS_NAMES.flatMap((className) => {
  const modes = className.startsWith('Shared') ? MODES : (['exclusive'] as const);
  return modes.flatMap((held) => modes.map((wanted) => ({ className, held, wanted })));
});

/** A lock in a namespace of its own. */
export function freshLock(options: LockOptions = {}): SharedLock {
  return new SharedLock(name, { namespace: testNamespace(), ...options });
}

/** A fresh lock for each test of the file (or of the `describe`), which is closed after it. */
export function lockPerTest(use: (lock: SharedLock) => void): void {
  let lock: SharedLock;
  beforeEach(() => {
    lock = freshLock();
    use(lock);
  });
  afterEach(() => lock.close());
}

/**
 * A lock of any of the classes, to be used by `acquire*` and `tryAcquire` alone: those of Lock and RLock are always
 * exclusive, and take no notice of `{ exclusive: true }`.
 */
export function makeLock(className: keyof typeof classes, namespace = testNamespace()): SharedLock {
  return new classes[className](name, { namespace }) as SharedLock;
}

interface Queried {
  query(): { held: unknown[]; pending: unknown[] };
}

/** Nobody holds it, nobody waits for it. */
export function expectIdle(lock: Queried): void {
  expect(lock.query()).toEqual({ held: [], pending: [] });
}

/** For `expect(fn).toThrow(...)` and `rejects.toEqual(...)`. */
export const withCode = (code: string) => expect.objectContaining({ code });

/** For `expect(lock.query())`: so many holders and waiters, in these modes. */
export const state = (held: string[], pending: string[]) => ({
  held: held.map((mode) => expect.objectContaining({ mode })),
  pending: pending.map((mode) => expect.objectContaining({ mode })),
});

/** Polls until that many wait. For those who block while they wait; others have queued when `actor.queue` returns. */
export function untilPending(lock: Queried, count: number): Promise<void> {
  return until(() => lock.query().pending.length === count);
}

/** Who is in there, as `pid/threadId mode`. */
export const who = (infos: Snapshot['held']) =>
  infos.map(({ pid, threadId, mode }) => `${pid}/${threadId} ${mode}`);

export const as = ({ pid, threadId }: Actor, mode: string) => `${pid}/${threadId} ${mode}`;
