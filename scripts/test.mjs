// Runs the tests: `node scripts/test.mjs native,jest [arguments for the last of them]`, or one of the two.
//
// Both run even if the first one fails. The last line on stdout is "N passed, N failed" with the sum of what they counted.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { nativeEnvironment, nativeRoot } from './instrument.mjs';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));

/** Of what a failed test says: its reason is at the top. */
const LINES_SHOWN = 20;
const SUITES = { native: runNative, jest: runJest };
const [suites = '', ...suiteArguments] = process.argv.slice(2);
Object.assign(process.env, nativeEnvironment);

let passed = 0;
let failed = 0;
for (const [index, suite] of suites.split(',').entries()) {
  const isLast = index === suites.split(',').length - 1;
  const counts = await SUITES[suite](isLast ? suiteArguments : []);
  passed += counts.passed;
  failed += counts.failed;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

async function runNative(words) {
  const child = spawn(`${nativeRoot}/build/Release/proclock_test`, words, {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = exitOf(child);
  let last = '';
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    last = line;
  }
  const counts = /^(\d+) passed, (\d+) failed$/.exec(last);
  return settle(
    'the native tests',
    await exit,
    counts && { passed: Number(counts[1]), failed: Number(counts[2]) },
  );
}

async function runJest(args) {
  const folder = mkdtempSync(join(tmpdir(), 'jest-report-'));
  const report = join(folder, 'report.json');
  try {
    const jest = ['node_modules/jest/bin/jest.js', '--json', `--outputFile=${report}`, ...args];
    const child = spawn(process.execPath, jest, { stdio: 'inherit' });
    const status = await exitOf(child);
    return settle('jest', status, readReport(report));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function readReport(file) {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8'));
    for (const result of report.testResults) showFailed(result);
    // A test file that cannot even be loaded has no failed test in it.
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests + report.numRuntimeErrorTestSuites,
    };
  } catch {
    return null;
  }
}

/** jest tells failures where they happen, on stderr: here they are once more, together, and on stdout. */
function showFailed({ name, message, status, assertionResults }) {
  const file = relative('.', name);
  const failed = assertionResults.filter((test) => test.status === 'failed');
  for (const { fullName, failureMessages } of failed)
    show(`${file}: ${fullName}`, failureMessages.join('\n'));
  if (status === 'failed' && failed.length === 0) show(file, message);
}

function show(title, text) {
  console.log(`FAIL ${title}`);
  const lines = stripVTControlCharacters(text)
    .split('\n')
    .filter((line) => !line.includes('/node_modules/'));
  for (const line of lines.slice(0, LINES_SHOWN)) console.log(`     ${line}`);
}

function exitOf(child) {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(signal ? 128 + constants.signals[signal] : code));
  });
}

/** A suite that ends badly has failed at least once, whatever it counted: it may have died before it could count. */
function settle(name, status, counts) {
  if (!counts) console.log(`${name}: ended with ${status} and no result`);
  const { passed, failed } = counts ?? { passed: 0, failed: 1 };
  if (status !== 0 && failed === 0) {
    console.log(`${name}: all tests passed, but the exit status is ${status}`);
    return { passed, failed: 1 };
  }
  return { passed, failed };
}
