// A pooler that gives each transaction another connection can not keep locks, and is recognised; one in session mode can,
// as long as it keeps its promise.
import { connect } from '../../../lib/postgres';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';
import { Pooler } from './server';
import { ConnectionSwitch } from './switch';

const there = Pooler.isThere;
if (!there) console.log('skipped: there is no pgbouncer, and it can not be installed here');

(there ? describeWithServer : describe.skip)('pgbouncer', () => {
  const fixture = new Fixture();

  async function pooler(mode: 'session' | 'transaction'): Promise<Pooler> {
    const started = await Pooler.start(fixture.server, mode);
    fixture.atEnd(() => started.stop());
    return started;
  }

  test.each(['session', 'transaction'] as const)(
    'in %s mode is refused where nobody has said so',
    async (mode) => {
      const { url } = await pooler(mode);
      await expect(connect(url)).rejects.toMatchObject({
        code: 'ERR_LOCK_UNSUPPORTED',
        message: expect.stringContaining("pooler: 'session'"),
      });
    },
  );

  test('in transaction mode is refused also by whom has said so', async () => {
    const { url } = await pooler('transaction');
    await expect(connect(url, { pooler: 'session' })).rejects.toMatchObject({
      code: 'ERR_LOCK_UNSUPPORTED',
      message: expect.stringContaining('pool_mode = session'),
    });
  });

  test('in session mode keeps locks', async () => {
    const { url } = await pooler('session');
    const far = await fixture.lock({ pooler: 'session' }, url);
    const near = await fixture.lock();
    const guard = await far.exclusive();
    const waiting = near.exclusive();
    await fixture.untilPending(near, 1);
    await guard.release();
    const next = await waiting;
    const again = far.shared();
    await fixture.untilPending(near, 1);
    await next.release();
    await (await again).release();
  });

  test('in session mode: a process that is killed is noticed', async () => {
    const { url } = await pooler('session');
    const holder = await fixture.child({ pooler: 'session' }, url);
    const lock = await fixture.lock();
    await holder.hold(lock.name);
    const waiting = lock.exclusive();
    await fixture.untilPending(lock, 1);
    await holder.kill();
    const guard = await waiting;
    expect(guard.abandoned).toMatchObject({ pid: holder.pid });
    await guard.release();
  });
});

describeWithServer('a pooler in session mode', () => {
  const fixture = new Fixture();

  test('that changes the connection in the middle of a session is found out by the next question', async () => {
    const { port } = fixture.server;
    const pooler = await ConnectionSwitch.start(port);
    fixture.atEnd(() => pooler.stop());
    const lock = await fixture.lock(
      { pooler: 'session', ttl: 60_000 },
      fixture.server.url('postgres', pooler.port),
    );
    const guard = await lock.exclusive();
    await pooler.change();
    await expect(guard.release()).rejects.toMatchObject({
      code: 'ERR_LOCK_LOST',
      cause: { code: 'ERR_LOCK_UNSUPPORTED', message: expect.stringContaining('pool_mode = session') },
    });
    expect(guard.lost.aborted).toBe(true);
  });
});
