// Processes and threads use one lock in every way there is, while random processes among them are killed, stopped and
// continued, and replaced, workers terminated, waits aborted or timed out, another lock is stolen, and the segment removed
// under all of them. Some of them live in PID or time namespaces of their own, or on a kernel that refuses some calls; some
// become other programs, lose their descriptors, or are short of threads or descriptors for a while. The oracle is a folder of marker files (support/storm-main.js): no two are inside together that must
// not be, tokens grow, who was overtaken by a thief is told, and whoever lives gets on.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SharedLock } from '../lib';
import {
  disturbing,
  LIMITED_DESCRIPTORS,
  latchOwner,
  needsCompiler,
  refusing,
  unshare,
} from './support/disturb';
import { expectIdle, name } from './support/locks';
import { testNamespace } from './support/namespace';
import { FOLDER, segmentFile } from './support/segment';
import { until } from './support/until';

const STORM_MS = Number(process.env.PROCLOCK_STORM_S ?? 20) * 1000;
const PROCESSES = 5;
const STUCK_MS = 10_000; // without a report, while nobody is stopped for longer than a moment
const START_MS = 30_000; // before the first report: Node starts slowly where it is instrumented, or others are busy
const LATE_MS = 15_000; // how much longer a storm takes if not everything has happened yet
const INSIDE_MS_MAX = 300; // in the latch: who opens a name meanwhile has patience for a second, and tries again
const INSIDE_TRIES = 60;
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
  upgrades: number;
  terminations: number;
  moves: number;
  losses: number;
  shortages: number;
}

interface Message {
  me: string;
  counts: Counts;
  /** The thread has ended. */
  gone?: true;
}

interface Member {
  child: ChildProcess;
  /** Of the process that runs Node; that of a command before it until it has reported. */
  pid: number;
  alone: boolean;
  /** Per thread: what it has done, and when it said so. */
  threads: Map<string, { counts: Counts; at: number }>;
  stopped: boolean;
  born: number;
}

const namespace = testNamespace(); // outside of a test: the watchdog of tests is too short for a storm
const total: Counts = {
  ...{
    grants: 0,
    exclusive: 0,
    timeouts: 0,
    aborts: 0,
    busy: 0,
    abandoned: 0,
    steals: 0,
    robbed: 0,
    upgrades: 0,
  },
  ...{ terminations: 0, moves: 0, losses: 0, shortages: 0 },
};
const members = new Set<Member>();
/** Those who ended by themselves. */
const ended: string[] = [];
let folder: string;

/** Where members live. */
const HOMES = {
  here: [],
  'in another PID namespace': unshare('--pid'),
  'on a clock that is ahead': unshare('--time', '--monotonic=600'),
  'on a clock that is behind': unshare('--time', '--monotonic=-600'),
};
const homes = Object.entries(HOMES).filter(([, command]) => command !== null);
const lived: Record<string, number> = {};
const REFUSED = ['', '', 'pidfd_open', 'close_range', 'futex_waitv', 'pidfd_open close_range futex_waitv'];

const oneOf = <T>(list: T[]): T => list[Math.floor(Math.random() * list.length)]!;

beforeAll(() => {
  // In shared memory, since the markers are made and removed a thousand times a second.
  folder = mkdtempSync(`${FOLDER}/proclock-storm-${process.pid}-`);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function add(workers: number): void {
  const settings = JSON.stringify({ folder, namespace, name, workers, exec: disturbing('exec') });
  const [home, before] = Math.random() < 0.5 ? homes[0]! : oneOf(homes);
  lived[home] = (lived[home] ?? 0) + 1;
  const [command = '', ...args] = [
    ...(workers === 0 ? LIMITED_DESCRIPTORS : []),
    ...before!,
    process.execPath,
    MAIN,
    settings,
  ];
  const child = spawn(command, args, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...process.env, ...(needsCompiler && refusing(...oneOf(REFUSED).split(' '))) },
  });
  const member: Member = {
    ...{ child, pid: child.pid ?? 0, alone: workers === 0 },
    ...{ threads: new Map(), stopped: false, born: Date.now() },
  };
  child.on('message', (message) => {
    const { me, counts, gone } = message as Message;
    member.pid = Number(me.split('.')[0]);
    if (gone) sumUp(member, me);
    else member.threads.set(me, { counts, at: Date.now() });
  });
  // unshare(1) complains when its child is killed.
  child.stderr?.on('data', (text) => /^unshare: sigprocmask.*\n$/.test(text) || process.stderr.write(text));
  child.on('error', () => undefined);
  members.add(member);
}

function signal({ pid }: Member, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has ended
  }
}

/** A thread is no more. */
function sumUp(member: Member, thread: string): void {
  const counts = member.threads.get(thread)?.counts;
  member.threads.delete(thread);
  for (const key of Object.keys(total) as Array<keyof Counts>) total[key] += counts?.[key] ?? 0;
}

