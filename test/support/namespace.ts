// What a test leaves behind: processes and segments. Importing this file installs the hooks that see to both.
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { LockError, SharedLock } from '../../lib';
import { type Actor, running } from './actor';
import { FOLDER, GROUP_FOLDER, inFileName, segmentFile } from './segment';

export { until } from './until';

/** The name that a test uses when any name will do. */
export const name = 'ledger';

/** Instrumented code takes its time, and that is not what is tested. */
const SLOWER = process.env.PROCLOCK_INSTRUMENT ? 5 : 1;
let testMs = 25_000 * SLOWER; // less than jest's own limit: the test fails with what it was waiting for
const EXIT_MS = 5_000 * SLOWER;
if (SLOWER > 1) jest.setTimeout(testMs + EXIT_MS);

const FOLDERS = [...new Set([FOLDER, GROUP_FOLDER])];

const ofTest = new Set<string>();
const ofFile = new Set<string>();
let inTest = false;
let watchdog: NodeJS.Timeout;

/** A namespace that no other test uses; its segment is removed after the test (made outside of one: after the file). */
export function testNamespace(suffix = ''): string {
  const namespace = `test-${process.pid}-${randomBytes(6).toString('hex')}${suffix}`;
  (inTest ? ofTest : ofFile).add(namespace);
  return namespace;
}

/** The files of a namespace: one, or none, or one more for each group that it was opened with. */
export function segmentFiles(namespace: string): string[] {
  const isOfIt = (file: string): boolean =>
    file.startsWith('proclock-') && file.endsWith(`-${inFileName(namespace)}`);
  return FOLDERS.flatMap((folder) =>
    readdirSync(folder)
      .filter(isOfIt)
      .map((file) => `${folder}/${file}`),
  );
}

function remove(namespaces: Set<string>): void {
  for (const namespace of namespaces) {
    for (const file of segmentFiles(namespace)) rmSync(file, { force: true });
  }
  namespaces.clear();
}

/** Who of this process still holds the lock that the test was about, or waits for it: what fails must leave nothing. */
function leftIn(namespace: string): string[] {
  if (!existsSync(segmentFile(namespace))) return [];
  try {
    using lock = new SharedLock(name, { namespace });
    const { held, pending } = lock.query();
    return [
      ...held.map((info) => `${info.mode} hold left: pid ${info.pid} thread ${info.threadId}`),
      ...pending.map((info) => `${info.mode} wait left: pid ${info.pid} thread ${info.threadId}`),
    ];
  } catch (error) {
    // Some tests leave a namespace that can not be entered.
    if (error instanceof LockError) return [];
    throw error;
  }
}

/** Ends an actor in good order. An actor that can not do that is stuck, and what it was waiting for did not come. */
async function end(actor: Actor): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<true>((resolve) => {
    timer = setTimeout(resolve, EXIT_MS, true);
  });
  const isLate = await Promise.race([actor.exit(0), late]);
  clearTimeout(timer);
  if (isLate !== true) return undefined;
  await actor.destroy();
  return `${actor.kind} actor ${actor.pid} was left running, and did not exit when it was told to`;
}

/** For a file whose tests do a lot each. */
export function allowPerTest(ms: number): void {
  testMs = ms * SLOWER;
  jest.setTimeout(testMs + EXIT_MS);
}

beforeEach(() => {
  inTest = true;
  watchdog = setTimeout(() => {
    for (const actor of running) void actor.destroy();
  }, testMs);
});

afterEach(async () => {
  inTest = false;
  clearTimeout(watchdog);
  const complaints = (await Promise.all([...running].filter(({ lasting }) => !lasting).map(end))).filter(
    (complaint) => complaint !== undefined,
  );
  complaints.push(...[...ofTest].flatMap(leftIn));
  remove(ofTest);
  if (complaints.length > 0) throw new Error(complaints.join('\n'));
});

afterAll(async () => {
  const complaints = (await Promise.all([...running].map(end))).filter(
    (complaint) => complaint !== undefined,
  );
  remove(ofFile);
  const left = FOLDERS.flatMap((folder) =>
    readdirSync(folder)
      .filter((file) => file.includes(`-test-${process.pid}-`))
      .map((file) => `${folder}/${file}`),
  );
  if (left.length > 0) complaints.push(`segments were left: ${left.join(', ')}`);
  // The next file in this process is not to blame.
  for (const file of left) rmSync(file, { force: true });
  if (complaints.length > 0) throw new Error(complaints.join('\n'));
});
