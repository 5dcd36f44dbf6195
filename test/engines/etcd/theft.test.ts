// Thefts over etcd that meet somebody in between: who holds the lock is looked at first, and taken away then.
import { Lease } from '../../../lib/engines/etcd/lease';
import { EtcdSession } from '../../../lib/engines/etcd/session';
import { LockManager } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

/** More than are robbed at once, of which the one with the first number is among the first. */
const READERS = 12;
/** After so many looks of a thief nobody gets in his way any more. */
const LOOKS_MAX = 4;

describeWithServer('over etcd', () => {
  const fixture = new Fixture();
  const leaving = { repaired: false, flight: false };
  const slot = (id: number, mode: 'shared' | 'exclusive' = 'shared') => ({ id, name: fixture.name, mode });

  afterEach(() => {
    jest.restoreAllMocks();
  });

  /** Does something after each look of a thief, before he hears of it. */
  function afterEachLook(then: (looks: number) => Promise<void>): void {
    const { read } = Lease.prototype;
    let looks = 0;
    jest.spyOn(Lease.prototype, 'read').mockImplementation(async function (this: Lease, what, wanted) {
      const reply = await read.call(this, what, wanted);
      if (what === 'look who holds a lock') await then(++looks);
      return reply;
    });
  }

  test('a lock that new readers come to after each look is stolen all the same', async () => {
    const readers = await fixture.session();
    const thief = await fixture.session();
    const states: string[] = [];
    afterEachLook(async (looks) => {
      states.push((await readers.session.acquire(slot(looks), 'try')).state);
    });
    expect(await thief.session.acquire(slot(1, 'exclusive'), 'steal')).toMatchObject({ state: 'granted' });
    expect(states).toEqual(['granted', 'refused']);
    await until(() => readers.robbed.has(1));
    expect(await thief.session.release(slot(1), leaving)).toBe(true);
    expect(await readers.session.acquire(slot(9), 'try')).toMatchObject({ state: 'granted' });
  });

  test('so is one that is released, and taken exclusively by another one, after each look', async () => {
    const takers = await fixture.session();
    const thief = await fixture.session();
    const states: string[] = [];
    afterEachLook(async (looks) => {
      if (looks > LOOKS_MAX) return;
      await takers.session.release(slot(looks - 1), leaving);
      states.push((await takers.session.acquire(slot(looks, 'exclusive'), 'try')).state);
    });
    expect(await thief.session.acquire(slot(1, 'exclusive'), 'steal')).toMatchObject({ state: 'granted' });
    expect(states).toEqual(['granted', 'refused']);
  });

  test('an exclusive one that comes during the theft has the lock after the thief', async () => {
    const others = await fixture.session();
    const thief = await fixture.session();
    afterEachLook(async (looks) => {
      if (looks === 1) await others.session.acquire(slot(1), 'try');
      else await others.session.release(slot(1), leaving);
      if (looks > 1)
        expect(await others.session.acquire(slot(2, 'exclusive'), 'wait')).toMatchObject({ state: 'queued' });
    });
    expect(await thief.session.acquire(slot(1, 'exclusive'), 'steal')).toMatchObject({ state: 'granted' });
    expect(others.granted.has(2)).toBe(false);
    expect(await thief.session.release(slot(1), leaving)).toBe(true);
    await until(() => others.granted.has(2));
  });

  test('one that takes several steps, and is given up between them, keeps nobody out', async () => {
    const readers = await fixture.session();
    const thief = await fixture.session();
    for (let id = 1; id <= READERS; id++) await readers.session.acquire(slot(id), 'wait');
    expect(await readers.session.upgrade(slot(1), 'wait')).toMatchObject({ state: 'queued' });
    let withdrawn: Promise<unknown> | undefined;
    afterEachLook(async (looks) => {
      if (looks === 2) withdrawn = thief.session.withdraw(slot(1));
    });
    expect(await thief.session.acquire(slot(1, 'exclusive'), 'steal')).toEqual({ state: 'refused' });
    expect(await withdrawn).toBeUndefined();
    await until(() => readers.robbed.has(1));
    expect(await readers.session.acquire(slot(READERS + 1), 'try')).toMatchObject({ state: 'granted' });
  });

  test('one that failed in between, and is taken back, keeps nobody out', async () => {
    const readers = await fixture.session();
    const thief = await fixture.session();
    afterEachLook(async (looks) => {
      if (looks === 2) throw new Error('no answer');
      await readers.session.acquire(slot(looks), 'try');
    });
    await expect(thief.session.acquire(slot(1, 'exclusive'), 'steal')).rejects.toThrow('no answer');
    expect(await readers.session.acquire(slot(8), 'try')).toEqual({ state: 'refused' });
    expect(await thief.session.withdraw(slot(1))).toBeUndefined();
    expect(await readers.session.acquire(slot(9), 'try')).toMatchObject({ state: 'granted' });
  });

  test('whoever was robbed, and has not heard of it, has no lock to upgrade', async () => {
    const lock = await fixture.lock();
    const guard = await lock.shared();
    jest
      .spyOn(EtcdSession.prototype as unknown as { mailboxChanged(): void }, 'mailboxChanged')
      .mockImplementation(() => {});
    await new LockManager({ space: await fixture.space() }).request(lock.name, { steal: true }, () => {});
    await expect(guard.upgrade()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    expect(guard.lost.aborted).toBe(true);
  });
});
