// Real time, whatever a test library has done to the clock and the timers of the process.
//
// Such a library replaces properties: of the global object, of `performance` and `process`, of the module node:timers. What
// was taken from there when this file was loaded stays real. For one that came first:
//   - The time is that of `process.uptime`, which none of them replaces: the same clock as that of `performance.now`.
//   - Timers that are not those of Node (which tell themselves by their text) are replaced by those that sockets have inside.
// Who replaces these as well, before the package is loaded, stops our clock.
import { uptime as bootTime } from 'node:os';
import timers from 'node:timers';

const { uptime } = process;

/** Milliseconds, of a clock that never goes back. */
export function now(): number {
  return uptime.call(process) * 1000;
}

/** A time, as {@link msSince} needs it. */
export interface Moment {
  /** By {@link now}. */
  readonly time: number;
  /** How far the clock of the machine was ahead of that. It goes on while the machine is suspended, where the system tells. */
  readonly ahead: number;
}

/**
 * In what steps the clock of the machine goes on, as Node tells it: whole seconds on macOS, and wherever else nothing better is
 * known; those of /proc/uptime on Linux; those of its timer interrupt, at most, on Windows.
 */
const STEP_MS = process.platform === 'linux' ? 10 : process.platform === 'win32' ? 16 : 1000;

/** For how long an answer of the system is taken as new. */
const AHEAD_LOOK_MS = 5;

let lookedAt = Number.NEGATIVE_INFINITY;
let ahead = 0;

export function moment(): Moment {
  const time = now();
  // To ask the system costs more than all the rest. This is as if it had been asked for so much earlier.
  if (time - lookedAt > AHEAD_LOOK_MS) {
    lookedAt = time;
    ahead = bootTime() * 1000 - time;
  }
  return { time, ahead };
}

/**
 * Milliseconds since then. Unlike the difference of two {@link now}, time in which the machine was suspended counts, as far as it
 * can be told from the steps of its clock: never more than it was, and less by two steps at most. A step is 10 ms on Linux, 16 ms
 * on Windows, and a second elsewhere. What is no suspension is exact.
 */
export function msSince(then: Moment): number {
  const { time, ahead } = moment();
  return time - then.time + Math.max(ahead - then.ahead - STEP_MS, 0);
}

/** Does nothing when it was cleared before its time; keeps no process alive. */
export interface Timer {
  clear(): void;
}

const TIMER_MAX_MS = 2 ** 31 - 1;

const { clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } = timers;
const real = [setTimeout, setInterval, setImmediate, clearTimeout, clearInterval].every((timer) =>
  new RegExp(`^function ${timer.name}\\(`).test(Function.prototype.toString.call(timer)),
);

/** Calls `then` once, in `ms` milliseconds, or earlier if that is more than Node's timers can count: look at the clock. */
export const startTimer: (then: () => void, ms: number) => Timer = real
  ? (then, ms) => {
      const timer = setTimeout(then, Math.min(ms, TIMER_MAX_MS)).unref();
      return { clear: () => clearTimeout(timer) };
    }
  : (then, ms) => {
      // Loaded where it is needed: it takes some milliseconds.
      const { Socket } = require('node:net') as typeof import('node:net');
      const socket = new Socket();
      socket.setTimeout(Math.min(Math.max(ms, 1), TIMER_MAX_MS), () => {
        socket.destroy();
        then();
      });
      return { clear: () => socket.destroy() };
    };

/** Calls `then` once this turn of the event loop is over. Without `keepsAlive` the loop may sleep before, or end. */
export const startSoon: (then: () => void, keepsAlive?: boolean) => void = real
  ? (then, keepsAlive = true) => {
      const immediate = setImmediate(then);
      if (!keepsAlive) immediate.unref();
    }
  : (then) => {
      startTimer(then, 1);
    };

/** However often the result is called in one turn of the event loop: `then` is called once, when that is over. */
export function oncePerTurn(then: () => void): () => void {
  let isDue = false;
  return () => {
    if (isDue) return;
    startSoon(() => {
      isDue = false;
      then();
    });
    isDue = true;
  };
}

/**
 * Like {@link startTimer}, for what is waited for: after an event loop that was blocked, that is there, and not read yet. So
 * what has come until then is read before `then` is called.
 */
export function startDeadline(then: () => void, ms: number): Timer {
  let cleared = false;
  const timer = startTimer(() => {
    startSoon(() => {
      if (!cleared) then();
    });
  }, ms);
  return {
    clear: () => {
      cleared = true;
      timer.clear();
    },
  };
}

/** Keeps the event loop running until it is cleared. */
export const keepAlive: () => Timer = real
  ? () => {
      const timer = setInterval(() => {}, TIMER_MAX_MS);
      return { clear: () => clearInterval(timer) };
    }
  : () => {
      const { port1 } = new MessageChannel();
      port1.ref();
      return { clear: () => port1.close() };
    };
