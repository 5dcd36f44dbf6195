// What a guard promises: released once, disposed as often as you like, downgraded without a gap, numbered for ever.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { until } from '../../support/until';
import type { Guard, SharedLock } from '../infrastructure';
import { type Cases, expectError, MODES } from '../stage';

const acquires = {
  call: (lock: SharedLock, mode: 'shared' | 'exclusive') => lock[mode](),
  try: async (lock: SharedLock, mode: 'shared' | 'exclusive') =>
    (await lock.tryAcquire({ exclusive: mode === 'exclusive' }))!,
};

export const guards: Cases = (property) => {
  for (const [way, acquire] of Object.entries(acquires)) {
    for (const mode of MODES) {
      property(
        `a ${mode} guard of a ${way} knows its lock and mode, and whether it was released`,
        async (stage) => {
          const guard = await acquire(stage.lock, mode);
          expect(guard.lock).toBe(stage.lock);
          expect(guard).toMatchObject({ mode, released: false, abandoned: null });
          expect(typeof guard.token).toBe('bigint');
          await guard.release();
          expect(guard.released).toBe(true);
          await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
          await expectError(() => guard.downgrade(), 'ERR_LOCK_NOT_HELD');
        },
      );

      property(
        `a second release of a ${mode} guard of a ${way} takes nothing from whoever holds now`,
        async (stage) => {
          const first = await acquire(stage.lock, mode);
          await first.release();
          const second = await acquire(stage.lock, mode);
          await expectError(() => first.release(), 'ERR_LOCK_NOT_HELD');
          await first[Symbol.asyncDispose]();
          expect(second.released).toBe(false);
          await stage.expectState([[stage, mode]]);
          await second.release();
        },
      );
    }
  }

  property('a guard is disposed as often as you like, also after a release', async (stage) => {
    for (const released of [false, true]) {
      const guard = await stage.lock.exclusive();
      if (released) await guard.release();
      for (let n = 0; n < 3; n++) expect(await guard[Symbol.asyncDispose]()).toBeUndefined();
      expect(guard.released).toBe(true);
      await stage.expectIdle();
      await expectError(() => guard.release(), 'ERR_LOCK_NOT_HELD');
    }
  });

  property('`await using` releases at the end of the block, and when it throws', async (stage) => {
    const { lock } = stage;
    {
      await using guard = await lock.exclusive();
      expect(guard.released).toBe(false);
      await stage.expectState([[stage, 'exclusive']]);
    }
    await stage.expectIdle();
    const failing = async () => {
      await using _guard = await lock.shared();
      throw new Error('in the block');
    };
    await expect(failing()).rejects.toThrow('in the block');
    await stage.expectIdle();
  });

  property('a downgrade lets waiting readers in, and no writer', async (stage) => {
    const [reader, writer, late] = await stage.threeOthers();
    const guard = await stage.lock.exclusive();
    const { token } = guard;
    const read = await reader.queue('shared');
    const write = await writer.queue('exclusive');
    await guard.downgrade();
    expect(guard).toMatchObject({ mode: 'shared', token, released: false });
    await read.promise;
    expect(write.settled).toBe(false);
    expect(await late.try('shared')).toBeNull(); // behind the writer
    await stage.expectState(
      [
        [stage, 'shared'],
        [reader, 'shared'],
      ],
      [[writer, 'exclusive']],
    );
    await reader.release();
    expect(write.settled).toBe(false);
    await guard.release();
    await write.promise;
    await writer.release();
  });

  property('a downgrade goes to nobody in between, not even to the writer in front', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    const write = await other.queue('exclusive');
    await guard.downgrade();
    await stage.expectState([[stage, 'shared']], [[other, 'exclusive']]);
    expect(write.settled).toBe(false);
    await guard.release();
    await write.promise;
    await other.release();
  });

  property('what is shared can not be downgraded, nor what nested guards count on', async (stage) => {
    const shared = await stage.lock.shared();
    await expectError(() => shared.downgrade(), 'ERR_LOCK_NOT_HELD');
    await shared.release();
    const lock = stage.make('SharedRLock');
    const outer = await lock.exclusive();
    const nested = await lock.exclusive({ within: outer });
    for (const guard of [outer, nested]) {
      await expectError(() => guard.downgrade(), 'ERR_LOCK_NOT_REENTRANT');
      expect(guard.mode).toBe('exclusive');
    }
    await nested.release();
    await outer.downgrade();
    await stage.expectState([[stage, 'shared']]);
    await expectError(() => outer.downgrade(), 'ERR_LOCK_NOT_HELD');
    await outer.release();
  });

  property(
    'after a downgrade its owner holds shared: more of that nests, exclusive is refused',
    async (stage) => {
      const lock = stage.make('SharedRLock');
      await lock.exclusive(async (guard) => {
        await guard.downgrade();
        await lock.shared(() => {});
        await expectError(() => lock.exclusive(), 'ERR_LOCK_UPGRADE');
        expect(await lock.tryExclusive()).toBeNull();
      });
    },
  );
};

