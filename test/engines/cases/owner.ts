// The table of owners, cell by cell, and who is an owner. What is refused is refused at once, and changes nothing.
import { AsyncResource } from 'node:async_hooks';
import type { Awaitable, ClassName, Guard, LockMode, SharedLock } from '../infrastructure';
import { atOnce, type Cases, deferred, errorOf, expectError, MODES, type Stage } from '../stage';

const CLASS_NAMES = ['SharedLock', 'SharedRLock', 'Lock', 'RLock'] as const;
const UPGRADE_TEXT = 'Cannot upgrade a shared lock to an exclusive lock';

/** What may be held by a lock of each class, and wanted beside that. */
const ROWS = CLASS_NAMES.flatMap((className) => {
  const modes = className.startsWith('Shared') ? MODES : (['exclusive'] as const);
  return modes.flatMap((held) => modes.map((wanted) => ({ className, held, wanted })));
});

const exclusiveIf = (mode: LockMode) => ({ exclusive: mode === 'exclusive' });

interface Options {
  exclusive: boolean;
  timeout: number;
  within?: Guard;
}

type Look = (guard: Guard) => Awaitable<void>;

async function lookAndRelease(guard: Guard | null, look: Look): Promise<Guard | null> {
  if (guard === null) return null;
  await look(guard);
  await guard.release();
  return guard;
}

/** A nested call: `look` is called while its guard is open. */
const ways = {
  'a call': async (lock: SharedLock, options: Options, look: Look): Promise<unknown> =>
    lookAndRelease(await lock.acquire(options), look),
  'a callback': (lock: SharedLock, options: Options, look: Look): Promise<unknown> =>
    lock.acquire(options, async (guard) => {
      await look(guard);
      await new Promise(setImmediate);
      await look(guard);
    }),
  'a try': async (lock: SharedLock, { exclusive }: Options, look: Look): Promise<unknown> =>
    lookAndRelease(await lock.tryAcquire({ exclusive }), look),
};
type Way = keyof typeof ways;
const WAYS = Object.keys(ways) as Way[];

/** While the lock is held. With `within`, its nested calls name that guard. */
type Nested = (outer: Guard, within?: Guard) => Promise<void>;

interface OwnerKind {
  hold(lock: SharedLock, mode: LockMode, nested: Nested): Promise<void>;
  /** The nested calls that belong to this owner. The others belong to somebody else. */
  owns: readonly Way[];
}

const owners: Record<string, OwnerKind> = {
  'a callback': {
    owns: WAYS,
    hold: (lock, mode, nested) => lock.acquire(exclusiveIf(mode), (guard) => nested(guard)),
  },
  'a callback, turns later': {
    owns: WAYS,
    hold: (lock, mode, nested) =>
      lock.acquire(exclusiveIf(mode), async (guard) => {
        await new Promise(setImmediate);
        await new Promise<void>((resolve) => process.nextTick(resolve));
        await nested(guard);
      }),
  },
  'whoever names the guard': {
    owns: ['a call', 'a callback'],
    async hold(lock, mode, nested) {
      const guard = await lock.acquire(exclusiveIf(mode));
      await nested(guard, guard);
      await guard.release();
    },
  },
  'whoever names the guard of a try': {
    owns: ['a call', 'a callback'],
    async hold(lock, mode, nested) {
      const guard = (await lock.tryAcquire(exclusiveIf(mode)))!;
      await nested(guard, guard);
      await guard.release();
    },
  },
  'whoever names the guard of a callback, inside': {
    owns: WAYS,
    hold: (lock, mode, nested) => lock.acquire(exclusiveIf(mode), (guard) => nested(guard, guard)),
  },
  'whoever names the guard of a callback, outside': {
    owns: ['a call', 'a callback'],
    async hold(lock, mode, nested) {
      const outside = AsyncResource.bind(nested);
      await lock.acquire(exclusiveIf(mode), (guard) => outside(guard, guard));
    },
  },
  'nobody, for the calls name no guard': {
    owns: [],
    async hold(lock, mode, nested) {
      const guard = await lock.acquire(exclusiveIf(mode));
      await nested(guard);
      await guard.release();
    },
  },
};

/** `nested`: one more guard of the same hold. `beside`: a hold of its own. `null`, or the code of an error: refused. */
type Outcome = 'nested' | 'beside' | null | string;

