// An etcd whose database is full: it refuses what makes that larger, and is to take nothing away from those who have something.
import { LockError } from '../../../lib/common/errors';
import { toLockError } from '../../../lib/engines/etcd/errors';
import { Lease } from '../../../lib/engines/etcd/lease';
import type { Reply, Txn } from '../../../lib/engines/etcd/txn';
import { SharedLock } from '../../../lib/remote';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('over etcd', () => {
  const fixture = new Fixture();

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
