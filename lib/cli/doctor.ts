// `proclock doctor`: what of this machine keeps locks from working, or may do so one day.
import {
  accessSync,
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { arch, platform, release, userInfo } from 'node:os';
import { SharedLock } from '../index';
import { describeNative, layoutOf, prune, type Segment, segmentsOfUser } from '../shm/admin';
import { Screen } from './screen';
import { Exit, lineOf, parse, UsageError } from './usage';

const SHM = '/dev/shm';
const MIB = 2 ** 20;
/** What a namespace takes of addresses, and what a busy one may take of memory. */
const ADDRESSES = 160 * MIB;
const FREE_MIN = MIB;
const SIZE_SMALL = 64 * MIB;
const FILES_MIN = 64;
const TASKS_MIN = 64;

type Level = 'ok' | 'note' | 'wrong';

interface Finding {
  readonly level: Level;
  readonly text: string;
}

const ok = (text: string): Finding => ({ level: 'ok', text });
const note = (text: string): Finding => ({ level: 'note', text });
const wrong = (text: string): Finding => ({ level: 'wrong', text });

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

const mib = (bytes: number): string => `${(bytes / MIB).toFixed(0)} MiB`;

function checkBinary(): Finding[] {
  const node = `Node.js ${process.versions.node}, ${platform()} ${release()}, ${arch()}`;
  try {
    const { file, layoutVersion } = describeNative();
    return [ok(node), ok(`native part: ${file}, layout ${layoutVersion}`)];
  } catch (error) {
    return [ok(node), wrong(lineOf(error).replace('proclock: ', ''))];
  }
}

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
  const { bavail, blocks, bsize } = statfsSync(SHM);
  const [size, free] = [blocks * bsize, bavail * bsize];
  const room = `${SHM}: ${mib(free)} free of ${mib(size)}`;
  if (free < FREE_MIN)
    return [wrong(`${room}: ERR_LOCK_NO_SPACE is near; remove what fills it, or make it larger`)];
  if (size <= SIZE_SMALL) return [note(`${room}: other programs may fill it (docker: --shm-size)`)];
  return [ok(room)];
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
  const findings: Finding[] = [];
  if (files < FILES_MIN) findings.push(wrong(`${files} open files are allowed: raise the limit (ulimit -n)`));
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

function checkSegment(segment: Segment, native: { layoutVersion: number; abi: number }): Finding[] {
  const { file, group } = segment;
  const { mode, uid } = statSync(file);
  if (group < 0 && uid !== process.geteuid?.())
    return [wrong(`${file} belongs to user ${uid}: it keeps us out; remove it`)];
  const expected = group < 0 ? 0o600 : 0o660;
  if ((mode & 0o777) !== expected)
    return [wrong(`${file} has mode ${(mode & 0o777).toString(8)}, not ${expected.toString(8)}: chmod it`)];
  const unused = prune(segment, false);
  const layout = layoutOf(segment);
  if (layout !== undefined && (layout.version !== native.layoutVersion || layout.abi !== native.abi)) {
    const what = `${file} has the layout ${layout.version} of another version or libc`;
    return [
      unused ? note(`${what}; nobody uses it`) : wrong(`${what}, and is in use: run one version at a time`),
    ];
  }
  return unused ? [note(`${file}: nobody uses it (proclock prune)`)] : [];
}

function checkSegments(): Finding[] {
  const native = describeNative();
  const segments = segmentsOfUser();
  const findings = segments.flatMap((segment) => {
    try {
      return checkSegment(segment, native);
    } catch (error) {
      return [wrong(lineOf(error).replace('proclock: ', ''))];
    }
  });
  return [ok(`namespaces: ${segments.length}`), ...findings];
}

/** Whether a lock can be had, in a namespace of our own: nobody else can have entered it when its file is removed. */
function checkLock(): Finding[] {
  const namespace = `doctor-${process.pid}`;
  const lock = new SharedLock('doctor', { namespace });
  try {
    lock.exclusiveSync(() => {});
  } finally {
    lock.close();
    rmSync(`${SHM}/proclock-${process.geteuid?.()}-${namespace}`, { force: true });
  }
  return [ok('a lock was acquired and released')];
}

function guarded(check: () => Finding[]): Finding[] {
  try {
    return check();
  } catch (error) {
    return [wrong(lineOf(error).replace('proclock: ', ''))];
  }
}

/** @returns the exit code */
export function doctor(args: string[]): number {
  const { names } = parse(args, {});
  if (names.length > 0) throw new UsageError(`doctor takes no names: ${names[0]}`);
  const onLinux = platform() === 'linux';
  const findings = guarded(checkBinary);
  const hasNative = findings.every(({ level }) => level !== 'wrong');
  if (onLinux)
    for (const check of [checkFolder, checkContainer, checkLimits, checkKernel, checkLogind])
      findings.push(...guarded(check));
  if (hasNative) findings.push(...guarded(checkLock));
  if (hasNative && onLinux) findings.push(...guarded(checkSegments));
  const screen = new Screen(process.stdout);
  const styles = { ok: 'green', note: 'yellow', wrong: 'red' } as const;
  for (const { level, text } of findings)
    process.stdout.write(`${screen.paint(styles[level], level.padEnd(5))}  ${text}\n`);
  return findings.some(({ level }) => level === 'wrong') ? Exit.FAILED : Exit.OK;
}
