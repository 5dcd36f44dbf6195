// A standby keeps no locks. Promoted, it knows nothing of the last grants of the primary, and its tokens are greater all the
// same.
import { connect } from '../../../lib/postgres';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

describeWithServer('a standby', () => {
  const fixture = new Fixture();

  test('is refused; once it is promoted, waiters get there, and tokens go on', async () => {
    const lock = await fixture.lock();
    const first = await lock.exclusive();
    await first.release();
    const standby = await fixture.server.standby();
    fixture.atEnd(() => standby.stop());
    await expect(connect(standby.url())).rejects.toMatchObject({
      code: 'ERR_LOCK_UNAVAILABLE',
      message: expect.stringContaining('standby'),
    });
    // What the standby never hears of.
    let last = first.token;
    for (let round = 0; round < 100; round++) {
      const guard = await lock.exclusive();
      last = guard.token;
      await guard.release();
    }
    await fixture.server.sql('update proclock.locks set token = token + 30000000');
    last += 30_000_000n;
    await standby.sql('select pg_promote()');
    const promoted = await fixture.lock({}, standby.url());
    const guard = await promoted.exclusive();
    expect(guard.token).toBeGreaterThan(last);
    await guard.release();
  });
});
