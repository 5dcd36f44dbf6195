// The checker: several processes do at random what locks can do, while their connections are stalled, cut and slowed down, and
// they themselves are stopped and killed. What they saw is judged by history.ts. It knows no engine: each brings a field.
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Opening } from '../../support/actor';
import { until } from '../../support/until';
import type { NetworkProxy } from '../proxy';
import type { Cut, Entry, History, Theft } from './history';

export interface Field {
  readonly ttlMs: number;
  /** A new proxy in front of the engine. */
  proxy(): Promise<NetworkProxy>;
  /** How a process opens its space through that. */
  opening(proxy: NetworkProxy): Opening;
  /** Whether a session ends with its connection. */
  readonly sessionsBreak: boolean;
  /** What breaks the connections of all processes at the side of the engine. */
  readonly breaks: ReadonlyArray<() => Promise<void>>;
}

export interface Run {
  readonly seconds: number;
  readonly seed: number;
  /** What is left out: see main.js. */
  readonly mutant?: string | undefined;
  /** Of all faults only stalls, of a process that holds exclusively at that moment, for longer than a lease. */
  readonly stallsOnly?: boolean;
  /** Asked after each stall, about the holds that have ended. True ends the search. */
  readonly isEnough?: (seen: History) => boolean;
}

const PROCESSES = 4;
const USERS = 2;
const NAMES = ['checked 1', 'checked 2'];
const END_MS_MAX = 60_000;

type Roll = (sides: number) => number;

