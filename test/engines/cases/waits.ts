// How a wait ends without the lock: its time is up, or it is aborted. Nobody is left in the queue behind the error.
import { getEventListeners } from 'node:events';
import type { Guard } from '../infrastructure';
import { type Cases, errorOf, expectError, MODES, name } from '../stage';

export const timeouts: Cases = (property) => {
  property('a timeout of 0 tries once: it fails with the holders, or has the lock', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    for (const mode of MODES) {
      const error = await errorOf(() => stage.lock[mode]({ timeout: 0 }));
      expect(error).toMatchObject({
        name: 'LockError',
        code: 'ERR_LOCK_TIMEOUT',
        holders: [{ name, mode: 'exclusive', pid: other.pid, threadId: 0, since: expect.any(Date) }],
      });
      expect(error.message).toContain(JSON.stringify(name));
      expect(error.message).toContain(String(other.pid));
      await stage.expectState([[other, 'exclusive']]);
    }
    await other.release();
    for (const mode of MODES) await (await stage.lock[mode]({ timeout: 0 })).release();
  });

  property('a timeout of 0 does not pass those who wait, and has them for no holders', async (stage) => {
    const [holder, writer] = await stage.twoOthers();
    await holder.acquire('shared');
    const waiting = await writer.queue('exclusive');
    const error = await errorOf(() => stage.lock.shared({ timeout: 0 }));
    expect(error).toMatchObject({ code: 'ERR_LOCK_TIMEOUT', holders: [{ mode: 'shared', pid: holder.pid }] });
    await holder.release();
    await waiting.promise;
    await writer.release();
  });

  property(
    'a timeout that passes: the error has the holders of that moment, and nobody waits any more',
    async (stage) => {
      const [one, two] = await stage.twoOthers();
      await one.acquire('shared');
      await two.acquire('shared');
      const begun = performance.now();
      const error = await errorOf(() => stage.lock.exclusive({ timeout: 30 }));
      expect(performance.now() - begun).toBeGreaterThan(28);
      expect(error).toMatchObject({
        code: 'ERR_LOCK_TIMEOUT',
        holders: [
          { name, mode: 'shared' },
          { name, mode: 'shared' },
        ],
      });
      await stage.expectState([
        [one, 'shared'],
        [two, 'shared'],
      ]);
      await one.release();
      await two.release();
    },
  );

  property('a timeout that passes lets in the readers behind', async (stage) => {
    const [holder, reader] = await stage.twoOthers();
    await holder.acquire('shared');
    const writer = await stage.queue(() => stage.lock.exclusive({ timeout: 3000 }));
    const read = await reader.queue('shared');
    await expectError(() => writer.promise, 'ERR_LOCK_TIMEOUT');
    await read.promise;
    await holder.release();
    await reader.release();
  });

  property('a timeout that does not pass does nothing, also after the grant', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    const waiting = await stage.queue(() => stage.lock.exclusive({ timeout: 5000 }));
    await other.release();
    const guard = await waiting.promise;
    await guard.release();
    await (await stage.lock.shared({ timeout: Number.POSITIVE_INFINITY })).release();
  });

  property('the wait of a peer has its timeout as well, and its error the holders', async (stage) => {
    const other = await stage.other();
    const guard = await stage.lock.exclusive();
    const error = await errorOf(() => other.acquire('shared', { timeout: 20 }));
    expect(error).toMatchObject({
      code: 'ERR_LOCK_TIMEOUT',
      holders: [{ mode: 'exclusive', pid: process.pid }],
    });
    await stage.expectState([[stage, 'exclusive']]);
    await guard.release();
  });
};

