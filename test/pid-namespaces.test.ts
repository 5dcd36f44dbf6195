// Two processes can have the same pid, each in its own PID namespace. Whoever is inside the latch is told by a number that no
// other process ever has: as long as it lives, it is never taken for dead because its namesake died, and when it dies, it is not
// taken for alive because its namesake lives. (What else PID namespaces do is in segment.test.ts and unseen-deaths.test.ts.)
import { SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { latchOwner, startBusy, stopInside, testWith, timeOf, unshare, unstall } from './support/disturb';
import { expectIdle, name, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { Layout, readAt, segmentFile } from './support/segment';
import { until } from './support/until';

const DEATH_MS_MAX = 3000;
const WAITERS = 1n; // words.h

const apart = unshare('--pid', '--mount-proc');
const testApart = testWith(apart);

let namespace: string;
let lock: SharedLock;
let owner: Actor;
let namesake: Actor;

beforeEach(async () => {
  if (apart === null) return;
  namespace = testNamespace();
  lock = new SharedLock(name, { namespace });
  [owner, namesake] = await Promise.all([
    startBusy(namespace, apart),
    startActor('fork', { namespace, via: apart }),
  ]);
  expect([owner.pid, namesake.pid]).toEqual([1, 1]);
  await namesake.run('lock({ name: args });', name);
  await owner.acquire({ name, mode: 'exclusive' });
});
afterEach(() => lock?.close());

const latchWord = (): bigint => readAt(segmentFile(namespace), Layout.LATCH, 8).readBigUInt64LE();

/** The namesake begins to wait for the latch, and goes on to. */
async function contend(): Promise<void> {
  namesake.run('for (;;) { try { lock({ name: args }).query(); } catch {} }', name).catch(() => undefined);
  await until(() => (latchWord() & WAITERS) !== 0n);
}

testApart('the latch of one that lives is not taken over when its namesake dies in front of it', async () => {
  await stopInside(owner, namespace);
  const number = latchOwner(namespace);
  await contend();
  await namesake.kill('SIGKILL');
  for (let tries = 0; tries < 2; tries++) expect(() => lock.query()).toThrow(withCode('ERR_LOCK_TIMEOUT'));
  expect(latchOwner(namespace)).toBe(number);

  // It goes on as if nothing had been.
  await unstall(owner);
  expect(lock.query().held).toHaveLength(1);
  await owner.release(name);
  const guard = await lock.exclusive({ timeout: 5000 });
  expect(guard.abandoned).toBeNull();
  guard.release();
  expectIdle(lock);
});

testApart('the latch of one that died is taken over while its namesake lives in front of it', async () => {
  await stopInside(owner, namespace);
  await contend();
  const waiting = lock.exclusive();
  const owned = owner.kill('SIGKILL');
  expect(await timeOf(waiting)).toBeLessThan(DEATH_MS_MAX);
  await owned;
  const guard = await waiting;
  expect(guard.abandoned).toMatchObject({ pid: 1 });
  guard.release();
  await namesake.destroy();
  expectIdle(lock);
});

testApart('the latch of one that died alone is taken over by a newcomer, who has its pid', async () => {
  await stopInside(owner, namespace);
  await Promise.all([owner.kill('SIGKILL'), namesake.kill('SIGKILL')]);
  const newcomer = await startActor('fork', { namespace, via: apart! });
  expect(newcomer.pid).toBe(1);
  const acquired = newcomer.acquire({ name, mode: 'exclusive' });
  expect(await timeOf(acquired)).toBeLessThan(DEATH_MS_MAX);
  expect((await acquired).abandoned).toMatchObject({ pid: 1 });
  await newcomer.release(name);
  expectIdle(lock);
});
