// What `proclock doctor` looks at on macOS.
import { accessSync, constants } from 'node:fs';
import { cpus, release } from 'node:os';
import { folderOfUser } from '../shm/admin';
import { checkFiles, checkSpace, type Finding, note, ok, wrong } from './finding';

/** Of the kernel, Darwin; that of macOS 11. */
const VERSION_MIN = 20;

function checkSystem(): Finding[] {
  if (Number(release().split('.')[0]) < VERSION_MIN) return [wrong('macOS 11 or later is needed')];
  return [ok('kernel: deaths are told at once; a process that waits in several namespaces looks every 5 ms')];
}

function checkFolder(): Finding[] {
  const folder = folderOfUser();
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch {
    return [
      wrong(`${folder} is not ours to write: it has to be the folder of this user (DARWIN_USER_CACHE_DIR)`),
    ];
  }
  return [checkSpace(folder)];
}

/** Who does not share locks with this process, though it looks so. */
function checkOthers(): Finding[] {
  const findings: Finding[] = [];
  if (process.arch === 'x64' && cpus()[0]?.model.startsWith('VirtualApple'))
    findings.push(note('this Node.js runs under Rosetta: it shares no locks with those for Apple silicon'));
  if (process.env.APP_SANDBOX_CONTAINER_ID !== undefined)
    findings.push(
      note('this process is in the App Sandbox: it shares locks with those in the same one alone'),
    );
  return findings;
}

function checkLimits(): Finding[] {
  const report = process.report.getReport() as unknown as {
    userLimits: { open_files: { soft: number | 'unlimited' } };
  };
  const { soft } = report.userLimits.open_files;
  const findings = checkFiles(soft === 'unlimited' ? Number.POSITIVE_INFINITY : soft);
  return findings.length > 0 ? findings : [ok('limits: open files are enough')];
}

export const darwinChecks: Array<() => Finding[]> = [checkSystem, checkFolder, checkOthers, checkLimits];
