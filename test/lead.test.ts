// One of many leads, the others stand by.
import type { SharedLock, Term } from '../lib';
import { startActor } from './support/actor';
import { FREE, KINDS, type Kind, kinds, modesOf, turns } from './support/kinds';
import { name, withCode } from './support/locks';

/** A leader that goes on until it is told, by the test or by its signal. */
function office() {
  const terms: Term[] = [];
  let end: { resolve(value: string): void; reject(error: unknown): void };
  const begun: Array<() => void> = [];
  const fn = (term: Term) => {
    terms.push(term);
    begun.shift()?.();
    return new Promise<string>((resolve, reject) => {
      end = { resolve, reject };
    });
  };
  return {
    terms,
    fn,
    /** The next term begins. */
    next: () => new Promise<void>((resolve) => begun.push(resolve)),
    finish: (value: string) => end.resolve(value),
    fail: (error: unknown) => end.reject(error),
  };
}

describe.each(KINDS)('a leader %s', (kindName) => {
  let kind: Kind;
  let lock: SharedLock;
  beforeEach(() => {
    kind = kinds[kindName]!();
    lock = kind.make(name);
  });
  afterEach(async () => {
    expect(await modesOf(lock)).toEqual(FREE);
    lock.close();
  });
  const steal = () => kind.manager().request(name, { steal: true }, () => {});

  test('holds the lock exclusively, and its result is that of lead()', async () => {
    const led = await kind.lead(lock, async ({ signal, token, abandoned }) => {
      expect(await modesOf(lock)).toEqual({ held: ['exclusive'], pending: [] });
      expect([signal.aborted, typeof token, abandoned]).toEqual([false, 'bigint', null]);
      return 'led';
    });
    expect(led).toBe('led');
  });

  test('is the only one: the next one leads when it has ended, with a greater token', async () => {
    const [first, second] = [office(), office()];
    const begun = first.next();
    const firstLed = kind.lead(lock, first.fn);
    await begun;
    const secondBegun = second.next();
    const secondLed = kind.lead(kind.make(name), second.fn);
    await turns();
    expect(second.terms).toHaveLength(0);
    first.finish('first');
    expect(await firstLed).toBe('first');
    await secondBegun;
    expect(second.terms[0]!.token).toBeGreaterThan(first.terms[0]!.token);
    second.finish('second');
    expect(await secondLed).toBe('second');
  });

  test('that throws is through, and what it throws is what lead() rejects with', async () => {
    const error = new Error('of the leader');
    await expect(
      kind.lead(lock, () => {
        throw error;
      }),
    ).rejects.toBe(error);
  });

  test('that loses the lock is told, and campaigns again when it has settled', async () => {
    const leader = office();
    const first = leader.next();
    const led = kind.lead(lock, leader.fn);
    await first;
    const { signal } = leader.terms[0]!;
    const told = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await steal();
    await told;
    expect(signal.reason).toEqual(withCode('ERR_LOCK_LOST'));
    await turns();
    expect(leader.terms).toHaveLength(1); // it has not settled
    const second = leader.next();
    leader.finish('of no term');
    await second;
    expect(leader.terms[1]!.token).toBeGreaterThan(leader.terms[0]!.token);
    leader.finish('led');
    expect(await led).toBe('led');
  });

  test.each([
    ['with the reason of its signal', (reason: Error) => reason],
    ['with what an API makes of it', (reason: Error) => new Error('aborted', { cause: reason })],
  ])('that rejects %s campaigns again', async (_, thrown) => {
    const leader = office();
    const first = leader.next();
    const led = kind.lead(lock, leader.fn);
    await first;
    const { signal } = leader.terms[0]!;
    const told = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await steal();
    await told;
    const second = leader.next();
    leader.fail(thrown(signal.reason));
    await second;
    leader.finish('led');
    expect(await led).toBe('led');
  });

  test('within a hold of the same owner that is lost campaigns again, and the outer one tells of the loss', async () => {
    const reentrant = kind.make(name, 'RLock');
    let terms = 0;
    let led: string | undefined;
    const outer = reentrant.acquire(async () => {
      led = await kind.lead(reentrant, async () => {
        terms++;
        if (terms === 1) await steal();
        return `term ${terms}`;
      });
    });
    await expect(outer).rejects.toEqual(withCode('ERR_LOCK_LOST'));
    expect(led).toBe('term 2');
    reentrant.close();
  });

  test('that has lost the lock and throws something else is through', async () => {
    const leader = office();
    const first = leader.next();
    const led = kind.lead(lock, leader.fn);
    await first;
    await steal();
    const error = new Error('of the leader');
    leader.fail(error);
    await expect(led).rejects.toBe(error);
  });

  test('is told when the signal aborts, and settles as it likes', async () => {
    for (const end of ['finish', 'fail'] as const) {
      const controller = new AbortController();
      const leader = office();
      const begun = leader.next();
      const led = kind.lead(lock, leader.fn, { signal: controller.signal });
      led.catch(() => {});
      await begun;
      controller.abort(new Error('enough'));
      expect(leader.terms[0]!.signal.aborted).toBe(true);
      expect(leader.terms[0]!.signal.reason).toBe(controller.signal.reason);
      await turns();
      expect(await modesOf(lock)).toEqual({ held: ['exclusive'], pending: [] });
      if (end === 'finish') {
        leader.finish('led');
        expect(await led).toBe('led');
      } else {
        leader.fail(controller.signal.reason);
        await expect(led).rejects.toBe(controller.signal.reason);
      }
    }
  });

  test('that was told to end and lost the lock besides does not campaign again', async () => {
    const controller = new AbortController();
    const leader = office();
    const begun = leader.next();
    const led = kind.lead(lock, leader.fn, { signal: controller.signal });
    await begun;
    controller.abort();
    await steal();
    leader.finish('led');
    expect(await led).toBe('led');
    expect(leader.terms).toHaveLength(1);
  });

  test('leaves no listener on the signal that it was given', async () => {
    const { signal } = new AbortController();
    const add = jest.spyOn(signal, 'addEventListener');
    const remove = jest.spyOn(signal, 'removeEventListener');
    for (let n = 0; n < 3; n++) await kind.lead(lock, () => n, { signal });
    expect(remove.mock.calls.length).toBeGreaterThanOrEqual(add.mock.calls.length);
  });

  test('to be rejects with the reason of the signal at once', async () => {
    const guard = await lock.exclusive();
    const controller = new AbortController();
    const standing = kind.lead(lock, () => {}, { signal: controller.signal });
    await turns();
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(standing).rejects.toBe(reason);
    expect(await modesOf(lock)).toEqual({ held: ['exclusive'], pending: [] });
    await expect(kind.lead(lock, () => {}, { signal: controller.signal })).rejects.toBe(reason);
    await guard.release();
  });

  test('is not made of wrong arguments', async () => {
    const wrong: Array<[unknown, unknown, unknown]> = [
      ['lock', () => {}, {}],
      [lock, undefined, {}],
      [lock, () => {}, null],
      [lock, () => {}, { signal: 'signal' }],
    ];
    for (const [one, fn, options] of wrong) {
      await expect(kind.lead(one as never, fn as never, options as never)).rejects.toEqual(
        withCode('ERR_INVALID_ARG_TYPE'),
      );
    }
  });
});

test('the next process leads when the leader is killed, and is told', async () => {
  const kind = kinds['in shared memory']!();
  const lock = kind.make(name);
  const { namespace } = lock;
  const leader = await startActor('fork', { namespace });
  const began = leader.run<string>(
    `const ours = lock({ name: args.name });
    return new Promise((tell) => proclock.lead(ours, ({ token }) => {
      tell(String(token));
      return new Promise(() => setInterval(() => {}, 1000));
    }));`,
    { name },
  );
  const token = BigInt(await began);
  const next = kind.lead(lock, ({ abandoned }) => abandoned);
  await turns();
  await leader.kill();
  expect(await next).toMatchObject({ pid: leader.pid, token });
  lock.close();
});