interface Cell {
  className: ClassName;
  held: LockMode;
  wanted: LockMode;
  isOwner: boolean;
  way: Way;
  alone: boolean;
}

function expectedOf({ className, held, wanted, isOwner, way, alone }: Cell): Outcome {
  const refused = (code: string) => (way === 'a try' ? null : code);
  if (isOwner) {
    if (held === 'shared' && wanted === 'exclusive') return refused('ERR_LOCK_UPGRADE');
    return className.includes('RLock') ? 'nested' : refused('ERR_LOCK_NOT_REENTRANT');
  }
  if (alone && held === 'shared' && wanted === 'shared') return 'beside';
  return refused('ERR_LOCK_TIMEOUT');
}

async function checkCell(stage: Stage, lock: SharedLock, outer: Guard, cell: Cell, within?: Guard) {
  const expected = expectedOf(cell);
  const isGranted = expected === 'nested' || expected === 'beside';
  const before = await stage.query();
  let looks = 0;
  const look = async (guard: Guard) => {
    looks++;
    expect(guard.lock).toBe(lock);
    expect(guard).toMatchObject({ mode: cell.wanted, token: outer.token, released: false });
    const now = await stage.query();
    expect(now.pending).toEqual(before.pending);
    expect(now.held).toEqual(expect.arrayContaining(before.held));
    expect(now.held).toHaveLength(before.held.length + (expected === 'nested' ? 0 : 1));
  };
  // Nobody whom the table refuses waits; nobody who is granted anything has to.
  const timeout = cell.isOwner && !isGranted ? 5000 : 0;
  const options = { ...exclusiveIf(cell.wanted), timeout, ...(within && { within }) };
  const call = () => ways[cell.way](lock, options, look);
  if (isGranted) {
    await call();
    expect(looks).toBeGreaterThan(0);
  } else if (expected === null) {
    expect(await call()).toBeNull();
  } else {
    const error = await (cell.isOwner ? atOnce(errorOf(call)) : errorOf(call));
    expect(error).toMatchObject({ name: 'LockError', code: expected });
    if (expected === 'ERR_LOCK_UPGRADE') expect((error as Error).message).toContain(UPGRADE_TEXT);
  }
  if (!isGranted) expect(looks).toBe(0);
  expect(await stage.query()).toEqual(before);
}

export const ownerTable: Cases = (property, traits) => {
  for (const { className, held, wanted } of ROWS) {
    for (const [kind, owner] of Object.entries(owners)) {
      // A try that does not ask anybody is a sync call, whose owner is the thread.
      if (kind === 'whoever names the guard of a try' && !traits.remote) continue;
      property(`${className}, ${held} held by ${kind}, ${wanted} wanted`, async (stage) => {
        for (const alone of [true, false]) {
          const lock = stage.make(className);
          const beginOutside = AsyncResource.bind((begin: () => Promise<Guard>) => begin());
          const others: Promise<Guard>[] = [];
          await owner.hold(lock, held, async (outer, within) => {
            // A shared holder beside, if that is possible, and a writer and a reader who come next.
            if (!alone) {
              const another = stage.make('SharedLock');
              if (held === 'shared') others.push(Promise.resolve(await beginOutside(() => another.shared())));
              for (const mode of ['exclusive', 'shared'] as const)
                others.push((await stage.queue(() => beginOutside(() => another[mode]()))).promise);
            }
            for (const way of WAYS) {
              const cell = { className, held, wanted, isOwner: owner.owns.includes(way), way, alone };
              try {
                await checkCell(stage, lock, outer, cell, within);
              } catch (error) {
                throw new Error(`${way}, ${alone ? 'alone' : 'with others'}: ${(error as Error).message}`);
              }
            }
          });
          for (const other of others) await (await other).release();
        }
      });
    }
  }
};