/** No thread of it runs any more, and its files are closed. The first thread may be a zombie before the others are. */
function hasEnded(pid: number): boolean {
  try {
    if (readdirSync(`/proc/${pid}/task`).length > 1) return false;
    return /^[ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, ''));
  } catch {
    return true;
  }
}

/** Kills a member; its markers are believed no more, and removed. */
async function remove(member: Member): Promise<void> {
  members.delete(member);
  const { child } = member;
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, 'exit');
    // First the command before it, which ends by itself, and not by a signal, if it notices that what it started was killed.
    child.kill('SIGKILL');
    signal(member, 'SIGKILL');
    await exited;
    await until(() => hasEnded(member.pid)); // what that command started may take longer
  }
  if (child.signalCode !== 'SIGKILL') ended.push(`${child.pid}: ${child.signalCode ?? child.exitCode}`);
  for (const thread of [...member.threads.keys()]) sumUp(member, thread);
  for (const marker of readdirSync(folder)) {
    if (marker.split('.')[2] === String(member.pid) && !marker.startsWith('fence'))
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

/** Becomes another program, whatever it does at the moment. Nobody else may need it to end. */
async function becomeAnother(member: Member): Promise<void> {
  members.delete(member);
  member.child.send({ do: 'exec' }, () => {});
  const isNode = () => {
    try {
      return readlinkSync(`/proc/${member.pid}/exe`) === process.execPath;
    } catch {
      return false;
    }
  };
  for (const late = Date.now() + STUCK_MS; isNode() && Date.now() < late; ) await sleep(5);
  await sleep(Math.random() * 300);
  await remove(member);
}

/** The number of one who stands still inside the latch, or 0. */
async function standsInside(): Promise<bigint> {
  try {
    const owner = latchOwner(namespace);
    await sleep(2);
    return latchOwner(namespace) === owner ? owner : 0n;
  } catch {
    return 0n; // there is no segment at the moment
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
  const happened = () => [
    ...[
      kills,
      total.steals,
      total.upgrades,
      total.terminations,
      total.exclusive,
      total.losses,
      total.shortages,
      inside,
    ],
    ...(needsCompiler === null ? [] : [execs]),
  ];
  const isOver = () =>
    Date.now() > end + LATE_MS || (Date.now() > end && happened().every((count) => count > 0));
  let kills = 0;
  let stops = 0;
  let inside = 0;
  let execs = 0;
  let removals = 0;
  let lastStop = Date.now();
  while (!isOver() && violations().length === 0) {
    await sleep(20 + Math.random() * 120);
    const dice = Math.random();
    if (dice < 0.35) {
      const victims = Math.random() < 0.2 ? [any(), any()] : [any()];
      const gone = [...new Set(victims)];
      kills += gone.length;
      await Promise.all(gone.map(remove));
      for (const _ of gone) add(Math.random() < 0.3 ? 2 : 0);
    } else if (dice < 0.65) {
      const member = any();
      if (member.threads.size === 0) continue;
      stops++;
      member.stopped = true;
      const wanted = Math.random() < 0.5;
      for (let tries = 0; tries < (wanted ? INSIDE_TRIES : 1); tries++) {
        if (tries > 0) {
          signal(member, 'SIGCONT');
          await sleep(Math.random() * 3);
        }
        signal(member, 'SIGSTOP');
        if (wanted && (await standsInside()) !== 0n) {
          inside++;
          break;
        }
      }
      await sleep(Math.random() * INSIDE_MS_MAX);
      // A stopped holder keeps the lock: nobody can be blamed for the time until now.
      signal(member, 'SIGCONT');
      member.stopped = false;
      lastStop = Date.now();
    } else if (dice < 0.67) {
      if (removeSegment()) removals++;
    } else if (dice < 0.75 && needsCompiler !== null) {
      const member = any();
      if (member.threads.size === 0) continue;
      execs++;
      await becomeAnother(member);
      add(Math.random() < 0.3 ? 2 : 0);
    } else {
      const member = any();
      if (member.alone) member.child.send({ do: oneOf(['lose', 'be short of']) }, () => {});
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
    `storm of ${STORM_MS / 1000} s: ${kills} processes killed, ${stops} stopped and continued, ${inside} of them inside ` +
      `the latch, ${execs} became another program, ${total.losses} lost their descriptors, ${total.shortages} shortages, ` +
      `members ${JSON.stringify(lived)}, ` +
      `${removals} segments removed, ${total.terminations} workers terminated, ${total.steals} steals; ` +
      `${total.grants} grants, ${total.exclusive} of them exclusive, ${total.upgrades} upgrades, ${total.timeouts} timeouts, ${total.aborts} aborts; ` +
      '0 violations, 0 stuck',
  );
  for (const count of happened()) expect(count).toBeGreaterThan(0);
}
