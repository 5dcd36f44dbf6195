// Over PostgreSQL, whatever its version, a lock does what it does over every engine: one call at a time, between two spaces.
import { connect } from '../../../lib/postgres';
import { LockManager, SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { PostgresServer } from './server';
import { binariesOf, VERSIONS } from './versions';

const SYSTEM = 'of the system';
const others = Object.entries(VERSIONS).map(([version, exactly]) => {
  const binaries = binariesOf(exactly);
  if (typeof binaries === 'string') console.log(`skipped: PostgreSQL ${version}, for ${binaries}`);
  return [version, binaries] as const;
});
afterAll(() => {
  for (const [, binaries] of others) if (typeof binaries !== 'string') binaries.remove();
});

describe.each([[SYSTEM, undefined] as const, ...others])('PostgreSQL %s', (version, binaries) => {
  const describeVersion =
    version === SYSTEM ? describeWithServer : typeof binaries === 'string' ? describe.skip : describe;
  describeVersion('a lock', () => locks(version, binaries));
});

function locks(version: string, binaries: ReturnType<typeof binariesOf> | undefined): void {
  const bin = typeof binaries === 'object' ? binaries.bin : undefined;
  let server: PostgresServer;
  let one: Space;
  let two: Space;
  let mine: SharedLock;
  let theirs: SharedLock;
  let number = 0;

  beforeAll(async () => {
    server = await PostgresServer.start({}, undefined, bin);
  });
  afterAll(() => server.stop());

  beforeEach(async () => {
    [one, two] = await Promise.all([connect(server.url()), connect(server.url())]);
    const name = `lock ${++number}`;
    mine = new SharedLock(name, { space: one });
    theirs = new SharedLock(name, { space: two });
  });
  afterEach(async () => {
    await one.close();
    await two.close();
    expect(await server.leftovers()).toBe(0);
  });

  const untilPending = (count: number) => until(async () => (await mine.query()).pending.length === count);

  test('excludes, and is handed on in the order of the queue', async () => {
    const first = await mine.exclusive();
    const order: string[] = [];
    const second = theirs.exclusive().then((guard) => {
      order.push('second');
      return guard;
    });
    await untilPending(1);
    const third = mine.shared().then((guard) => {
      order.push('third');
      return guard;
    });
    await untilPending(2);
    expect(await theirs.tryShared()).toBeNull();
    await first.release();
    const exclusive = await second;
    expect(exclusive.token).toBeGreaterThan(first.token);
    expect(order).toEqual(['second']);
    await exclusive.release();
    const shared = await third;
    expect(shared.token).toBe(exclusive.token);
    const another = await theirs.shared();
    await another.release();
    await shared.release();
  });

  test('is downgraded, and lets readers in', async () => {
    const guard = await mine.exclusive();
    const reader = theirs.shared();
    await untilPending(1);
    await guard.downgrade();
    await (await reader).release();
    await guard.release();
  });

  test('is upgraded, ahead of the queue', async () => {
    const guard = await mine.shared();
    const other = await theirs.shared();
    const writer = theirs.exclusive();
    await untilPending(1);
    const before = guard.token;
    const upgraded = guard.upgrade();
    await mine.query(); // asked later, over the same connection
    await expect(other.upgrade()).rejects.toMatchObject({ code: 'ERR_LOCK_UPGRADE' });
    expect(await other.tryUpgrade()).toBe(false);
    await other.release();
    await upgraded;
    expect(guard.token).toBeGreaterThan(before);
    await guard.release();
    await (await writer).release();
  });

  test('is tried for', async () => {
    const guard = (await mine.tryShared())!;
    expect(await theirs.tryExclusive()).toBeNull();
    const other = (await theirs.tryShared())!;
    expect(await guard.tryUpgrade()).toBe(false);
    await other.release();
    expect(await guard.tryUpgrade()).toBe(true);
    expect(guard.mode).toBe('exclusive');
    await guard.release();
  });

  test('is waited for as long as there is time', async () => {
    const guard = await mine.exclusive();
    await expect(theirs.exclusive({ timeout: 100 })).rejects.toMatchObject({
      code: 'ERR_LOCK_TIMEOUT',
      holders: [{ pid: process.pid, mode: 'exclusive' }],
    });
    const controller = new AbortController();
    const waiting = theirs.shared({ signal: controller.signal });
    await untilPending(1);
    controller.abort(new Error('no more'));
    await expect(waiting).rejects.toThrow('no more');
    expect((await mine.query()).pending).toEqual([]);
    await guard.release();
  });

  test('shows who holds it and who waits', async () => {
    const before = Date.now();
    const guard = await mine.shared();
    const waiting = theirs.exclusive();
    await untilPending(1);
    const { held, pending } = await one.query();
    expect(held).toMatchObject([{ name: mine.name, mode: 'shared', pid: process.pid, threadId: 0 }]);
    expect(pending).toMatchObject([{ name: mine.name, mode: 'exclusive', pid: process.pid }]);
    expect(held[0]!.host).toBeTruthy();
    expect(held[0]!.clientId).not.toBe(pending[0]!.clientId);
    expect(Math.abs(held[0]!.since.getTime() - before)).toBeLessThan(5000);
    await guard.release();
    await (await waiting).release();
  });

  test('that nobody has is pruned, and its tokens never go back', async () => {
    const { token } = await mine.exclusive((guard) => guard);
    const held = new SharedLock(`held ${number}`, { space: one });
    const guard = await held.shared();
    await server.sql("select proclock.prune('-1 minute')");
    const left = await server.sql('select name from proclock.locks where name in ($1, $2)', [
      Buffer.from(mine.name),
      Buffer.from(held.name),
    ]);
    expect(left.map((row) => String(row.name))).toEqual([held.name]);
    await guard.release();
    await theirs.shared((later) => expect(later.token).toBeGreaterThanOrEqual(token));
    await mine.exclusive((later) => expect(later.token).toBeGreaterThan(token));
  });

  test('is pruned by no transaction that would not see who has got it meanwhile', async () => {
    await expect(
      server.sql("begin isolation level repeatable read; select proclock.prune('-1 minute')"),
    ).rejects.toThrow('read committed');
  });

  test('whose row somebody has removed by hand is held as before', async () => {
    const guard = await mine.shared();
    await server.sql('delete from proclock.locks where name = $1', [Buffer.from(mine.name)]);
    for (let attempt = 0; attempt < 3; attempt++) expect(await theirs.tryExclusive()).toBeNull();
    await guard.release();
    await (await theirs.exclusive()).release();
  });

  test('says in its row that it may have slots, in whatever way one begins, and not when there are none', async () => {
    const says = async () => {
      const [row] = await server.sql(
        `select may_have_slots, exists (select from proclock.slots s where s.key = l.key) as has_slots
          from proclock.locks l where name = $1`,
        [Buffer.from(mine.name)],
      );
      return row;
    };
    const afterPair = async () => {
      await mine.exclusive(() => {});
      expect(await says()).toEqual({ may_have_slots: false, has_slots: false });
      return mine;
    };
    const sharer = await (await afterPair()).shared();
    expect(await says()).toEqual({ may_have_slots: true, has_slots: true });
    await sharer.release();
    const downgraded = await (await afterPair()).exclusive();
    await downgraded.downgrade();
    expect(await says()).toEqual({ may_have_slots: true, has_slots: true });
    await downgraded.release();
    const holder = await (await afterPair()).exclusive();
    const waiting = theirs.shared();
    await untilPending(1);
    expect(await says()).toEqual({ may_have_slots: true, has_slots: true });
    await holder.release();
    await (await waiting).release();
    await afterPair();
  });

  test('is over the version that was meant', async () => {
    const [row] = await server.sql('show server_version');
    if (version !== SYSTEM) expect(row!.server_version).toMatch(new RegExp(`^${version}\\.`));
    await (await mine.exclusive()).release();
  });

  test('is stolen, and a session that ends leaves it free', async () => {
    const guard = await mine.exclusive();
    await new LockManager({ space: two }).request(mine.name, { steal: true }, () => {});
    await expect(guard.release()).rejects.toMatchObject({ code: 'ERR_LOCK_LOST' });
    await mine.exclusive();
    const waiting = theirs.exclusive();
    await untilPending(1);
    await one.close();
    const next = await waiting;
    expect(next.abandoned).toBeNull();
    await next.release();
  });
}