export const tokens: Cases = (property) => {
  property('the token grows with every exclusive grant, whoever gets it, and however', async (stage) => {
    const [one, two] = await stage.twoOthers();
    let last = 0n;
    const expectGrowth = (token: bigint | string) => {
      expect(BigInt(token) > last).toBe(true);
      last = BigInt(token);
    };
    for (let round = 0; round < 3; round++) {
      for (const other of [one, two]) {
        expectGrowth((await other.acquire('exclusive')).token);
        await other.release();
        expectGrowth((await other.try('exclusive', { class: 'RLock' }))!.token);
        await other.release();
      }
      const guard = await stage.lock.exclusive();
      expectGrowth(guard.token);
      const waiting = await one.queue('exclusive');
      await guard.release();
      expectGrowth((await waiting.promise).token);
      await one.release();
      await stage.make('Lock').acquire(({ token }) => expectGrowth(token));
    }
  });

  property('a shared holder has the token of the last exclusive grant', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    const { token } = guard;
    const waiting = await other.queue('shared');
    await guard.release();
    expect((await waiting.promise).token).toBe(String(token));
    const beside = await stage.lock.shared();
    expect(beside.token).toBe(token);
    await other.release();
    await beside.release();
    const last = await stage.lock.exclusive();
    await last.downgrade();
    expect((await other.acquire('shared')).token).toBe(String(last.token));
    await other.release();
    await last.release();
  });

  property('that is so also when nobody held the lock in between, and others were used', async (stage) => {
    const guard = await stage.lock.exclusive();
    await guard.release();
    await stage.make('SharedLock', 'another').exclusive(() => {});
    const reader = await stage.lock.shared();
    // An engine may forget a lock that nobody uses. Whoever comes next has no smaller token.
    expect(reader.token >= guard.token).toBe(true);
    await reader.release();
    const writer = await stage.lock.exclusive();
    expect(writer.token > reader.token).toBe(true);
    await writer.release();
  });

  property('nested acquires have the token of their hold', async (stage) => {
    const lock = stage.make('SharedRLock');
    await lock.exclusive(async ({ token }) => {
      await lock.exclusive((nested) => expect(nested.token).toBe(token));
      await lock.shared((nested) => expect(nested.token).toBe(token));
    });
  });

  property('a token is greater than those of holders that died', async (stage) => {
    let last = 0n;
    for (let round = 0; round < 2; round++) {
      const other = await stage.other();
      const { token } = await other.acquire('exclusive');
      expect(BigInt(token) > last).toBe(true);
      const waiting = await stage.queue(() => stage.lock.exclusive());
      await other.kill();
      const guard = await waiting.promise;
      expect(guard.token > BigInt(token)).toBe(true);
      last = guard.token;
      await guard.release();
    }
  });
};

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Finalizers run in turns of their own. */
const collectUntil = (condition: () => boolean | Promise<boolean>) =>
  until(async () => {
    collectGarbage();
    await new Promise(setImmediate);
    return condition();
  });

/** For where nothing is to be seen. */
async function collectAll(): Promise<void> {
  for (let n = 0; n < 5; n++) {
    collectGarbage();
    await new Promise(setImmediate);
  }
}

