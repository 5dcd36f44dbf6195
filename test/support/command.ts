// The command `proclock`, as a shell starts it.
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';

export const MAIN = join(__dirname, '../../dist/cli/main.js');
const LIMIT_MS = 20_000;

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  /** What it has written until now. */
  readonly written: { stdout: string; stderr: string };
}

/** Starts it as the leader of a process group, which is ended with it. */
export function startCommand(args: string[], env: NodeJS.ProcessEnv = {}): Started {
  const child = spawn(process.execPath, [MAIN, ...args], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const written = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text) => {
      written[stream] += text;
    });
  }
  const endGroup = (): void => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {
      // nobody is left in it
    }
  };
  const watchdog = setTimeout(endGroup, LIMIT_MS);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(watchdog);
      endGroup();
      resolve({ code, signal, ...written });
    });
  });
  return { child, ended, written };
}

export const runCommand = (args: string[], env?: NodeJS.ProcessEnv): Promise<Ended> =>
  startCommand(args, env).ended;
