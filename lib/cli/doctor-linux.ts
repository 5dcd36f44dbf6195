// What `proclock doctor` looks at on Linux.
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { release, userInfo } from 'node:os';
import { checkFiles, checkSpace, type Finding, MIB, mib, note, ok, textOf, wrong } from './finding';

const SHM = '/dev/shm';
/** What a namespace takes of addresses. */
const ADDRESSES = 160 * MIB;
const SIZE_SMALL = 64 * MIB;
const TASKS_MIN = 64;

function checkFolder(): Finding[] {
  if (!existsSync(SHM)) return [wrong(`${SHM} is missing: mount a tmpfs there`)];
  try {
    accessSync(SHM, constants.W_OK | constants.X_OK);
  } catch (error) {
    const readOnly = (error as NodeJS.ErrnoException).code === 'EROFS';
    return [
      wrong(`${SHM} is ${readOnly ? 'mounted read-only: mount it rw' : 'not ours to write: chmod 1777'}`),
    ];
  }
  return [checkSpace(SHM, SIZE_SMALL)];
}

/** The type of the file system of /dev/shm, and whether this process is in a container, as far as can be told. */
function checkContainer(): Finding[] {
  const mount = textOf('/proc/self/mountinfo')
    .split('\n')
    .map((line) => line.split(' '))
    .find((fields) => fields[4] === SHM);
  const findings: Finding[] = [];
  const type = mount?.[mount.indexOf('-') + 1];
  if (type !== undefined && type !== 'tmpfs')
    findings.push(
      note(`${SHM} is ${type}, not tmpfs: locks may outlive a restart of the machine, and be slow`),
    );
  const inContainer =
    existsSync('/.dockerenv') ||
    existsSync('/run/.containerenv') ||
    process.env.container !== undefined ||
    /docker|kubepods|containerd|lxc/.test(textOf('/proc/1/cgroup'));
  if (inContainer)
    findings.push(
      note(
        `this is a container: locks are shared with others only if ${SHM} is (--ipc=host, or a common volume)`,
      ),
    );
  const first = textOf('/proc/1/stat');
  if (first === '')
    findings.push(note('/proc is hidden or missing: what other processes are can not be told'));
  return findings;
}

/** Of /proc/self/limits: the soft limit, `Infinity` if there is none. */
function limitOf(name: string): number {
  const line = textOf('/proc/self/limits')
    .split('\n')
    .find((text) => text.startsWith(name));
  const value = line?.slice(name.length).trim().split(/\s+/)[0];
  return value === undefined || value === 'unlimited' ? Number.POSITIVE_INFINITY : Number(value);
}

function checkLimits(): Finding[] {
  const files = limitOf('Max open files');
  const tasks = limitOf('Max processes');
  const addresses = limitOf('Max address space');
  const findings = checkFiles(files);
  if (tasks < TASKS_MIN)
    findings.push(
      note(
        `${tasks} processes and threads are allowed (ulimit -u): waits are served more slowly without threads`,
      ),
    );
  if (addresses < 10 * ADDRESSES)
    findings.push(
      wrong(
        `${mib(addresses)} of addresses are allowed (ulimit -v): each namespace takes ${mib(ADDRESSES)} of them`,
      ),
    );
  return findings.length > 0 ? findings : [ok('limits: open files, processes and addresses are enough')];
}

function checkKernel(): Finding[] {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const has = (wantedMajor: number, wantedMinor: number): boolean =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
  if (!has(5, 3)) return [note('a kernel before 5.3 has no pidfd: deaths are noticed some 50 ms later')];
  if (!has(5, 16)) return [note('a kernel before 5.16 has no futex_waitv: many waits take turns')];
  return [ok('kernel: deaths are told at once, and many waits need one thread')];
}

function checkLogind(): Finding[] {
  const isUser = (process.getuid?.() ?? 0) >= 1000;
  if (!existsSync('/run/systemd/system') || !isUser) return [];
  const files = ['/etc/systemd/logind.conf'];
  if (existsSync('/etc/systemd/logind.conf.d'))
    for (const file of readdirSync('/etc/systemd/logind.conf.d'))
      files.push(`/etc/systemd/logind.conf.d/${file}`);
  const keeps = files.some((file) => /^\s*RemoveIPC\s*=\s*(no|false|0)\s*$/m.test(textOf(file)));
  const lingers = existsSync(`/var/lib/systemd/linger/${userInfo().username}`);
  if (keeps || lingers) return [];
  return [
    note(
      'systemd removes what this user has in /dev/shm when the last session ends (RemoveIPC): loginctl enable-linger, for what is to run on',
    ),
  ];
}

export const linuxChecks: Array<() => Finding[]> = [
  checkFolder,
  checkContainer,
  checkLimits,
  checkKernel,
  checkLogind,
];
