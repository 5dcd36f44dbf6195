// Programs as users write them: they import 'proclock', and know nothing of tests.
import { spawn } from 'node:child_process';
import { join } from 'node:path';

const LIMIT_MS = 20_000;

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end, with `namespace` as its default one. It is the leader of a process group of its own. */
export function runProgram(file: string, namespace: string, cwd: string): Promise<Ended> {
  const preload = join(__dirname, 'own-namespace.js');
  const child = spawn(process.execPath, [file], {
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      NODE_OPTIONS: `--require ${JSON.stringify(preload)}`,
      PROCLOCK_TEST_NAMESPACE: namespace,
      NO_COLOR: '1',
    },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const endGroup = (): void => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL');
    } catch {
      // nobody is left in it
    }
  };
  const watchdog = setTimeout(endGroup, LIMIT_MS);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(watchdog);
      endGroup();
      resolve({ code, signal, stdout, stderr });
    });
  });
}
