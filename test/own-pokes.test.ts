// A thread that pokes waits of its own: what it does natively, be it a release or a look that finds somebody dead, may be
// what another wait of this very thread was waiting for. No other thread tells it: it has to see when the call returns.
import { LockManager, SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import { arming, hasCrashPoints, hasTaken, startVictim, useCrashPackage } from './support/crash';
import { lockPerTest, name, state, untilPending } from './support/locks';
import { allowPerTest, testNamespace } from './support/namespace';
import { latch, until } from './support/until';

useCrashPackage();
const testCrash = hasCrashPoints ? test : test.skip; // the reason was printed
allowPerTest(60_000); // four processes are started in some

/** Nothing is asked of the lock meanwhile: that would look as well. */
async function granted(waiting: Promise<Disposable>): Promise<void> {
  let guard: Disposable | undefined;
  void waiting.then((got) => {
    guard = got;
  });
  await until(() => guard !== undefined);
  guard![Symbol.dispose]();
}

describe('a wait of this thread goes on', () => {
  let lock: SharedLock;
  lockPerTest((fresh) => {
    lock = fresh;
  });

  test('when this thread releases', async () => {
    const guard = lock.exclusiveSync();
    const waiting = lock.exclusive();
    guard.release();
    await granted(waiting);
  });

  test('when this thread downgrades', async () => {
    using guard = lock.exclusiveSync();
    const waiting = lock.shared();
    guard.downgrade();
    await granted(waiting);
  });

  describe('when the wait ahead of it', () => {
    let ahead: SharedLock;
    beforeEach(() => {
      ahead = new SharedLock(name, { namespace: lock.namespace, fair: true }); // not to be overtaken
    });
    afterEach(() => ahead.close());

    test.each([
      ['is aborted', {}, 'AbortError', (controller: AbortController) => controller.abort()],
      ['has no time left', { timeout: 1 }, 'LockError', () => {}],
      ['is closed', {}, 'LockError', () => ahead.close()],
    ] as const)('%s', async (_, options, error, act) => {
      using _guard = lock.sharedSync();
      const controller = new AbortController();
      const front = ahead.exclusive({ ...options, signal: controller.signal });
      const waiting = lock.shared();
      expect(lock.query()).toEqual(state(['shared'], ['exclusive', 'shared']));
      act(controller);
      await expect(front).rejects.toMatchObject({ name: error });
      await granted(waiting);
    });
  });

  testCrash('when what it owes the others, because a process was stopped, can be done', async () => {
    const stopped = await startVictim(lock.namespace);
    await stopped.run('lock({ name: args })', name);
    const guard = lock.exclusiveSync();
    const waiting = lock.exclusive();
    await stopped.run(arming([{ point: 'L8', pass: 1, thread: 'main', what: 'SIGSTOP' }]));
    const query = stopped.begin('query', { name });
    await stopped.stopped();
    guard.release();
    stopped.cont();
    await query.promise;
    await granted(waiting);
  });
});

test('a request of this thread is told that this thread has stolen its lock', async () => {
  const manager = new LockManager({ namespace: testNamespace() });
  const { opened, open } = latch();
  const held = latch();
  let lost: unknown;
  const robbed = manager
    .request(name, () => {
      held.open();
      return opened;
    })
    .catch((error) => {
      lost = error;
    });
  await held.opened;
  await new Promise(setImmediate); // it listens from the next turn of the event loop on
  const thief = manager.request(name, { steal: true }, () => opened);
  await until(() => lost !== undefined);
  expect(lost).toMatchObject({ name: 'AbortError' });
  open();
  await Promise.all([robbed, thief]);
});

// The victim waits for a holder that dies. Its own watch thread would see that, and tell it: that one is put to sleep, after
// it has seen another death.
describe('a wait for a dead holder goes on when this thread finds out by itself, in', () => {
  let namespace: string;
  let victim: Actor;
  let holder: Actor;

  /** Runs there what is the last step of the test: whether the wait is over some time after. */
  const endsWith = (act: string) =>
    victim.run<boolean>(
      `${act};
       for (const end = Date.now() + 10_000; !globalThis.granted && Date.now() < end; )
         await new Promise((resolve) => setTimeout(resolve, 2));
       return globalThis.granted;`,
      { name, namespace },
    );
  const handle = 'lock({ name: args.name })';
  /** The gate of the lock says from then on that it is being recovered: whoever tries finishes that first. */
  const dieWhileRecovering = async (recoverer: Actor) => {
    recoverer.begin('query', { name });
    expect(await recoverer.ended).toEqual({ code: null, signal: 'SIGKILL' });
  };
  const startRecoverer = async () => {
    const recoverer = await startVictim(namespace);
    await recoverer.run(handle, { name });
    await recoverer.run(arming([{ point: 'V3', pass: 1, thread: 'main', what: 'SIGKILL' }]));
    return recoverer;
  };

  beforeEach(async () => {
    if (!hasCrashPoints) return;
    namespace = testNamespace();
    holder = await startActor('fork', { namespace });
    await holder.acquire({ name, mode: 'exclusive' });
    const decoy = await startActor('fork', { namespace });
    await decoy.run(`lock({ name: 'another' })`);
    victim = await startVictim(namespace);
    await victim.run(
      `globalThis.granted = false; ${handle}.shared().then(() => { globalThis.granted = true; });`,
      { name },
    );
    // Two of them: the doorbell thread may come by first.
    const sleep = { point: 'latch.told', pass: 1, thread: 'other', what: 60_000 } as const;
    await victim.run(arming([sleep, sleep]));
    await decoy.kill('SIGKILL');
    await until(() => hasTaken(victim, 'dead.freed', 'other'));
  });
  afterEach(() => victim?.kill('SIGKILL'));

  testCrash.each([
    ['query()', `${handle}.query()`],
    ['query() of a LockManager', 'await new proclock.LockManager({ namespace: args.namespace }).query()'],
    ['a try', `globalThis.guard = ${handle}.tryShared()`],
    [
      'an acquire that has no time',
      `await ${handle}.exclusive({ timeout: 0 }).then(() => { throw new Error('granted'); }, () => {})`,
    ],
  ])('%s', async (_, act) => {
    await holder.kill('SIGKILL');
    expect(await endsWith(act)).toBe(true);
  });

  testCrash('a try that has to finish what a dead process began to repair', async () => {
    const recoverer = await startRecoverer();
    await holder.kill('SIGKILL');
    await dieWhileRecovering(recoverer);
    expect(await endsWith(`globalThis.guard = ${handle}.tryShared()`)).toBe(true);
  });

  testCrash('a blocking acquire', async () => {
    using lock = new SharedLock(name, { namespace });
    const recoverer = await startRecoverer();
    const blocked = endsWith(`globalThis.guard = ${handle}.sharedSync()`);
    await untilPending(lock, 2);
    await holder.kill('SIGKILL');
    await dieWhileRecovering(recoverer);
    expect(await blocked).toBe(true);
  });
});
