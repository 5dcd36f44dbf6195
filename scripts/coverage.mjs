// How much of native/ and lib/ the tests reach: `node scripts/coverage.mjs [native] [lib]`, without arguments both.
//
//   native  lines and branches, counted by gcov while the native tests run. The core's templates are counted as compiled for
//           the tests' platform and for Linux together. addon.cc needs Node: with `lib` it is counted, too, while jest
//           runs. Too low then: a process that is killed writes no counts
//   lib     lines and branches, counted in all processes and threads while jest runs: see counted-package.mjs
//
// What is not reached is printed by file and line; docs/coverage.md gives the reasons. A test that fails is a failure of this
// script, after the figures.
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { makeCountedPackage } from './counted-package.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

const FOLDER = resolve('build/coverage');
const parts = process.argv.slice(2);
const wants = (part) => parts.length === 0 || parts.includes(part);
// They take long, and reach nothing that the others do not: the simulation (which has a machine of its own), the tests of
// scale, and those of every single step.
const NATIVE_LEFT_OUT = ['sim_', 'scale_', 'stop_at_', 'death_at_'];
// Nor do documents, contention and storms (for long, and at random), and what needs crash points, which an instrumented addon
// has not.
const JEST_LEFT_OUT = [
  'reload', // counters keep each copy that they count
  ...['documents', 'bounded-overtaking', 'ending', 'exclusion', 'sharing'],
  ...['storm', 'web-locks-storm', 'crash-points'],
];
const environment = { ...process.env, PROCLOCK_INSTRUMENT: 'coverage' };

const builds = ['native', ...(wants('native') ? ['native-tests'] : []), 'dist'];
let failed = !execute(['scripts/ensure.mjs', ...builds]);
if (failed) process.exit(1);
for (const file of filesIn(join(FOLDER, 'build'), '.gcda')) rmSync(file); // counts of earlier runs
if (wants('native')) {
  const tests = filesOf('test/native', '_test.cc', NATIVE_LEFT_OUT);
  if (!execute(['scripts/test.mjs', 'native', ...tests])) failed = true;
  report('native', nativeCounts());
}
if (wants('lib')) {
  const folder = join(FOLDER, 'counted');
  const counted = makeCountedPackage(folder, join(FOLDER, 'build/Release/proclock.node'));
  const tests = filesOf('test', '.test.ts', JEST_LEFT_OUT).map((name) => `test/${name}`);
  if (!execute(['node_modules/jest/bin/jest.js', ...tests], folder)) failed = true;
  report(wants('native') ? 'native, with jest' : 'native, by jest alone', nativeCounts());
  report('lib', await counted.counts());
}
if (failed) console.error('coverage: tests failed');
process.exitCode = failed ? 1 : 0;

function filesOf(folder, suffix, leftOut) {
  return readdirSync(folder)
    .filter((name) => name.endsWith(suffix) && !leftOut.some((word) => name.startsWith(word)))
    .sort();
}

/** By file and line: how often it ran (where something begins on it that is counted), and each of its branches. */
function nativeCounts() {
  const counts = new Map();
  const data = filesIn(join(FOLDER, 'build'), '.gcda');
  const gcov = process.env.GCOV ?? 'gcov';
  for (const file of data) {
    const { stdout, status, stderr } = spawnSync(
      gcov,
      ['--json-format', '--stdout', '--branch-probabilities', file],
      {
        maxBuffer: 2 ** 30,
        cwd: join(FOLDER, 'build'),
      },
    );
    if (status !== 0) throw new Error(`${gcov} ${file}: ${stderr}`);
    // One document a line, compressed by some versions.
    const text = stdout[0] === 0x1f ? gunzipSync(stdout).toString() : stdout.toString();
    for (const document of text.split('\n').filter((line) => line.startsWith('{'))) {
      for (const source of JSON.parse(document).files) addNative(counts, source);
    }
  }
  return counts;
}

function addNative(counts, source) {
  const name = /(?:^|\/)(native\/[\w/]+\.(?:cc|h))$/.exec(source.file)?.[1];
  if (!name || source.file.includes('test/native')) return;
  const lines = getOrAdd(counts, name, () => new Map());
  for (const { line_number: number, count, branches } of source.lines) {
    const line = getOrAdd(lines, number, () => ({ count: 0, branches: [] }));
    line.count += count;
    branches
      .filter((branch) => !branch.throw)
      .forEach((branch, index) => {
        line.branches[index] = (line.branches[index] ?? 0) + branch.count;
      });
  }
}

function report(title, counts) {
  console.log(`\n${title}`);
  const total = { lines: 0, linesHit: 0, branches: 0, branchesHit: 0 };
  for (const [name, lines] of [...counts].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const of = { lines: 0, linesHit: 0, branches: 0, branchesHit: 0 };
    const missed = [];
    const partly = [];
    for (const [number, { count, branches }] of [...lines].sort(([a], [b]) => a - b)) {
      if (count !== undefined) of.lines++;
      if (count > 0) of.linesHit++;
      const taken = branches.filter((count) => count > 0).length;
      of.branches += branches.length;
      of.branchesHit += taken;
      if (count === 0) missed.push(number);
      else if (taken < branches.length) partly.push(number);
    }
    for (const key of Object.keys(total)) total[key] += of[key];
    print(name, of);
    if (missed.length > 0) console.log(`    not reached: ${asRanges(missed)}`);
    if (partly.length > 0) console.log(`    not in every way: ${asRanges(partly)}`);
  }
  print('all', total);
}

function print(name, of) {
  const percent = (part, whole) => (whole === 0 ? '' : `${((part / whole) * 100).toFixed(1)} %`);
  console.log(
    [
      name.padEnd(26),
      `${of.linesHit}/${of.lines} lines`.padStart(16),
      percent(of.linesHit, of.lines).padStart(8),
      of.branches === 0 ? '' : `${of.branchesHit}/${of.branches} branches`.padStart(20),
      percent(of.branchesHit, of.branches).padStart(8),
    ]
      .join(' ')
      .trimEnd(),
  );
}

function asRanges(numbers) {
  const ranges = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last && number <= last[1] + 1) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
}

function getOrAdd(map, key, make) {
  if (!map.has(key)) map.set(key, make());
  return map.get(key);
}

function filesIn(folder, suffix) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(folder, name));
}

function execute(args, cwd = root) {
  const { status } = spawnSync(process.execPath, args, { stdio: ['ignore', 2, 2], env: environment, cwd });
  return status === 0;
}
