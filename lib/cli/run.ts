// `proclock run`: a command under a lock. It has to start at once, and loads no more of the package than it needs.
//
// Nothing is written to standard output, and to standard error by blocking writes alone: these files are the command's as well,
// and a stream of Node.js would change how they behave.
//
// A command that ends by a signal leaves the mark of a dead holder, since its work may be half done: then this process ends
// without giving the lock back. One that exits, with whatever code, does not; a mark that was there goes if the code is 0.
import { now } from '../common/clock';
import { LockError } from '../common/errors';
import type { LockInfo } from '../common/types';
import type { Space } from '../remote';
import { SharedLock } from '../shm/shared-lock';
import { exitCodeOf, isFromTerminal, type Outcome, type Running, SIGNALS, type Signal, start } from './child';
import { ENGINE_OPTIONS, spaceOf } from './engine';
import { complain, infoLine, printable, seconds } from './text';
import { Exit, firstWord, numberOf, type OptionConfigs, parse, UsageError, usageOf, wordsOf } from './usage';

const OPTIONS: OptionConfigs = {
  shared: { type: 'boolean', short: 's' },
  nonblock: { type: 'boolean', short: 'n' },
  timeout: { type: 'string', short: 'w' },
  'conflict-exit-code': { type: 'string', short: 'E' },
  fair: { type: 'boolean' },
  namespace: { type: 'string' },
  group: { type: 'string' },
  verbose: { type: 'boolean', short: 'v' },
  ...ENGINE_OPTIONS,
};
const EXIT_CODE_MAX = 255;
const SECONDS_MAX = 2 ** 31;
/** How long until it is said whom one waits for. */
const SAY_MS = 1000;
/** What a command that has lost its lock has to come to an end. */
const LOST_MS = 5000;
/** How long the engine has to end the session when a signal has ended the wait. */
const CLOSING_MS = 200;
/** Of the command; those of a `run` around this one mean nothing to it. */
const VARIABLES = ['NAME', 'NAMESPACE', 'MODE', 'TOKEN', 'ABANDONED'].map((name) => `PROCLOCK_${name}`);

interface Wanted {
  readonly name: string;
  readonly argv: string[];
  readonly shared: boolean;
  readonly timeout: number;
  readonly conflictCode: number;
  readonly verbose: boolean;
  readonly values: ReturnType<typeof parse>['values'];
}

/** What locks of this machine and of others have in common. */
interface AnyGuard {
  readonly token: bigint;
  readonly abandoned: { readonly pid: number } | null;
  readonly lost: AbortSignal;
}
interface AnyLock {
  readonly name: string;
  readonly namespace: string;
  acquire<T>(
    options: { exclusive: boolean; timeout: number; signal: AbortSignal },
    fn: (guard: AnyGuard) => Promise<T>,
  ): Promise<T>;
  query(options: { processes: boolean }): AnySnapshot | Promise<AnySnapshot>;
}
interface AnySnapshot {
  readonly held: LockInfo[];
  readonly pending: LockInfo[];
}

function wantedOf(args: string[]): Wanted {
  const at = firstWord(args, OPTIONS);
  const { values } = parse(args.slice(0, at), OPTIONS);
  const words = args.slice(at);
  if (words[0] === '--') words.shift();
  const name = words.shift();
  if (words[0] === '--') words.shift();
  if (name === undefined) throw new UsageError('the name of a lock is missing: proclock help run');
  if (words.length === 0 || words[0] === '') throw new UsageError('a command is missing: proclock help run');
  if (values.group !== undefined && (values.postgres ?? values.etcd) !== undefined)
    throw new UsageError('--group is of locks of this machine');
  const { timeout, 'conflict-exit-code': code, nonblock } = values as Record<string, string | undefined>;
  const ms =
    timeout === undefined
      ? Number.POSITIVE_INFINITY
      : numberOf('-w', timeout, SECONDS_MAX, 'a number of seconds') * 1000;
  return {
    name,
    argv: words,
    shared: values.shared === true,
    timeout: nonblock ? 0 : ms,
    conflictCode: code === undefined ? Exit.CONFLICT : numberOf('-E', code, EXIT_CODE_MAX, 'a whole number'),
    verbose: values.verbose === true,
    values,
  };
}

const say = (text: string): void => complain(`proclock: ${text}`);

/** A command that has become another user can not be sent any. */
function send(running: Running, signal: Signal): void {
  try {
    running.kill(signal);
  } catch (error) {
    say(`the command can not be sent ${signal}: ${(error as Error).message}`);
  }
}

/** Signals that were sent to us: they end the wait, or go on to the command. */
class Signals {
  readonly ended = new AbortController();
  /** While there is nothing that could be given back. */
  connecting = true;
  running: Running | undefined;
  first: Signal | undefined;

  listen(): void {
    for (const signal of SIGNALS) process.on(signal, () => this.take(signal));
  }

  private take(signal: Signal): void {
    if (this.running !== undefined) {
      if (!isFromTerminal(signal)) send(this.running, signal);
      return;
    }
    if (this.connecting) process.exit(exitCodeOf(signal));
    this.first ??= signal;
    this.ended.abort();
  }
}

