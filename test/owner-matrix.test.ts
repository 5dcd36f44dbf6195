// The table of owners, cell by cell: each row for each class, each kind of owner and each kind of nested call; with nobody
// else there, and with others that hold the lock and wait for it. What is refused is refused at once, and changes nothing.
import { AsyncResource } from 'node:async_hooks';
import { type AcquireOptions, LockError, type LockErrorCode, type LockGuard, SharedLock } from '../lib';
import { expectIdle, type MODES, makeLock, name, OWNER_ROWS } from './support/locks';

type Mode = (typeof MODES)[number];
type Options = AcquireOptions & { exclusive: boolean };

const UPGRADE_TEXT = 'Cannot upgrade a shared lock to an exclusive lock';
const exclusiveIf = (mode: Mode) => ({ exclusive: mode === 'exclusive' });

/** A nested call: `look` is called while its guard is open. Nothing of it happens later than the call, if it is sync. */
type Way = (
  lock: SharedLock,
  options: Options,
  look: (guard: LockGuard) => void,
) => Promise<unknown> | LockGuard | null | undefined;

function lookAndRelease(guard: LockGuard | null, look: (guard: LockGuard) => void) {
  if (guard !== null) look(guard);
  guard?.release();
  return guard;
}

const ways = {
  'sync call': (lock, options, look) => lookAndRelease(lock.acquireSync(options), look),
  'sync call without options': (lock, { exclusive }, look) => {
    // What makeLock returns may be a Lock, which has no methods for each mode.
    const bare = lock instanceof SharedLock && exclusive ? lock.exclusiveSync() : lock.acquireSync();
    return lookAndRelease(bare, look);
  },
  'sync callback': (lock, options, look) =>
    lock.acquireSync(options, (guard) => {
      look(guard);
      return undefined;
    }),
  'awaited call': (lock, options, look) => lock.acquire(options).then((guard) => lookAndRelease(guard, look)),
  callback: (lock, options, look) => lock.acquire(options, look),
  'async callback': (lock, options, look) =>
    lock.acquire(options, async (guard) => {
      look(guard);
      await new Promise(setImmediate);
      look(guard);
    }),
  try: (lock, { exclusive }, look) => lookAndRelease(lock.tryAcquire({ exclusive }), look),
} satisfies Record<string, Way>;
type WayName = keyof typeof ways;

const WAYS = Object.keys(ways) as WayName[];
const SYNC_WAYS: readonly WayName[] = ['sync call', 'sync call without options', 'sync callback', 'try'];
/** Those that take no options can not name a guard. */
const NAMING_WAYS = WAYS.filter((way) => way !== 'try' && way !== 'sync call without options');

/** While the lock is held. With `within`, its nested calls name that guard. */
type Nested = (outer: LockGuard, within?: LockGuard) => Promise<void>;

interface OwnerKind {
  /** Calls `nested` as the owner of a hold. */
  hold(lock: SharedLock, mode: Mode, nested: Nested): Promise<void>;
  /** The nested calls that belong to this owner. The others belong to somebody else. */
  owns: readonly WayName[];
  /** The hold ends with the turn, before what is asynchronous in `nested`. */
  endsAtOnce?: true;
}

const owners: Record<string, OwnerKind> = {
  'a thread, by a sync guard': {
    owns: SYNC_WAYS,
    async hold(lock, mode, nested) {
      using guard = lock.acquireSync(exclusiveIf(mode));
      await nested(guard);
    },
  },
  'a thread, by a try guard': {
    owns: SYNC_WAYS,
    async hold(lock, mode, nested) {
      using guard = lock.tryAcquire(exclusiveIf(mode))!;
      await nested(guard);
    },
  },
  'a sync callback': {
    owns: WAYS,
    endsAtOnce: true,
    hold: (lock, mode, nested) => lock.acquireSync(exclusiveIf(mode), (guard) => nested(guard)),
  },
  'an async callback': {
    owns: WAYS,
    hold: (lock, mode, nested) => lock.acquire(exclusiveIf(mode), (guard) => nested(guard)),
  },
  'an async callback, turns later': {
    owns: WAYS,
    hold: (lock, mode, nested) =>
      lock.acquire(exclusiveIf(mode), async (guard) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        await new Promise<void>((resolve) => process.nextTick(resolve));
        await nested(guard);
      }),
  },
  'whoever names the guard of an async acquire': {
    owns: NAMING_WAYS,
    async hold(lock, mode, nested) {
      using guard = await lock.acquire(exclusiveIf(mode));
      await nested(guard, guard);
    },
  },
  'whoever names the guard of a sync acquire': {
    owns: WAYS, // those that name nothing belong to the thread, and so does the guard
    async hold(lock, mode, nested) {
      using guard = lock.acquireSync(exclusiveIf(mode));
      await nested(guard, guard);
    },
  },
  'whoever names the guard of a callback, inside': {
    owns: WAYS,
    hold: (lock, mode, nested) => lock.acquire(exclusiveIf(mode), (guard) => nested(guard, guard)),
  },
  'whoever names the guard of a callback, outside': {
    owns: NAMING_WAYS,
    async hold(lock, mode, nested) {
      const outside = AsyncResource.bind(nested);
      await lock.acquire(exclusiveIf(mode), (guard) => outside(guard, guard));
    },
  },
};

