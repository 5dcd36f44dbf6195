// Programs of engines that tests start: on loopback, on any port, in a temporary folder, gone when the test is over.
//
// They are those of the system. As root, where they are missing and apt-get is there, Debian's packages are installed; where
// there are none in the end, the tests are skipped, and say why.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

export function commandOf(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

const isRoot = process.getuid?.() === 0;

/** Debian starts a server of its own with a package, unless its configuration says otherwise; and others as services. */
function install(...packages: string[]): void {
  if (!isRoot || commandOf('apt-get') === undefined) return;
  const configuration = '/etc/postgresql-common/createcluster.conf';
  if (!existsSync(configuration)) {
    mkdirSync(dirname(configuration), { recursive: true });
    writeFileSync(configuration, 'create_main_cluster = false\n');
  }
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const options = { stdio: 'ignore', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } } as const;
  const confold = ['-o', 'Dpkg::Options::=--force-confold', '-o', 'DPkg::Lock::Timeout=120'];
  const get = ['install', '-y', '--no-install-recommends', ...confold, ...packages];
  try {
    if (spawnSync('apt-get', get, options).status !== 0) {
      spawnSync('apt-get', ['update'], options);
      spawnSync('apt-get', get, options);
    }
  } finally {
    if (ours) rmSync(policy, { force: true }); // two that install at a time may both think so
  }
}

/** What is looked for, after these packages were installed if it was not there. */
export function found<T>(look: () => T | undefined, ...packages: string[]): T | undefined {
  const there = look();
  if (there !== undefined) return there;
  install(...packages);
  return look();
}

/** `describe`, or where something is missing, `describe.skip`. */
export function describeWith(isThere: boolean, missing: string): jest.Describe {
  if (isThere) return describe;
  console.log(`skipped: ${missing}, and it can not be installed here`);
  return describe.skip;
}

/** As root: somebody else, for servers need no more rights. @param name who it is, if there is such a user */
export function unprivileged(name: string): { uid?: number; gid?: number } {
  if (!isRoot) return {};
  const users = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const user of [name, 'nobody']) {
    const [, , uid, gid] = users.find((entry) => entry.startsWith(`${user}:`))?.split(':') ?? [];
    if (uid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  }
  return { uid: 65534, gid: 65534 };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Ends with us, however we end. @param user whose it is, as {@link unprivileged} */
export function launch(command: string, args: string[], user: string): ChildProcess {
  const child = spawn(command, args, { stdio: 'ignore', cwd: '/', ...unprivileged(user) });
  const kill = (): void => {
    child.kill('SIGCONT');
    child.kill('SIGQUIT');
  };
  process.on('exit', kill);
  child.on('exit', () => process.removeListener('exit', kill));
  child.on('error', () => {});
  return child;
}

export function temporaryFolder(user: string, parent = tmpdir()): string {
  const made = mkdtempSync(join(parent, `proclock-${user}-`));
  const { uid, gid } = unprivileged(user);
  if (uid !== undefined && gid !== undefined) chownSync(made, uid, gid);
  return made;
}

export const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** Resolves when it has ended. */
export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (hasEnded(child)) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await ended;
}