function openLock({ name, values }: Wanted, space: Space | undefined): AnyLock {
  if (space !== undefined) {
    const remote = require('../remote') as typeof import('../remote');
    return new remote.SharedLock(name, { space }) as AnyLock;
  }
  const { fair, group, namespace } = values as { fair?: boolean; group?: string; namespace?: string };
  try {
    return new SharedLock(name, {
      ...(fair !== undefined && { fair }),
      ...(group !== undefined && { group: /^\d+$/.test(group) ? Number(group) : group }),
      ...(namespace !== undefined && { namespace }),
    }) as AnyLock;
  } catch (error) {
    throw usageOf(error);
  }
}

function environmentOf(lock: AnyLock, guard: AnyGuard, mode: string): NodeJS.ProcessEnv {
  const env = { ...process.env };
  for (const variable of VARIABLES) delete env[variable];
  return {
    ...env,
    PROCLOCK_NAME: lock.name,
    PROCLOCK_NAMESPACE: lock.namespace,
    PROCLOCK_MODE: mode,
    PROCLOCK_TOKEN: `${guard.token}`,
    ...(guard.abandoned !== null && { PROCLOCK_ABANDONED: `${guard.abandoned.pid}` }),
  };
}

async function sayWhom(lock: AnyLock, mode: string): Promise<void> {
  try {
    const { held, pending } = await lock.query({ processes: true });
    const holders = held.length === 0 ? 'nobody holds it' : `held by ${held.map(infoLine).join('; ')}`;
    const others = pending.length > 1 ? `; ${pending.length - 1} others wait` : '';
    say(`waiting for ${printable(lock.name)} (${mode}): ${holders}${others}`);
  } catch (error) {
    say(`waiting for ${printable(lock.name)} (${mode}): ${(error as Error).message}`);
  }
}

/** The command came to an end that is no success: what an earlier holder left is not repaired. */
class NotRepaired extends Error {
  constructor(readonly outcome: Outcome) {
    super('the command has failed');
  }
}

async function runHolding(wanted: Wanted, lock: AnyLock, guard: AnyGuard, signals: Signals): Promise<number> {
  const mode = wanted.shared ? 'shared' : 'exclusive';
  const { abandoned, lost } = guard;
  if (wanted.verbose && abandoned !== null) say(`the last holder, pid ${abandoned.pid}, died`);
  if (signals.first !== undefined)
    throw new NotRepaired({ exitCode: exitCodeOf(signals.first), bySignal: true });
  const running = start(wanted.argv, environmentOf(lock, guard, mode));
  signals.running = running;
  let killing: NodeJS.Timeout | undefined;
  const end = (): void => {
    say(wordsOf(lost.reason));
    send(running, 'SIGTERM');
    killing = setTimeout(() => send(running, 'SIGKILL'), LOST_MS);
  };
  if (lost.aborted) end();
  else lost.addEventListener('abort', end, { once: true });
  const outcome = await running.outcome;
  clearTimeout(killing);
  lost.removeEventListener('abort', end);
  if (lost.aborted) process.exit(Exit.LOST);
  if (outcome.bySignal) process.exit(outcome.exitCode); // with the lock: others are told
  if (outcome.exitCode !== 0) throw new NotRepaired(outcome);
  return Exit.OK;
}

async function acquireAndRun(wanted: Wanted, lock: AnyLock, signals: Signals): Promise<number> {
  const { shared, timeout, verbose } = wanted;
  const mode = shared ? 'shared' : 'exclusive';
  const began = now();
  const saying = setTimeout(() => void sayWhom(lock, mode), SAY_MS);
  try {
    const options = { exclusive: !shared, timeout, signal: signals.ended.signal };
    return await lock.acquire(options, (guard) => {
      clearTimeout(saying);
      const after = seconds(now() - began);
      if (verbose) say(`acquired ${printable(lock.name)} (${mode}) after ${after}, token ${guard.token}`);
      return runHolding(wanted, lock, guard, signals);
    });
  } catch (error) {
    if (error instanceof NotRepaired) return error.outcome.exitCode;
    if (signals.running === undefined && signals.first !== undefined) return exitCodeOf(signals.first);
    if (signals.running === undefined && error instanceof LockError && error.code === 'ERR_LOCK_TIMEOUT') {
      say(wordsOf(error));
      return wanted.conflictCode;
    }
    throw error;
  } finally {
    clearTimeout(saying);
  }
}

/** Nobody waits long for an engine that stands still, once a signal has ended the wait for the lock: nothing is held. */
async function closeInTime(space: Space, { first, running }: Signals): Promise<void> {
  const closed = space.close();
  if (running !== undefined || first === undefined) return closed;
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, CLOSING_MS))]);
}

/** @returns the exit code */
export async function run(args: string[]): Promise<number> {
  const wanted = wantedOf(args);
  const signals = new Signals();
  signals.listen();
  const space = await spaceOf(wanted.values);
  signals.connecting = false;
  const code = await acquireAndRun(wanted, openLock(wanted, space), signals);
  if (wanted.verbose && signals.running !== undefined) say(`released ${printable(wanted.name)}`);
  if (space !== undefined) await closeInTime(space, signals);
  // Handlers of signals would not keep us, but what a terminal or an engine has open might.
  process.exit(code);
}
