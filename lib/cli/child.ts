// The command that is run while a lock is held: started, told of signals, waited for.
//
// Where there is a native part, it is killed when this process ends, in whatever way (native/platform/*/children.cc say why there
// is no moment in which it is left alone). Elsewhere it is an ordinary child.
import { constants } from 'node:os';
import { isInForeground, reap, startEnding } from '../shm/admin';
import { complain } from './text';
import { Exit } from './usage';

/** What ends a program by default, and is given on to the command. */
export const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;
export type Signal = NodeJS.Signals;

/** How it ended. */
export interface Outcome {
  /** Of its own, or 128 + the signal. */
  readonly exitCode: number;
  readonly bySignal: boolean;
}

export interface Running {
  readonly outcome: Promise<Outcome>;
  /** Throws where that is not allowed. */
  kill(signal: Signal): void;
}

/** How often it is looked at without a signal that says so: one that is lost costs no more than that. */
const LOOK_MS = 1000;
const NATIVE_SIGNALS = 256;

export const exitCodeOf = (signal: Signal): number => Exit.BY_SIGNAL + constants.signals[signal];

/** It could not be started. */
function notStarted(program: string, code: string | undefined): Outcome {
  const missing = code === 'ENOENT' || code === 'ENOTDIR';
  complain(
    `proclock: ${JSON.stringify(program)} ${missing ? 'was not found' : 'can not be executed'} (${code})`,
  );
  return { exitCode: missing ? Exit.NOT_FOUND : Exit.NOT_EXECUTABLE, bySignal: false };
}

function errorName(errno: number): string | undefined {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
}

/** A child of ours that ends with us. */
function startNative(argv: string[], env: NodeJS.ProcessEnv): Running {
  let look = (): void => {};
  const onChild = (): void => look();
  process.on('SIGCHLD', onChild);
  const pid = startEnding(argv, env);
  if (pid < 0) {
    process.off('SIGCHLD', onChild);
    return { outcome: Promise.resolve(notStarted(argv[0] as string, errorName(-pid))), kill: () => {} };
  }
  let ended = false;
  const outcome = new Promise<Outcome>((resolve) => {
    const timer = setInterval(() => look(), LOOK_MS);
    look = () => {
      const how = reap(pid);
      if (how < 0) return;
      ended = true;
      clearInterval(timer);
      process.off('SIGCHLD', onChild);
      const bySignal = how >= NATIVE_SIGNALS;
      resolve({ exitCode: bySignal ? Exit.BY_SIGNAL + how - NATIVE_SIGNALS : how, bySignal });
    };
    look();
  });
  return { outcome, kill: (signal) => ended || process.kill(pid, signal) };
}

/** Loads what it needs itself: that takes a tenth of the time in which the other way has begun. */
function startPlain([program, ...args]: string[], env: NodeJS.ProcessEnv): Running {
  const { spawn } = require('node:child_process') as typeof import('node:child_process');
  const child = spawn(program as string, args, { env, stdio: 'inherit' });
  const outcome = new Promise<Outcome>((resolve) => {
    child.once('error', ({ code }: NodeJS.ErrnoException) => resolve(notStarted(program as string, code)));
    child.once('exit', (code, signal) => {
      if (signal === null) resolve({ exitCode: code as number, bySignal: false });
      else resolve({ exitCode: exitCodeOf(signal), bySignal: true });
    });
  });
  const isRunning = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  return { outcome, kill: (signal) => isRunning() && process.kill(child.pid as number, signal) };
}

/** Whether there is a native part that can start it. */
function isNative(): boolean {
  try {
    reap(0);
    return true;
  } catch {
    return false; // Locks of an engine do without.
  }
}

/** Input and output are ours; no other descriptor is inherited. */
export function start(argv: string[], env: NodeJS.ProcessEnv): Running {
  return isNative() ? startNative(argv, env) : startPlain(argv, env);
}

/**
 * Whether a signal came from the keys of a terminal. Its kernel sends those to each process in the foreground, the command
 * among them, which is not to have it twice.
 */
export function isFromTerminal(signal: Signal): boolean {
  if (signal !== 'SIGINT' && signal !== 'SIGQUIT') return false;
  try {
    return isInForeground();
  } catch {
    return process.stdin.isTTY === true;
  }
}
