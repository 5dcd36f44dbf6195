// An etcd whose database is full: it refuses what makes that larger, and is to take nothing away from those who have something.
import { LockError } from '../../../lib/common/errors';
import { toLockError } from '../../../lib/engines/etcd/errors';
import { Lease } from '../../../lib/engines/etcd/lease';
import type { EtcdSession } from '../../../lib/engines/etcd/session';
import type { Reply, Txn } from '../../../lib/engines/etcd/txn';
import { SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over etcd', () => {
  const fixture = new Fixture();
  const leaving = { repaired: false, flight: false };
  const slot = (id: number, mode: 'shared' | 'exclusive') => ({ id, name: fixture.name, mode });
  const full = new LockError('ERR_LOCK_NO_SPACE', 'the database is full');

  afterEach(() => {
    jest.restoreAllMocks();
  });

  /** All grants and upgrades are refused to that session from now on, and made all the same. */
  function refuseWhatIsDone({ lease }: EtcdSession): { times: number } {
    const { transact } = Lease.prototype;
    const refused = { times: 0 };
    jest.spyOn(lease, 'transact').mockImplementation(async (what, wanted) => {
      const outcome = await transact.call(lease, what, wanted);
      if (wanted.as !== 'free') return outcome;
      refused.times++;
      throw full;
    });
    return refused;
  }

  async function expectFree(): Promise<void> {
    const { session } = await fixture.session();
    expect(await session.acquire(slot(1, 'exclusive'), 'try')).toMatchObject({
      state: 'granted',
      grant: { abandoned: null },
    });
    expect(await session.release(slot(1, 'exclusive'), leaving)).toBe(true);
    expect(await fixture.traces()).toBe(0);
  }

  describe('what was refused, and done all the same:', () => {
    /** Its wait of number 2 was granted, which etcd refuses to tell. */
    async function sessionWithRefusedGrant() {
      const holder = await fixture.session();
      const waiter = await fixture.session();
      await holder.session.acquire(slot(1, 'exclusive'), 'wait');
      await waiter.session.acquire(slot(2, 'exclusive'), 'wait');
      const refused = refuseWhatIsDone(waiter.session);
      await holder.session.release(slot(1, 'exclusive'), leaving);
      await until(() => refused.times > 0);
      return waiter;
    }

    test('an acquire is taken back', async () => {
      const { session } = await fixture.session();
      refuseWhatIsDone(session);
      await expect(session.acquire(slot(1, 'exclusive'), 'wait')).rejects.toBe(full);
      expect(await session.withdraw(slot(1, 'exclusive'))).toBeUndefined();
      await expectFree();
    });

    test.each(['withdrawn', 'closed'])('the grant of a wait, which is %s', async (how) => {
      const { session, granted } = await sessionWithRefusedGrant();
      if (how === 'closed') await session.close();
      else expect(await session.withdraw(slot(2, 'exclusive'))).toBeUndefined();
      expect(granted.size).toBe(0);
      await expectFree();
    });

    test('the grant of a wait that goes on is found', async () => {
      const { session, granted } = await sessionWithRefusedGrant();
      jest.restoreAllMocks();
      await until(() => granted.has(2));
      expect(await session.release(slot(2, 'exclusive'), leaving)).toBe(true);
      await expectFree();
    });

    test.each(['alone', 'barring'])('an upgrade (%s) keeps nobody out, and leaves no mark', async (how) => {
      const { session } = await fixture.session();
      const others = await fixture.session();
      await session.acquire(slot(1, 'shared'), 'wait');
      if (how === 'barring') await others.session.acquire(slot(1, 'shared'), 'wait');
      refuseWhatIsDone(session);
      await expect(session.upgrade(slot(1, 'shared'), 'wait')).rejects.toBe(full);
      expect(await others.session.acquire(slot(2, 'shared'), 'try')).toMatchObject({ state: 'granted' });
      for (const id of [1, 2]) await others.session.release(slot(id, 'shared'), leaving);
      expect(await session.release(slot(1, 'shared'), leaving)).toBe(true);
      await expectFree();
    });

    test('the grant of an upgrade that is withdrawn is told', async () => {
      const { session } = await fixture.session();
      const others = await fixture.session();
      for (const one of [session, others.session]) await one.acquire(slot(1, 'shared'), 'wait');
      await session.upgrade(slot(1, 'shared'), 'wait');
      const refused = refuseWhatIsDone(session);
      await others.session.release(slot(1, 'shared'), leaving);
      await until(() => refused.times > 0);
      expect(await session.withdraw(slot(1, 'shared'))).toMatchObject({ abandoned: null });
      expect(await session.downgrade(slot(1, 'shared'), false)).toBe(true);
      expect(await others.session.acquire(slot(2, 'shared'), 'try')).toMatchObject({ state: 'granted' });
      await others.session.release(slot(2, 'shared'), leaving);
      await session.release(slot(1, 'shared'), leaving);
      await expectFree();
    });
  });

  test('a full database ends no session: who waits has the lock once there is space', async () => {
    const space = await fixture.space();
    const lock = new SharedLock(fixture.name, { space });
    const healthy = await new SharedLock(`${fixture.name} too`, { space }).exclusive();
    const held = await (await fixture.lock()).exclusive();
    const wait = lock.exclusive();
    await fixture.untilPending(lock, 1);
    const { transact } = Lease.prototype;
    let refusals = 2;
    const spy = jest.spyOn(Lease.prototype, 'transact').mockImplementation(async function (
      this: Lease,
      what,
      wanted,
    ) {
      if (wanted.as !== 'free' || refusals-- <= 0) return transact.call(this, what, wanted);
      throw new LockError('ERR_LOCK_NO_SPACE', 'the database is full');
    });
    await held.release();
    const guard = await wait;
    spy.mockRestore();
    expect(refusals).toBe(-1);
    expect(healthy.lost.aborted).toBe(false);
    await healthy.release();
    await guard.release();
    expect(await fixture.traces()).toBe(0);
  });

  test('nor does a lost answer meanwhile: it is asked again once there is space', async () => {
    const space = await fixture.space();
    const healthy = await new SharedLock(`${fixture.name} too`, { space }).exclusive();
    const guard = await new SharedLock(fixture.name, { space }).exclusive();
    const leases = Lease.prototype as unknown as { change(what: string, wanted: Txn): Promise<Reply> };
    const { change } = leases;
    const refusals = [
      new LockError('ERR_LOCK_UNAVAILABLE', 'no answer'),
      new LockError('ERR_LOCK_NO_SPACE', 'the database is full'),
      new LockError('ERR_LOCK_NO_SPACE', 'the database is full'),
    ];
    const spy = jest.spyOn(leases, 'change').mockImplementation(async function (this: object, ...args) {
      const refusal = refusals.shift();
      if (refusal !== undefined) throw refusal;
      return change.apply(this, args);
    });
    await guard.release();
    spy.mockRestore();
    expect(refusals).toEqual([]);
    expect(healthy.lost.aborted).toBe(false);
    await healthy.release();
    expect(await fixture.traces()).toBe(0);
  });

  test('a full database is told at once', () => {
    const details = 'etcdserver: mvcc: database space exceeded';
    const error = Object.assign(new Error(), { code: 8, details });
    expect(toLockError('acquire', error, '')).toMatchObject({ code: 'ERR_LOCK_NO_SPACE' });
  });
});
