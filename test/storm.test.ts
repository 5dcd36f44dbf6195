// Processes and threads use one lock in every way there is, while random processes among them are killed, stopped and
// continued, and replaced, workers terminated, waits aborted or timed out, another lock is stolen, and the segment removed
// under all of them. The oracle is a folder of marker files (support/storm-main.js): no two are inside together that must
// not be, tokens grow, who was overtaken by a thief is told, and whoever lives gets on.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../lib';
import { expectIdle, name } from './support/locks';
import { testNamespace } from './support/namespace';
import { segmentFile } from './support/segment';

const STORM_MS = Number(process.env.PROCLOCK_STORM_S ?? 20) * 1000;
const PROCESSES = 5;
const STUCK_MS = 10_000; // without a report, while nobody is stopped for longer than a moment
const START_MS = 30_000; // before the first report: Node starts slowly where it is instrumented, or others are busy
const LATE_MS = 15_000; // how much longer a storm takes if not everything has happened yet
const MAIN = join(__dirname, 'support/storm-main.js');

interface Counts {
  grants: number;
  exclusive: number;
  timeouts: number;
  aborts: number;
  busy: number;
  abandoned: number;
  steals: number;
  robbed: number;
  terminations: number;
  moves: number;
}

interface Message {
  me: string;
  counts: Counts;
  /** The thread has ended. */
  gone?: true;
}

interface Member {
  child: ChildProcess;
  /** Per thread: what it has done, and when it said so. */
  threads: Map<string, { counts: Counts; at: number }>;
  stopped: boolean;
  born: number;
}

const namespace = testNamespace(); // outside of a test: the watchdog of tests is too short for a storm
const total: Counts = {
  ...{ grants: 0, exclusive: 0, timeouts: 0, aborts: 0, busy: 0, abandoned: 0, steals: 0, robbed: 0 },
  ...{ terminations: 0, moves: 0 },
};
const members = new Set<Member>();
/** Those who ended by themselves. */
const ended: string[] = [];
let folder: string;

beforeAll(() => {
  // In shared memory, since the markers are made and removed a thousand times a second.
  folder = mkdtempSync(`/dev/shm/proclock-storm-${process.pid}-`);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function add(workers: number): void {
  const settings = JSON.stringify({ folder, namespace, name, workers });
  const child = fork(MAIN, [settings], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const member: Member = { child, threads: new Map(), stopped: false, born: Date.now() };
  child.on('message', (message) => {
    const { me, counts, gone } = message as Message;
    if (gone) sumUp(member, me);
    else member.threads.set(me, { counts, at: Date.now() });
  });
  child.on('error', () => undefined);
  members.add(member);
}

/** A thread is no more. */
function sumUp(member: Member, thread: string): void {
  const counts = member.threads.get(thread)?.counts;
  member.threads.delete(thread);
  for (const key of Object.keys(total) as Array<keyof Counts>) total[key] += counts?.[key] ?? 0;
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
  for (const thread of [...member.threads.keys()]) sumUp(member, thread);
  for (const marker of readdirSync(folder)) {
    if (marker.split('.')[2] === String(child.pid) && !marker.startsWith('fence'))
      rmSync(join(folder, marker), { force: true });
  }
}

function violations(): string[] {
  return readdirSync(folder).includes('violations')
    ? readFileSync(join(folder, 'violations'), 'utf8').split('\n').filter(Boolean)
    : [];
}

/** Everybody who is not stopped has reported lately. Those who have never done so wait for Node to start. */
function expectProgress(since: number): void {
  for (const { child, threads, stopped, born } of members) {
    if (child.exitCode !== null || child.signalCode !== null) {
      const end = `process ${child.pid} ended by itself: ${child.signalCode ?? child.exitCode}`;
      throw new Error([end, ...violations()].join('\n'));
    }
    if (stopped) continue;
    const [last, patience] =
      threads.size === 0
        ? [born, START_MS]
        : [Math.min(...[...threads.values()].map(({ at }) => at)), STUCK_MS];
    if (Date.now() - Math.max(last, since) > patience) {
      const lock = new SharedLock(name, { namespace });
      throw new Error(`process ${child.pid} is stuck: ${JSON.stringify(lock.query())}`);
    }
  }
}

/** Under all of them: what is held goes on, who comes later meets in a new one. False: nobody has made a new one yet. */
function removeSegment(): boolean {
  const file = segmentFile(namespace);
  if (!existsSync(file)) return false;
  rmSync(file);
  return true;
}

const any = (): Member => [...members][Math.floor(Math.random() * members.size)]!;

test(
  `a storm of ${STORM_MS / 1000} s: exclusion holds, nobody is stuck, tokens grow`,
  async () => {
    try {
      await storm();
    } finally {
      // Before the segment is removed: whoever lives would make a new one.
      await Promise.all([...members].map(remove));
    }
  },
  STORM_MS + 60_000,
);

async function storm(): Promise<void> {
  for (let n = 0; n < PROCESSES; n++) add(n < 2 ? 2 : 0);
  const end = Date.now() + STORM_MS;
  const happened = () => [kills, total.steals, total.terminations, total.exclusive];
  const isOver = () =>
    Date.now() > end + LATE_MS || (Date.now() > end && happened().every((count) => count > 0));
  let kills = 0;
  let stops = 0;
  let removals = 0;
  let lastStop = Date.now();
  while (!isOver() && violations().length === 0) {
    await sleep(20 + Math.random() * 120);
    const dice = Math.random();
    if (dice < 0.5) {
      const victims = Math.random() < 0.2 ? [any(), any()] : [any()];
      const gone = [...new Set(victims)];
      kills += gone.length;
      await Promise.all(gone.map(remove));
      for (const _ of gone) add(Math.random() < 0.3 ? 2 : 0);
    } else if (dice < 0.8) {
      const member = any();
      stops++;
      member.stopped = true;
      member.child.kill('SIGSTOP');
      await sleep(Math.random() * 200);
      // A stopped holder keeps the lock: nobody can be blamed for the time until now.
      member.child.kill('SIGCONT');
      member.stopped = false;
      lastStop = Date.now();
    } else if (dice < 0.82) {
      if (removeSegment()) removals++;
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
  // Anything else has failed above.
  console.log(
    `storm of ${STORM_MS / 1000} s: ${kills} processes killed, ${stops} stopped and continued, ` +
      `${removals} segments removed, ${total.terminations} workers terminated, ${total.steals} steals; ` +
      `${total.grants} grants, ${total.exclusive} of them exclusive, ${total.timeouts} timeouts, ${total.aborts} aborts; ` +
      '0 violations, 0 stuck',
  );
  for (const count of happened()) expect(count).toBeGreaterThan(0);
}
