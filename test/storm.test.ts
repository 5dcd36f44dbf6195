// Processes and threads use one lock in every way there is, while random processes among them are killed, stopped and
// continued, and replaced. The oracle is a folder of marker files (support/storm-main.js): no two are inside together
// that must not be, tokens grow, and whoever lives gets on.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../lib';
import { expectIdle, name } from './support/locks';
import { testNamespace } from './support/namespace';

const STORM_MS = Number(process.env.PROCLOCK_STORM_S ?? 20) * 1000;
const PROCESSES = 5;
const STUCK_MS = 10_000; // without a report, while nobody is stopped for longer than a moment
const MAIN = join(__dirname, 'support/storm-main.js');

interface Counts {
  grants: number;
  exclusive: number;
  timeouts: number;
  aborts: number;
  busy: number;
  abandoned: number;
}

interface Member {
  child: ChildProcess;
  /** Per thread: what it has done, and when it said so. */
  threads: Map<string, { counts: Counts; at: number }>;
  stopped: boolean;
  born: number;
}

const namespace = testNamespace(); // outside of a test: the watchdog of tests is too short for a storm
const total: Counts = { grants: 0, exclusive: 0, timeouts: 0, aborts: 0, busy: 0, abandoned: 0 };
const members = new Set<Member>();
/** Those who ended by themselves. */
const ended: string[] = [];
let folder: string;

beforeAll(() => {
  // In shared memory, since the markers are made and removed a thousand times a second.
  folder = mkdtempSync(`/dev/shm/proclock-storm-${process.pid}-`);
  writeFileSync(join(folder, 'token'), '');
});
afterAll(async () => {
  await Promise.all([...members].map(remove));
  rmSync(folder, { recursive: true });
});

function add(workers: number): void {
  const settings = JSON.stringify({ folder, namespace, name, workers });
  const child = fork(MAIN, [settings], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const member: Member = { child, threads: new Map(), stopped: false, born: Date.now() };
  child.on('message', ({ me, counts }: { me: string; counts: Counts }) => {
    member.threads.set(me, { counts, at: Date.now() });
  });
  child.on('error', () => undefined);
  members.add(member);
}

/** Kills a member; its markers are believed no more, and removed. */
async function remove(member: Member): Promise<void> {
  members.delete(member);
  const { child } = member;
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  if (child.signalCode !== 'SIGKILL') ended.push(`${child.pid}: ${child.signalCode ?? child.exitCode}`);
  for (const { counts } of member.threads.values()) {
    for (const key of Object.keys(total) as Array<keyof Counts>) total[key] += counts[key];
  }
  for (const marker of readdirSync(folder)) {
    if (marker.split('.')[1] === String(child.pid)) rmSync(join(folder, marker), { force: true });
  }
}

function violations(): string[] {
  return readdirSync(folder).includes('violations')
    ? readFileSync(join(folder, 'violations'), 'utf8').split('\n').filter(Boolean)
    : [];
}

/** Everybody who is not stopped has reported lately. */
function expectProgress(since: number): void {
  for (const { child, threads, stopped, born } of members) {
    if (stopped) continue;
    const last = threads.size === 0 ? born : Math.min(...[...threads.values()].map(({ at }) => at));
    if (Date.now() - Math.max(last, since) > STUCK_MS) {
      const lock = new SharedLock(name, { namespace });
      throw new Error(`process ${child.pid} is stuck: ${JSON.stringify(lock.query())}`);
    }
  }
}

const any = (): Member => [...members][Math.floor(Math.random() * members.size)]!;

test(
  `a storm of ${STORM_MS / 1000} s: exclusion holds, nobody is stuck, tokens grow`,
  async () => {
    for (let n = 0; n < PROCESSES; n++) add(n < 2 ? 2 : 0);
    const end = Date.now() + STORM_MS;
    let kills = 0;
    let stops = 0;
    let lastStop = Date.now();
    while (Date.now() < end && violations().length === 0) {
      await sleep(20 + Math.random() * 120);
      const dice = Math.random();
      if (dice < 0.6) {
        const victims = Math.random() < 0.2 ? [any(), any()] : [any()];
        const gone = [...new Set(victims)];
        kills += gone.length;
        await Promise.all(gone.map(remove));
        for (const _ of gone) add(Math.random() < 0.3 ? 2 : 0);
      } else if (dice < 0.9) {
        const member = any();
        stops++;
        member.stopped = true;
        member.child.kill('SIGSTOP');
        await sleep(Math.random() * 200);
        // A stopped holder keeps the lock: nobody can be blamed for the time until now.
        member.child.kill('SIGCONT');
        member.stopped = false;
        lastStop = Date.now();
      }
      expectProgress(lastStop);
    }
    expect([...violations(), ...ended]).toEqual([]);

    // Everybody who is left makes another step, and a newcomer gets in.
    const quiet = Date.now();
    while (
      [...members].some(
        ({ threads }) => threads.size === 0 || [...threads.values()].some(({ at }) => at < quiet),
      )
    ) {
      await sleep(20);
      expectProgress(quiet);
    }
    const lock = new SharedLock(name, { namespace });
    for (const mode of ['exclusive', 'shared'] as const) (await lock[mode]({ timeout: STUCK_MS })).release();
    await Promise.all([...members].map(remove));
    expect([...violations(), ...ended]).toEqual([]);
    const guard = lock.tryExclusive();
    expect(guard).not.toBeNull();
    guard?.release();
    expectIdle(lock);
    lock.close();
    console.log(`storm: ${kills} processes killed, ${stops} stopped; ${JSON.stringify(total)}`);
    expect(kills).toBeGreaterThan(0);
    expect(total.exclusive).toBeGreaterThan(0);
  },
  STORM_MS + 60_000,
);