/** mulberry32. */
export function dice(seed: number): Roll {
  let state = seed;
  return (sides) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

/** The clock of main.js. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

type Message = { id: string; token: string; to: number } & (
  | { type: 'held'; name: string; mode: Entry['mode']; session: number; from: number }
  | { type: 'seen' }
  | { type: 'ended'; lost: boolean }
  | { type: 'steals'; name: string; asked: number }
  | { type: 'stole' }
  | { type: 'failed'; error: string }
  | { type: 'ready' | 'done' }
);

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** One process, and what it saw. */
class Participant {
  readonly entries = new Map<string, Mutable<Entry>>();
  readonly thefts = new Map<string, Mutable<Theft>>();
  readonly failures: string[] = [];
  /** Which entries go on. */
  private readonly open = new Set<string>();
  isReady = false;
  isDone = false;
  killed = false;

  private constructor(
    readonly number: number,
    readonly proxy: NetworkProxy,
    readonly child: ChildProcess,
  ) {
    child.on('message', (text) => this.heard(JSON.parse(String(text))));
    let stderr = '';
    child.stderr?.on('data', (text) => {
      stderr += text;
    });
    child.on('exit', (code, signal) => {
      if (!this.killed && code !== 0)
        this.failures.push(`process ${number} ended (${signal ?? code}): ${stderr}`);
    });
  }

  static async start(number: number, field: Field, { seed, mutant }: Run): Promise<Participant> {
    const proxy = await field.proxy();
    const settings = {
      opening: field.opening(proxy),
      seed: seed + number * 100,
      users: USERS,
      names: NAMES,
      ttlMs: field.ttlMs,
      mutant,
    };
    const env = { ...process.env, PROCLOCK_CHECKER: JSON.stringify(settings) };
    const child = fork(join(__dirname, 'main.js'), { env, silent: true });
    return new Participant(number, proxy, child);
  }

  /** Whether it has begun a long hold, exclusively, a short while ago. What it tells may be late. */
  isInLongHold(ttlMs: number): boolean {
    const time = now();
    return [...this.open]
      .map((id) => this.entries.get(id)!)
      .some(
        ({ mode, from, to }) =>
          mode === 'exclusive' && to - from > 100 && time - from < ttlMs / 2 && time - to < ttlMs / 4,
      );
  }

  /** The holds that have ended. When it is killed, all have. */
  get ended(): Entry[] {
    return [...this.entries].filter(([id]) => !this.open.has(id)).map(([, entry]) => entry);
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  async kill(): Promise<void> {
    if (this.hasEnded) return;
    this.killed = true;
    const ended = new Promise((resolve) => this.child.once('close', resolve));
    this.child.kill('SIGKILL');
    await ended;
    for (const id of this.open) this.entries.get(id)!.lost = true;
    this.open.clear();
  }

  private heard(message: Message): void {
    const entry = this.entries.get(message.id);
    if (entry !== undefined && message.to !== undefined) entry.to = message.to;
    switch (message.type) {
      case 'held': {
        const { name, mode, session, from, to } = message;
        const { number: process } = this;
        const token = BigInt(message.token);
        this.entries.set(message.id, { name, process, mode, token, session, from, to, lost: false });
        this.open.add(message.id);
        break;
      }
      case 'ended':
        entry!.lost = message.lost;
        this.open.delete(message.id);
        break;
      case 'steals':
        this.thefts.set(message.id, { name: message.name, asked: message.asked, token: undefined });
        break;
      case 'stole':
        this.thefts.get(message.id)!.token = BigInt(message.token);
        break;
      case 'failed':
        this.failures.push(message.error);
        break;
      case 'ready':
        this.isReady = true;
        break;
      case 'done':
        this.isDone = true;
        break;
    }
  }
}

/** @returns what was seen, and what went wrong besides */
export async function check(field: Field, run: Run): Promise<History & { failures: string[] }> {
  const roll = dice(run.seed);
  const cuts: Cut[] = [];
  const all: Participant[] = [];
  const there: Participant[] = [];
  const start = async (place: number): Promise<void> => {
    const participant = await Participant.start(all.length, field, run);
    all.push(participant);
    there[place] = participant;
    await until(() => participant.isReady || participant.failures.length > 0);
  };
  try {
    for (let place = 0; place < PROCESSES; place++) await start(place);
    const end = now() + run.seconds * 1000;
    while (now() < end) {
      if (!run.stallsOnly) {
        await sleep(50 + roll(300));
        await disturb(field, roll, there, cuts, start);
      } else if (!(await stallHolder(field, there))) await sleep(2);
      else if (run.isEnough?.(historyOf(all, cuts))) break;
    }
    for (const { child } of there) child.send('stop');
    await until(() => there.every((one) => one.isDone && one.hasEnded), { within: END_MS_MAX });
  } finally {
    for (const participant of all) {
      await participant.kill();
      await participant.proxy.stop();
    }
  }
  return { ...historyOf(all, cuts), failures: all.flatMap(({ failures }) => failures) };
}

function historyOf(all: Participant[], cuts: Cut[]): History {
  return {
    entries: all.flatMap(({ ended }) => ended),
    thefts: all.flatMap(({ thefts }) => [...thefts.values()]),
    cuts,
  };
}

/** Returns whether there was one. */
async function stallHolder({ ttlMs }: Field, there: Participant[]): Promise<boolean> {
  const holder = there.find((one) => one.isInLongHold(ttlMs));
  if (holder === undefined) return false;
  holder.proxy.stall();
  await sleep(2 * ttlMs);
  holder.proxy.resume();
  return true;
}

async function disturb(
  { ttlMs, breaks, sessionsBreak }: Field,
  roll: Roll,
  there: Participant[],
  cuts: Cut[],
  start: (place: number) => Promise<void>,
): Promise<void> {
  const place = roll(there.length);
  const { proxy, child, number } = there[place]!;
  const cut = async (processes: number[], how: () => unknown): Promise<void> => {
    const at = now();
    await how();
    if (sessionsBreak) for (const process of processes) cuts.push({ process, at, until: now() });
  };
  switch (roll(8)) {
    case 0:
      await cut([number], () => proxy.reset());
      return;
    case 1: {
      const broken = breaks[roll(Math.max(breaks.length, 1))];
      await cut(
        there.map((one) => one.number),
        () => broken?.(),
      );
      return;
    }
    case 2:
      await there[place]!.kill(); // what it noted ends with it
      await start(place);
      return;
    case 3:
      proxy.stall();
      break;
    case 4:
      proxy.stall(roll(2) === 0 ? 'up' : 'down');
      break;
    case 5:
      child.kill('SIGSTOP');
      await sleep(roll(2 * ttlMs));
      child.kill('SIGCONT');
      return;
    default:
      proxy.delay(roll(60));
  }
  await sleep(roll(2 * ttlMs));
  proxy.delay(0);
  proxy.resume();
}