export const aborts: Cases = (property) => {
  property('an abort before the call rejects with its reason, also where the lock is free', async (stage) => {
    for (const reason of [new Error('of the caller'), 'text', { an: 'object' }]) {
      const signal = AbortSignal.abort(reason);
      for (const mode of MODES) {
        expect(await errorOf(() => stage.lock[mode]({ signal }))).toBe(reason);
        expect(await errorOf(() => stage.lock[mode]({ signal }, () => {}))).toBe(reason);
      }
    }
    expect(await errorOf(() => stage.lock.shared({ signal: AbortSignal.abort() }))).toMatchObject({
      name: 'AbortError',
    });
    await stage.expectIdle();
  });

  property('an abort during the wait rejects with its reason, and nobody waits any more', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    for (const mode of MODES) {
      const controller = new AbortController();
      const waiting = await stage.queue(() => stage.lock[mode]({ signal: controller.signal }));
      const reason = new Error('of the caller');
      controller.abort(reason);
      expect(await errorOf(() => waiting.promise)).toBe(reason);
      const seen = await other.query();
      expect(seen).toMatchObject({ held: [{ mode: 'exclusive' }], pending: [] });
    }
    await other.release();
  });

  property('one signal ends many waits', async (stage) => {
    const other = await stage.other();
    await other.acquire('exclusive');
    const { abort, signal } = (() => {
      const controller = new AbortController();
      return { abort: (reason: Error) => controller.abort(reason), signal: controller.signal };
    })();
    const waits = [];
    for (const mode of [...MODES, ...MODES]) {
      waits.push(await stage.queue((): Promise<Guard> => stage.lock[mode]({ signal })));
    }
    expect(getEventListeners(signal, 'abort')).toHaveLength(1); // more than ten are taken for a leak
    const reason = new Error('all of them');
    abort(reason);
    for (const { promise } of waits) expect(await errorOf(() => promise)).toBe(reason);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    await stage.expectState([[other, 'exclusive']]);
    await other.release();
  });

  property('an abort after the grant means nothing', async (stage) => {
    const controller = new AbortController();
    const guard = await stage.lock.exclusive({ signal: controller.signal });
    controller.abort(new Error('too late'));
    expect(guard.released).toBe(false);
    await stage.expectState([[stage, 'exclusive']]);
    await guard.release();
    const late = new AbortController();
    const result = await stage.lock.exclusive({ signal: late.signal }, async () => {
      late.abort(new Error('too late'));
      return 'done';
    });
    expect(result).toBe('done');
  });

  property('an abort that crosses the grant leaves nothing, whoever wins', async (stage) => {
    const other = await stage.other();
    for (let round = 0; round < 10; round++) {
      await other.acquire('exclusive');
      const controller = new AbortController();
      const waiting = await stage.queue(() => stage.lock.exclusive({ signal: controller.signal }));
      const released = other.release();
      for (let turns = 0; turns < round % 5; turns++) await null;
      controller.abort(new Error('crossing'));
      const guard = await waiting.promise.catch((error) => {
        expect(error).toMatchObject({ message: 'crossing' });
        return null;
      });
      await released;
      if (guard !== null) await stage.expectState([[stage, 'exclusive']]);
      await guard?.release();
      await stage.expectIdle();
    }
  });

  property('the listener of a signal is gone when the wait is over', async (stage) => {
    const controller = new AbortController();
    const { signal } = controller;
    const add = jest.spyOn(signal, 'addEventListener');
    const remove = jest.spyOn(signal, 'removeEventListener');
    const other = await stage.other();
    await (await stage.lock.shared({ signal })).release();
    await other.acquire('exclusive');
    await expectError(() => stage.lock.shared({ signal, timeout: 0 }), 'ERR_LOCK_TIMEOUT');
    await expectError(() => stage.lock.shared({ signal, timeout: 5 }), 'ERR_LOCK_TIMEOUT');
    const waiting = await stage.queue(() => stage.lock.exclusive({ signal }));
    await other.release();
    await (await waiting.promise).release();
    expect(remove.mock.calls.length).toBeGreaterThanOrEqual(add.mock.calls.length);
  });
};
