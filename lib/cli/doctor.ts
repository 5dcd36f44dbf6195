// `proclock doctor`: what of this machine keeps locks from working, or may do so one day.
import { existsSync, rmSync, statSync } from 'node:fs';
import { arch, release } from 'node:os';
import { SharedLock } from '../index';
import {
  contentOf,
  describeNative,
  fileOf,
  layoutOf,
  prune,
  type Segment,
  segmentsOfUser,
} from '../shm/admin';
import { darwinChecks } from './doctor-darwin';
import { linuxChecks } from './doctor-linux';
import { type Finding, note, ok, wrong } from './finding';
import { Screen } from './screen';
import { Exit, parse, UsageError, wordsOf } from './usage';

const CHECKS: Partial<Record<NodeJS.Platform, Array<() => Finding[]>>> = {
  linux: linuxChecks,
  darwin: darwinChecks,
};

function checkBinary(): Finding[] {
  const node = `Node.js ${process.versions.node}, ${process.platform} ${release()}, ${arch()}`;
  try {
    const { file, layoutVersion } = describeNative();
    return [ok(node), ok(`native part: ${file}, layout ${layoutVersion}`)];
  } catch (error) {
    return [ok(node), wrong(wordsOf(error))];
  }
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
  if (unused) return [note(`${file}: nobody uses it (proclock prune)`)];
  contentOf(segment); // it throws where something is wrong in there
  return [];
}

function checkSegments(): Finding[] {
  const native = describeNative();
  const segments = segmentsOfUser();
  const findings = segments.flatMap((segment) => {
    try {
      return checkSegment(segment, native);
    } catch (error) {
      // One that was removed meanwhile is no trouble.
      return existsSync(segment.file) ? [wrong(wordsOf(error))] : [];
    }
  });
  return [ok(`namespaces: ${segments.length}`), ...findings];
}

/** Whether a lock can be had, in a namespace of our own: nobody else can have entered it when its file is removed. */
function checkLock(): Finding[] {
  const namespace = `doctor-${process.pid}`;
  let lock: SharedLock | undefined;
  try {
    lock = new SharedLock('doctor', { namespace });
    lock.exclusiveSync(() => {});
  } finally {
    lock?.close();
    rmSync(fileOf(namespace), { force: true });
  }
  return [ok('a lock was acquired and released')];
}

function guarded(check: () => Finding[]): Finding[] {
  try {
    return check();
  } catch (error) {
    return [wrong(wordsOf(error))];
  }
}

/** @returns the exit code */
export function doctor(args: string[]): number {
  const { names } = parse(args, {});
  if (names.length > 0) throw new UsageError(`doctor takes no names: ${names[0]}`);
  const findings = guarded(checkBinary);
  const hasNative = findings.every(({ level }) => level !== 'wrong');
  for (const check of CHECKS[process.platform] ?? []) findings.push(...guarded(check));
  if (hasNative) for (const check of [checkLock, checkSegments]) findings.push(...guarded(check));
  const screen = new Screen(process.stdout);
  const styles = { ok: 'green', note: 'yellow', wrong: 'red' } as const;
  for (const { level, text } of findings)
    process.stdout.write(`${screen.paint(styles[level], level.padEnd(5))}  ${text}\n`);
  return findings.some(({ level }) => level === 'wrong') ? Exit.FAILED : Exit.OK;
}