/** Nothing of these guards is left on the stack of whoever calls this. */
async function drop(acquire: () => Promise<Guard | null>): Promise<void> {
  expect(await acquire()).not.toBeNull();
  await new Promise(setImmediate);
}

/** Guards that other cases have dropped are found as well, at any time. */
const dropped = 'dropped';

/** Collects the warnings of dropped guards of that lock while `work` runs. */
async function warningsDuring(work: (warnings: unknown[]) => Promise<void>): Promise<unknown[]> {
  const warnings: unknown[] = [];
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation((text, options) => {
    if (String(text).includes(dropped)) warnings.push({ ...(options as object), text });
  });
  try {
    await work(warnings);
  } finally {
    warn.mockRestore();
  }
  return warnings;
}

export const leaks: Cases = (property, traits) => {
  for (const mode of MODES) {
    for (const [way, acquire] of Object.entries(acquires)) {
      property(
        `a ${mode} guard of a ${way} that is dropped: the lock is released, with a warning`,
        async (stage) => {
          const lock = stage.make('SharedLock', dropped);
          const warnings = await warningsDuring(async () => {
            await drop(() => acquire(lock, mode));
            await collectUntil(async () => (await stage.query()).held.length === 0);
          });
          expect(warnings).toMatchObject([{ code: 'PROCLOCK_LEAKED_GUARD' }]);
          await (await lock.exclusive()).release();
        },
      );
    }
  }

  property(
    'a callback that waits for what can not come: the lock is released, with a warning',
    async (stage) => {
      const lock = stage.make('SharedLock', dropped);
      const warnings = await warningsDuring(async () => {
        await new Promise<void>((called) => {
          lock
            .exclusive(() => {
              called();
              return new Promise(() => {});
            })
            .catch(() => {}); // where the space is closed
        });
        await collectUntil(async () => (await stage.query()).held.length === 0);
      });
      expect(warnings).toMatchObject([{ code: 'PROCLOCK_LEAKED_GUARD' }]);
    },
  );

  property('who waited for a guard that is dropped is granted', async (stage) => {
    const other = await stage.other();
    const lock = stage.make('SharedLock', dropped);
    const warnings = await warningsDuring(async () => {
      await drop(() => lock.exclusive());
      const waiting = await other.queue('exclusive', { name: dropped });
      await collectUntil(() => waiting.settled);
    });
    expect(warnings).toHaveLength(1);
    await other.release(dropped);
  });

  property('a guard that was lost before does no harm when it is dropped', async (stage) => {
    const lock = stage.make('SharedLock', dropped);
    const warnings = await warningsDuring(async (warnings) => {
      await drop(() => lock.exclusive());
      await stage.manager.request(dropped, { steal: true }, () => {});
      await collectUntil(() => warnings.length > 0);
    });
    expect(warnings).toMatchObject([{ text: expect.stringContaining('the hold had been lost before') }]);
    await (await lock.exclusive()).release();
  });

  property('a guard that is in use, or was released in whichever way, is no leak', async (stage) => {
    const lock = stage.make('SharedLock', dropped);
    const kept = await lock.shared();
    const warnings = await warningsDuring(async () => {
      for (let n = 0; n < 10; n++) {
        await (await lock.shared()).release();
        await lock.shared(() => new Promise(setImmediate));
        await (await lock.tryShared())![Symbol.asyncDispose]();
        const lasting = await lock.shared();
        await new Promise(setImmediate); // from now on it would be missed
        await new Promise(setImmediate);
        await lasting.release();
      }
      await collectAll();
    });
    expect(warnings).toEqual([]);
    await stage.expectState([[stage, 'shared']]);
    await kept.release();
  });

  if (!traits.remote) return;

  property('a guard of a space that was closed is no leak', async (stage) => {
    const lock = stage.make('SharedLock', dropped);
    const warnings = await warningsDuring(async () => {
      await drop(() => lock.exclusive());
      await stage.world.closeSpace!();
      await collectAll();
    });
    expect(warnings).toEqual([]);
  });
};
