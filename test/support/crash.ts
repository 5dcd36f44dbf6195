// Processes that die, stop, or sleep at a chosen instruction: those of a package with the addon of test/native/crash-points.mjs.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { type Actor, startActor } from './actor';
import { DIST } from './segment';

const instrument = process.env.PROCLOCK_INSTRUMENT ?? '';
const BUILD = join(__dirname, '../..', instrument === '' ? 'build' : `build/${instrument}/build`);

/** Instrumented builds have none, but for the one that is macOS's; and they are written for Linux. */
export const hasCrashPoints =
  process.platform === 'linux' && (instrument === '' || instrument === 'portable');
if (!hasCrashPoints) console.log('skipped: there are no crash points in an instrumented build, or on macOS');

/** Their names, in the order of their numbers. */
export const POINTS: string[] = hasCrashPoints
  ? JSON.parse(readFileSync(join(BUILD, 'crash/points.json'), 'utf8'))
  : [];

/** A folder from which the package's dependencies are found; of this test file alone. */
const PACKAGE = join(BUILD, `crash/package-${process.pid}`);

export const CRASH_DIST = join(PACKAGE, 'dist');

/** Where such processes record which points they come to. */
const TRACES = join(PACKAGE, 'traces');

/** For use in such a process: the addon, with `arm()`. */
const CRASH_ADDON = `require(${JSON.stringify(join(PACKAGE, 'build/Release/proclock.node'))})`;

/** The package is there while the tests of the file run. */
export function useCrashPackage(): void {
  if (!hasCrashPoints) return;
  beforeAll(() => {
    mkdirSync(join(PACKAGE, 'build/Release'), { recursive: true });
    mkdirSync(TRACES);
    cpSync(DIST, CRASH_DIST, { recursive: true });
    cpSync(join(BUILD, 'Release/proclock_crash.node'), join(PACKAGE, 'build/Release/proclock.node'));
    writeFileSync(join(PACKAGE, 'package.json'), '{}');
  });
  afterAll(() => rmSync(PACKAGE, { recursive: true }));
}

/** An actor with that package. */
export function startVictim(namespace: string): Promise<Actor> {
  return startActor('fork', {
    namespace,
    // The environment may name another addon, that of the instrumented build.
    env: { PROCLOCK_TEST_DIST: CRASH_DIST, PROCLOCK_CRASH_TRACES: TRACES, PROCLOCK_PREBUILD: PACKAGE },
  });
}

/** Which threads of the process are meant: that of JavaScript, the native ones, or all; as crash.h counts them. */
export type Thread = 'main' | 'other' | 'any';
const THREADS: Thread[] = ['main', 'other', 'any'];

export interface Point {
  point: string;
  /** 1: the first time that the thread comes there. */
  pass: number;
  thread: Thread;
}

export interface Order extends Point {
  /** What happens there: a signal, or a sleep of so many ms. */
  what: 'SIGKILL' | 'SIGSTOP' | number;
}

/** A statement for such a process: from now on it records which points it comes to, and obeys these orders. */
export function arming(orders: Order[]): string {
  const numbers = orders.flatMap(({ point, pass, thread, what }) => {
    if (!POINTS.includes(point)) throw new Error(`no such crash point: ${point}`);
    const action = typeof what === 'number' ? -what : constants.signals[what];
    return [THREADS.indexOf(thread), POINTS.indexOf(point), pass, action];
  });
  return `${CRASH_ADDON}.arm(${numbers.join(', ')});`;
}

const TRACE_MAX = 4096; // kTraceMax of crash.h

export interface Step {
  point: string;
  thread: Thread;
}

/** The points that such a process has come to since it was armed, dead or alive. */
export function traceOf({ pid }: Actor): Step[] {
  // As State of crash.h is laid out: 32 bits for the length, 16 for each number.
  const bytes = readFileSync(join(TRACES, `${pid}`));
  const length = bytes.readInt32LE(0);
  if (length > TRACE_MAX) throw new Error(`there is room for ${TRACE_MAX} steps, not for ${length}`);
  return Array.from({ length }, (_, n) => bytes.readInt16LE(4 + 2 * n))
    .filter((number) => number !== 0) // a thread of a dead process did not come to write it down
    .map((number) => ({ point: POINTS[Math.abs(number) - 1]!, thread: number > 0 ? 'main' : 'other' }));
}

export function hasTaken(actor: Actor, step: string, by: Thread): boolean {
  return traceOf(actor).some(({ point, thread }) => point === step && thread === by);
}
