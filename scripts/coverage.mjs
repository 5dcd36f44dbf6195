// How much of native/ and lib/ the tests reach: `node scripts/coverage.mjs [native] [lib]`, without arguments both.
//
//   native  lines and branches, counted by gcov while the native tests run. The core's templates are counted as compiled for
//           the tests' platform and for Linux together. addon.cc needs Node: it is counted while jest runs, with `lib`
//   lib     lines, counted by V8 while jest runs, in each process that it starts, in the files of dist/ and by way of
//           their source maps. Too low: a process that is killed writes no counts, and what the test files run
//           themselves is compiled by ts-jest, and not counted
//
// What is not reached is printed by file and line; docs/coverage.md gives the reasons.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gunzipSync } from 'node:zlib';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

const FOLDER = resolve('build/coverage');
const parts = process.argv.slice(2);
const wants = (part) => parts.length === 0 || parts.includes(part);
const environment = { ...process.env, PROCLOCK_INSTRUMENT: 'coverage' };

execute(['scripts/ensure.mjs', 'native', 'native-tests', 'dist']);
for (const file of filesIn(join(FOLDER, 'build'), '.gcda')) rmSync(file);
// The tests of scale and of every single step take the longest, and reach nothing that the others do not.
if (wants('native')) {
  execute(['scripts/test.mjs', 'native', ...tests()]);
  report('native', nativeCounts());
}
if (wants('lib')) {
  const counts = join(FOLDER, 'v8');
  rmSync(counts, { recursive: true, force: true });
  mkdirSync(counts, { recursive: true });
  environment.NODE_V8_COVERAGE = counts;
  execute(['scripts/test.mjs', 'jest']);
  delete environment.NODE_V8_COVERAGE;
  report('native, with jest', nativeCounts());
  report('lib', libCounts(counts));
}

function tests() {
  const skipped = ['sim_', 'scale_', 'stop_at_', 'death_at_'];
  return readdirSync('test/native')
    .filter((name) => name.endsWith('_test.cc') && !skipped.some((word) => name.startsWith(word)))
    .sort();
}

/** Counts by file and line: how often it ran, and each of its branches. */
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
  const name = /(?:^|\/)(native\/[^/]+\.(?:cc|h))$/.exec(source.file)?.[1];
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

/** V8 counts ranges of characters of the compiled files; an inner range overrides what it lies in. */
function libCounts(folder) {
  const counts = new Map();
  const dist = pathToFileURL(resolve('dist')).href;
  for (const file of filesIn(folder, '.json')) {
    let result;
    try {
      ({ result } = JSON.parse(readFileSync(file, 'utf8')));
    } catch {
      continue; // its process was killed while it wrote
    }
    for (const script of result) {
      if (script.url.startsWith(`${dist}/`) && script.url.endsWith('.js')) addScript(counts, script);
    }
  }
  return counts;
}

function addScript(counts, { url, functions }) {
  const file = fileURLToPath(url);
  const text = readFileSync(file, 'utf8');
  const map = new SourceMap(JSON.parse(readFileSync(`${file}.map`, 'utf8')));
  const reached = new Int32Array(text.length).fill(-1);
  const ranges = functions.flatMap((each) => each.ranges);
  ranges.sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset);
  for (const { startOffset, endOffset, count } of ranges) reached.fill(count, startOffset, endOffset);

  const seen = new Map();
  let offset = 0;
  for (const [row, line] of text.split('\n').entries()) {
    for (let column = 0; column < line.length; column++) {
      if (!/[\w$]/.test(line[column]) || (column > 0 && /[\w$]/.test(line[column - 1]))) continue;
      const entry = map.findEntry(row, column);
      if (entry.originalLine === undefined || entry.generatedLine !== row) continue;
      const number = entry.originalLine + 1;
      const count = reached[offset + column];
      // A line is reached as far as its least reached part is.
      seen.set(number, Math.min(seen.get(number) ?? count, count));
    }
    offset += line.length + 1;
  }
  const lines = getOrAdd(counts, `lib/${file.slice(resolve('dist').length + 1, -3)}.ts`, () => new Map());
  for (const [number, count] of seen) {
    const line = getOrAdd(lines, number, () => ({ count: 0, branches: [] }));
    line.count += Math.max(count, 0);
  }
}

function report(title, counts) {
  console.log(`\n${title}`);
  const total = { lines: 0, linesHit: 0, branches: 0, branchesHit: 0 };
  for (const [name, lines] of [...counts].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const of = { lines: 0, linesHit: 0, branches: 0, branchesHit: 0 };
    const missed = [];
    for (const [number, { count, branches }] of [...lines].sort(([a], [b]) => a - b)) {
      of.lines++;
      if (count > 0) of.linesHit++;
      else missed.push(number);
      of.branches += branches.length;
      of.branchesHit += branches.filter((taken) => taken > 0).length;
    }
    for (const key of Object.keys(total)) total[key] += of[key];
    print(name, of, missed);
  }
  print('all', total, []);
}

function print(name, of, missed) {
  const percent = (part, whole) => (whole === 0 ? '' : `${((part / whole) * 100).toFixed(1)} %`);
  console.log(
    [
      name.padEnd(26),
      `${of.linesHit}/${of.lines} lines`.padStart(16),
      percent(of.linesHit, of.lines).padStart(8),
      of.branches === 0 ? '' : `${of.branchesHit}/${of.branches} branches`.padStart(20),
      percent(of.branchesHit, of.branches).padStart(8),
      missed.length === 0 ? '' : `  not reached: ${asRanges(missed)}`,
    ].join(' '),
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

function execute(args) {
  const { status } = spawnSync(process.execPath, args, { stdio: ['ignore', 2, 2], env: environment });
  if (status === 0) return;
  // Whether the tests pass is not the question here: one that sets a file-size limit can not, where counts are to be written.
  if (args[0] !== 'scripts/test.mjs') throw new Error(`failed: node ${args.join(' ')}`);
  console.error(`coverage: some tests failed; the figures are of what ran`);
}
