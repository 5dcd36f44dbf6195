// Threads of two PID namespaces can have the same number, by which a robust mutex tells its owner. When one of them dies
// while it waits for the mutex, the kernel takes the other, which has it and lives, for the dead one. Nobody else may enter
// the guard then. (What else PID namespaces do is in segment.test.ts.)
import { spawnSync } from 'node:child_process';
import { SharedLock } from '../lib';
import { arming, CRASH_DIST, hasCrashPoints, useCrashPackage } from './support/crash';
import { expectIdle, name, withCode } from './support/locks';
import { testNamespace } from './support/namespace';
import { Helper, readAt, segmentFile } from './support/segment';
import { until } from './support/until';

const APART = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'];
const GUARD = 128; // offset of the mutex in native/layout.h; its futex word comes first
const OWNER_DIED = 0x40000000; // FUTEX_OWNER_DIED
const WAITERS = 0x80000000; // FUTEX_WAITERS
const IN_GUARD_MS = 4000;

const trial = spawnSync('unshare', [...APART.slice(1), 'true'], { encoding: 'utf8' });
const possible = trial.status === 0;
if (!possible) console.log(`PID namespaces can not be tested here: ${trial.error ?? trial.stderr}`);

useCrashPackage();

(possible && hasCrashPoints ? test : test.skip)(
  'a guard owner with the number of a thread that died is not taken for dead',
  async () => {
    const namespace = testNamespace();
    const lock = new SharedLock(name, { namespace });
    const guardWord = () => readAt(segmentFile(namespace), GUARD, 4).readUInt32LE();
    const body = `const lock = new SharedLock(${JSON.stringify(name)}, { namespace });
    on.pid = () => process.pid;
    on.sleepInGuard = () => { ${arming([{ point: 'guard.entered', pass: 1, thread: 'main', what: IN_GUARD_MS }])} lock.query(); };
    on.query = () => { lock.query(); };
    on.use = () => lock.exclusiveSync(({ abandoned }) => abandoned);`;
    const start = () => Helper.start(namespace, body, APART, CRASH_DIST);
    const [owner, dying] = await Promise.all([start(), start()]);
    expect([await owner.call('pid'), await dying.call('pid')]).toEqual([1, 1]);

    const owning = owner.call('sleepInGuard');
    await until(() => (guardWord() & 0x3fffffff) === 1);
    const lost = expect(dying.call('query')).rejects.toMatchObject({ code: 'EXITED' });
    await until(() => (guardWord() & WAITERS) !== 0);
    await dying.end('SIGKILL');
    await lost;
    await until(() => (guardWord() & OWNER_DIED) !== 0); // by the kernel: or this test shows nothing
    expect(() => lock.query()).toThrow(withCode('ERR_LOCK_TIMEOUT'));
    await owning;

    // It goes on as if nothing had been.
    expect(await owner.call('use')).toBeNull();
    lock.exclusiveSync().release();
    expectIdle(lock);
    expect(await owner.end('SIGKILL')).toMatchObject({ signal: 'SIGKILL' });
    lock.close();
  },
);