export const owner: Cases = (property) => {
  property(
    'two callbacks that run at the same time are two owners, and exclude each other',
    async (stage) => {
      const lock = stage.make('SharedRLock');
      const order: string[] = [];
      const job = (label: string) => async () => {
        order.push(`${label} begins`);
        await new Promise(setImmediate);
        await lock.exclusive(() => {}); // nests in its own
        order.push(`${label} ends`);
      };
      await Promise.all([lock.exclusive(job('one')), lock.exclusive(job('two'))]);
      expect(order).toEqual(['one begins', 'one ends', 'two begins', 'two ends']);
    },
  );

  property('what runs beside a callback does not nest in it', async (stage) => {
    const lock = stage.make('RLock');
    const inside = deferred();
    const end = deferred();
    const callback = lock.acquire(async () => {
      inside.resolve();
      await end.promise;
    });
    await inside.promise;
    expect(await lock.tryAcquire()).toBeNull();
    await expectError(() => lock.acquire({ timeout: 0 }), 'ERR_LOCK_TIMEOUT');
    end.resolve();
    await callback;
  });

  property('a hold is counted, and ends with the last of its guards, whichever that is', async (stage) => {
    const other = await stage.other();
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 2, 0],
    ]) {
      const lock = stage.make('SharedRLock');
      const outer = await lock.exclusive();
      const guards = [outer, await lock.shared({ within: outer }), await lock.exclusive({ within: outer })];
      expect((await stage.query()).held).toMatchObject([{ mode: 'exclusive' }]);
      for (const [n, index] of order.entries()) {
        await guards[index]!.release();
        await expectError(() => guards[index]!.release(), 'ERR_LOCK_NOT_HELD');
        const free = await other.try('shared');
        if (n < 2) expect(free).toBeNull();
        else expect(free).not.toBeNull();
      }
      await other.release();
    }
  });

  property('callbacks nest to any depth, and release with the outermost', async (stage) => {
    const other = await stage.other();
    const lock = stage.make('RLock');
    const deep = async (depth: number): Promise<number> =>
      depth === 0
        ? (await stage.query()).held.length
        : lock.acquire(async () => {
            const found = await deep(depth - 1);
            expect(await other.try('shared')).toBeNull();
            return found;
          });
    expect(await deep(10)).toBe(1);
    expect(await other.try('exclusive')).not.toBeNull();
    await other.release();
  });

  property(
    'an acquire within a guard belongs to its owner, also in a chain, and a callback to it as well',
    async (stage) => {
      const lock = stage.make('SharedRLock');
      const first = await lock.exclusive();
      const second = await lock.shared({ within: first });
      await lock.exclusive({ within: second }, async (third) => {
        await lock.shared({ within: third }, () => {});
        await lock.shared(() => {}); // by the context
        const tried = await lock.tryShared();
        expect((await stage.query()).held).toHaveLength(1);
        await tried!.release();
      });
      await first.release();
      await second.release();
    },
  );

  property(
    'a callback that has settled owns nothing: what it left running excludes others as anybody',
    async (stage) => {
      const lock = stage.make('RLock');
      const go = deferred();
      let later: Promise<Guard | null> | undefined;
      await lock.acquire(() => {
        later = go.promise.then(() => lock.tryAcquire());
      });
      const guard = await lock.acquire();
      go.resolve();
      expect(await later).toBeNull();
      await guard.release();
    },
  );

  property('an owner of one lock is free to take another', async (stage) => {
    const second = stage.make('SharedLock', 'second');
    await stage.lock.shared(async (outer) => {
      await second.exclusive(async () => {
        expect((await stage.query()).held).toHaveLength(2);
      });
      await (await second.exclusive({ within: outer })).release();
    });
  });

  property('what is acquired within a guard of another lock belongs to the same owner', async (stage) => {
    const first = await stage.lock.exclusive();
    const second = stage.make('SharedRLock', 'second');
    const held = await second.exclusive({ within: first });
    const nested = await second.shared({ within: first });
    expect((await second.query()).held).toHaveLength(1);
    await expectError(
      () => stage.make('Lock', 'second').acquire({ within: first }),
      'ERR_LOCK_NOT_REENTRANT',
    );
    await nested.release();
    await held.release();
    await (await second.exclusive({ within: first })).release();
    // A callback is an owner of its own, and sees what that of the guard has.
    await second.exclusive({ within: first }, async () => {
      await expectError(() => stage.lock.shared(), 'ERR_LOCK_NOT_REENTRANT');
    });
    await first.release();
  });

  property('a non-reentrant class refuses what a reentrant one of the same name holds', async (stage) => {
    const lock = stage.make('SharedRLock');
    await lock.exclusive(async () => {
      await expectError(() => stage.lock.shared(), 'ERR_LOCK_NOT_REENTRANT');
      await expectError(() => stage.make('Lock').acquire(), 'ERR_LOCK_NOT_REENTRANT');
      expect(await stage.lock.tryShared()).toBeNull();
      await stage.make('RLock').acquire(() => {});
    });
  });
};