const situations = {
  'with nobody else there': () => [],
  // A shared holder beside, if that is possible, and a writer and a reader who come next.
  'with others who hold and wait': (lock: SharedLock, held: Mode) => [
    ...(held === 'shared' ? [lock.shared()] : []),
    lock.exclusive(),
    lock.shared(),
  ],
};

/** `nested`: one more guard of the same hold. `beside`: a hold of its own. `null`, or the code of an error: refused. */
type Outcome = 'nested' | 'beside' | null | LockErrorCode;

type Cell = (typeof OWNER_ROWS)[number] & {
  isOwner: boolean;
  way: WayName;
  alone: boolean;
};

function expectedOf({ className, held, wanted, isOwner, way, alone }: Cell): Outcome {
  const refused = (code: LockErrorCode) => (way === 'try' ? null : code);
  if (isOwner) {
    if (held === 'shared' && wanted === 'exclusive') return refused('ERR_LOCK_UPGRADE');
    return className.includes('RLock') ? 'nested' : refused('ERR_LOCK_NOT_REENTRANT');
  }
  if (alone && held === 'shared' && wanted === 'shared') return 'beside';
  return refused(way === 'sync call without options' ? 'ERR_LOCK_WOULD_DEADLOCK' : 'ERR_LOCK_TIMEOUT');
}

/** What the call gives, throws, or rejects with; `'late'` if it does not do so in this turn of the event loop. */
async function outcomeOf(call: () => ReturnType<Way>): Promise<unknown> {
  try {
    const late = new Promise((resolve) => setImmediate(resolve, 'late'));
    return await Promise.race([call(), late]);
  } catch (error) {
    return error;
  }
}

function expectRefusal(found: unknown, expected: Outcome): void {
  if (expected === null) {
    expect(found).toBeNull();
    return;
  }
  expect(found).toBeInstanceOf(LockError);
  expect(found).toHaveProperty('code', expected);
  if (expected === 'ERR_LOCK_UPGRADE') expect((found as LockError).message).toContain(UPGRADE_TEXT);
}

describe.each(Object.entries(situations))('%s', (situation, arrive) => {
  const alone = situation === 'with nobody else there';

  describe.each(OWNER_ROWS)('$className: $held held, $wanted wanted', (row) => {
    const { className, held, wanted } = row;
    const cells = Object.entries(owners).flatMap(([owner, { owns }]) =>
      WAYS.map((way) => {
        const isOwner = owns.includes(way);
        return { owner, way, isOwner, expected: expectedOf({ ...row, isOwner, way, alone }) };
      }),
    );

    test.each(cells)('held by $owner: $way: $expected', async (cell) => {
      const lock = makeLock(className);
      const observer = new SharedLock(name, { namespace: lock.namespace, fair: true });
      const owner = owners[cell.owner]!;
      const isGranted = cell.expected === 'nested' || cell.expected === 'beside';
      // Nobody who is refused by the table waits; nobody who is granted anything has to.
      const timeout = cell.isOwner && !isGranted ? 5000 : 0;
      const arriveOutside = AsyncResource.bind(() => arrive(observer, held));
      let others: Promise<LockGuard>[] = [];

      await owner.hold(lock, held, async (outer, within) => {
        others = arriveOutside();
        const before = observer.query();
        expect(before.held[0]).toMatchObject({ mode: held, pid: process.pid });
        expect(before.pending).toHaveLength(alone ? 0 : 2);
        let looks = 0;
        const look = (guard: LockGuard) => {
          looks++;
          expect(guard.lock).toBe(lock);
          expect(guard).toMatchObject({ mode: wanted, token: outer.token, released: false });
          const now = observer.query();
          expect(now.pending).toEqual(before.pending);
          expect(now.held).toEqual(expect.arrayContaining(before.held));
          expect(now.held).toHaveLength(before.held.length + (cell.expected === 'nested' ? 0 : 1));
        };
        const options = { ...exclusiveIf(wanted), timeout, ...(within && { within }) };
        const call = () => ways[cell.way](lock, options, look);

        if (isGranted) {
          await call();
          expect(looks).toBeGreaterThan(0);
        } else {
          const found = outcomeOf(call);
          expect(observer.query()).toEqual(before);
          expectRefusal(await found, cell.expected);
          expect(looks).toBe(0);
        }
        if (owner.endsAtOnce === undefined) expect(observer.query()).toEqual(before);
      });

      for (const other of others) (await other).release();
      expectIdle(observer);
    });
  });
});
