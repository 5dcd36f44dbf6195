// Checks the models in native/model with SPIN: `node scripts/check-model.mjs [--long] [--only=PATTERN]`.
//
// First the models as they are: no violation in any configuration. Then every mutant of mutants.json, which breaks one
// argument of the protocol: the model has to find it, and to say that what is violated is what the list says. --long
// adds the large configurations, and the mutants that want them. One that is `simulatedOnly` wants more than fits into
// memory: the simulation finds it (test/native). The last line is "N passed, N failed".
//
// SPIN is taken from PATH, or from Debian's package, unpacked into .cache: that needs no root.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const models = join(root, 'native/model');
const long = process.argv.includes('--long');
const only = new RegExp(process.argv.find((arg) => arg.startsWith('--only='))?.slice(7) ?? '');
const memoryMb = long ? 3500 : 1800;

// `search`: exhaustive (every state is stored), bitstate (two bits a state: what it covers is nearly all), liveness
// (acceptance cycles under weak fairness), progress (non-progress cycles under weak fairness). One with `minutes` is not
// expected to end: it looks for so long. `options` are pan's. A run that `violates` something shows, without a mutant,
// what an assumption of the model is worth: it has to find that.
const RUNS = readJson('runs.json').filter((run) => long || !run.long);
const MUTANTS = readJson('mutants.json')
  .filter((mutant) => !mutant.simulatedOnly && (long || !mutant.long))
  .map((mutant) => ({ ...mutant, mutant: true }));

const spin = findSpin();
const jobs = [...RUNS, ...MUTANTS].filter((job) => only.test(`${job.model} ${job.name ?? job.flags}`));
const results = await inParallel(jobs, availableParallelism(), check);

const failed = results.filter((result) => !result.ok);
for (const { title, output } of failed) console.log(`\n${title}:\n${output.trim()}`);
console.log(`${results.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = failed.length === 0 ? 0 : 1;

/** One search. It has to find the violation that the list names, or none if the list names none. */
async function check(job) {
  const began = performance.now();
  const title = job.mutant ? `${job.model} mutant ${job.name}` : `${job.model} ${job.flags} (${job.search})`;
  const folder = mkdtempSync(join(tmpdir(), 'proclock-model-'));
  let found;
  let output = '';
  try {
    ({ found, output } = await search(job, folder));
  } catch (error) {
    found = { violated: 'nothing: the search failed', states: 0, complete: false };
    output = error.message;
  } finally {
    rmSync(folder, { recursive: true });
  }
  const enough = found.complete || (job.minutes !== undefined && found.states > 0);
  const expected = job.violates !== undefined;
  const ok = found.violated === job.violates && (expected || enough);
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(6);
  const states = found.states.toLocaleString('en-US').padStart(13);
  const outcome = expected
    ? (found.violated ?? 'SURVIVED')
    : (found.violated ??
      (found.complete ? 'no violation' : enough ? `no violation in ${job.minutes} min` : 'INCOMPLETE'));
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${states} states ${seconds} s  ${title}: ${outcome}`);
  return { ok, title, output };
}

async function search(job, folder) {
  const cycles = { liveness: ['-a', '-f'], progress: ['-l', '-f'] }[job.search];
  const defines = (job.flags ?? '').split(' ').filter(Boolean);
  if (job.mutant) defines.push(`-DMUTANT_${job.name}`);
  await run(spin, [...defines, '-a', join(models, `${job.model}.pml`)], folder);
  const storage = job.search === 'bitstate' ? '-DBITSTATE' : '-DCOLLAPSE';
  const kind = cycles ? ['-DNFAIR=3', '-DNOREDUCE'] : ['-DSAFETY', '-DNOFAIR'];
  if (job.search === 'progress') kind.push('-DNP');
  await run(
    'cc',
    [job.mutant ? '-O0' : '-O2', '-w', `-DMEMLIM=${memoryMb}`, storage, ...kind, '-o', 'pan', 'pan.c'],
    folder,
  );
  // The trail goes with the folder: whoever wants to see one makes it by hand, and prints it with `spin -t`.
  const options = job.search === 'bitstate' ? [`-w${job.bits ?? 30}`, '-k2'] : ['-w22'];
  if (job.minutes !== undefined) options.push(`-Q${job.minutes}`);
  if (job.options !== undefined) options.push(...job.options.split(' '));
  const output = await run(
    join(folder, 'pan'),
    [`-m${job.depth ?? 5000000}`, ...options, ...(cycles ?? [])],
    folder,
  );
  return { found: read(output), output };
}

function read(output) {
  const assertion = /assertion violated \(+(\w+)\|\|/.exec(output)?.[1];
  const other = /pan:\d+: (assertion violated|invalid end state|acceptance cycle|non-progress cycle|[^(\n]+)/
    .exec(output)?.[1]
    .trim();
  const states = Number(/(\d+) states, stored/.exec(output)?.[1] ?? 0);
  const complete =
    states > 0 && !/max search depth too small|out of memory|Search not completed/.test(output);
  const cycle = { 'acceptance cycle': 'fairness', 'non-progress cycle': 'progress' }[other];
  return { violated: assertion ?? cycle ?? other, states, complete };
}

function run(command, args, cwd) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command} ended with ${signal ?? code}: ${output}`));
    });
  });
}

async function inParallel(items, limit, work) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index]);
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  return results;
}

function findSpin() {
  if (works('spin')) return 'spin';
  const cache = join(root, '.cache/spin');
  const unpacked = join(cache, 'usr/bin/spin');
  if (!works(unpacked)) download(cache);
  if (works(unpacked)) return unpacked;
  console.log(
    'SPIN is not installed, and Debian\'s package "spin" can not be had. Install it (https://spinroot.com).',
  );
  console.log('0 passed, 1 failed');
  process.exit(1);
}

/** Debian's package, as apt finds it: with the lists of the system, or else with lists of our own. */
function download(cache) {
  rmSync(cache, { recursive: true, force: true });
  const lists = join(cache, 'lists');
  mkdirSync(join(lists, 'partial'), { recursive: true });
  const own = [
    '-o',
    `Dir::State::lists=${lists}`,
    '-o',
    `Dir::Cache=${join(cache, 'apt')}`,
    '-o',
    'APT::Sandbox::User=root',
  ];
  const attempts = [
    [['-o', 'APT::Sandbox::User=root', 'download', 'spin']],
    [
      [...own, 'update'],
      [...own, 'download', 'spin'],
    ],
  ];
  for (const commands of attempts) {
    for (const args of commands)
      spawnSync('apt-get', ['-q', ...args], { cwd: cache, stdio: ['ignore', 2, 2] });
    const file = readdirSync(cache).find((name) => name.endsWith('.deb'));
    if (file === undefined) continue;
    spawnSync('dpkg', ['-x', file, cache], { cwd: cache, stdio: ['ignore', 2, 2] });
    rmSync(lists, { recursive: true });
    return;
  }
}

function works(command) {
  return (!command.includes('/') || existsSync(command)) && spawnSync(command, ['-V']).status === 0;
}

function readJson(file) {
  return JSON.parse(readFileSync(join(models, file), 'utf8'));
}
