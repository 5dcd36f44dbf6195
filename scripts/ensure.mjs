// Makes sure that what a script needs is there: `node scripts/ensure.mjs [deps] [native] [native-tests] [crash-points] [bench] [bench-processes] [dist]`.
//
// Every npm script of this package starts with this one, so that each of them works on a fresh clone. Silent when
// nothing has to be done. It has no dependencies of its own, and relies on no dependency's install script.
//
//   deps          node_modules as package-lock.json says (always included)
//   native        build/Release/proclock.node
//   native-tests  build/Release/proclock_test
//   crash-points  build/Release/proclock_crash.node, whose processes die where a test wants it
//   bench         build/Release/proclock_bench.node
//   bench-processes  build/Release/proclock_bench_processes
//   dist          dist/: the CommonJS build, its types, the ESM entries, the .sql files
//
// PROCLOCK_INSTRUMENT=address|thread|coverage|portable builds the native parts with that, in build/<that>/build/Release
// (scripts/instrument.mjs). CI turns warnings into errors.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unreachable } from './declarations.mjs';
import { instrument, nativeRoot } from './instrument.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

const NATIVE_TARGETS = {
  native: {
    target: 'proclock',
    output: `${nativeRoot}/build/Release/proclock.node`,
    inputs: ['native', 'test/darwin'],
  },
  'native-tests': {
    target: 'proclock_test',
    output: `${nativeRoot}/build/Release/proclock_test`,
    inputs: ['native', 'test/native', 'test/darwin'],
  },
  'crash-points': {
    target: 'proclock_crash',
    output: `${nativeRoot}/build/Release/proclock_crash.node`,
    generate: 'test/native/crash-points.mjs',
    inputs: ['native', 'test/native', 'test/darwin'],
  },
  bench: {
    target: 'proclock_bench',
    output: `${nativeRoot}/build/Release/proclock_bench.node`,
    inputs: ['scripts/bench'],
  },
  'bench-processes': {
    target: 'proclock_bench_processes',
    output: 'build/Release/proclock_bench_processes',
    inputs: ['native', 'scripts/bench'],
  },
};

const parts = process.argv.slice(2);
const unknown = parts.filter((part) => part !== 'deps' && part !== 'dist' && !(part in NATIVE_TARGETS));
if (unknown.length > 0) fail(`unknown part: ${unknown.join(', ')}`);

ensureDependencies();
for (const [part, spec] of Object.entries(NATIVE_TARGETS)) {
  if (parts.includes(part)) ensureNative(part, spec);
}
if (parts.includes('dist')) ensureDist();

function ensureDependencies() {
  if (dependenciesMatch()) return;
  const command = existsSync('package-lock.json') ? 'ci' : 'install';
  say(`npm ${command}`);
  // npm is a .cmd file on Windows, which only a shell starts.
  run('npm', [command, '--ignore-scripts'], { shell: process.platform === 'win32' });
}

/** Compares what npm recorded as installed with the lock file, so that an `npm install` by hand counts as well. */
function dependenciesMatch() {
  const installed = readJson('node_modules/.package-lock.json')?.packages;
  const locked = readJson('package-lock.json')?.packages;
  if (!installed || !locked) return Boolean(installed);
  return Object.entries(locked).every(([path, { version, optional }]) => {
    if (path === '') return true;
    // An optional package that is absent belongs to another platform.
    return installed[path] ? installed[path].version === version : optional === true;
  });
}

function ensureNative(part, { target, output, inputs, generate }) {
  const configuration = nativeConfiguration();
  const sources = inputs.flatMap((dir) => files(dir, /\.(cc|h|map|mjs|json)$/));
  const stamp = hash([configuration, ...sources.map((file) => [file, readFileSync(file)])]);
  const stampFile = `${nativeRoot}/build/.stamp-${target}`;
  if (existsSync(output) && readText(stampFile) === stamp) return;

  checkToolchain();
  say(`building ${output}`);
  // The Makefile leads from here to Node's headers: in a tree that was moved it leads nowhere.
  const configured = hash([root, configuration]);
  if (readText(`${nativeRoot}/build/.stamp-configure`) !== configured) {
    linkSources();
    nodeGyp(['configure', ...gypArguments()]);
    writeFileSync(`${nativeRoot}/build/.stamp-configure`, configured);
  }
  // The linker script is no prerequisite in the generated Makefile: without its output the link step always runs.
  rmSync(join(nativeRoot, 'build/Release/obj.target', `${target}.node`), { force: true });
  if (generate) run(process.execPath, [generate]);
  nodeGyp(['build', target, `--jobs=${availableParallelism()}`, ...headerArguments()]);
  if (!existsSync(output)) fail(`${part}: the build succeeded, but there is no ${output}`);
  writeFileSync(stampFile, stamp);
}

/** node-gyp knows one build folder per package: an instrumented build has a package folder that leads to the sources. */
function linkSources() {
  if (nativeRoot === '.') return;
  mkdirSync(nativeRoot, { recursive: true });
  for (const name of [
    'binding.gyp',
    'proclock.gypi',
    'package.json',
    'native',
    'test',
    'scripts',
    'node_modules',
  ]) {
    const link = join(nativeRoot, name);
    rmSync(link, { force: true });
    symlinkSync(resolve(name), link);
  }
}

/** All that decides about the generated Makefile. Every target is configured at once; `build` picks one. */
function nativeConfiguration() {
  return JSON.stringify([
    process.version,
    process.arch,
    process.env.CC,
    process.env.CXX,
    gypArguments(),
    readText('binding.gyp'),
    readText('proclock.gypi'),
    files('test/native', /\.cc$/),
    readJson('node_modules/node-addon-api/package.json')?.version,
  ]);
}

function gypArguments() {
  const ci = !['', '0', 'false', undefined].includes(process.env.CI);
  return [
    `--native_tests=${existsSync('test/native')}`,
    `--bench=${existsSync('scripts/bench/probe.cc')}`,
    `--warnings_as_errors=${ci}`,
    `--address_sanitizer=${instrument === 'address'}`,
    `--thread_sanitizer=${instrument === 'thread'}`,
    `--coverage=${instrument === 'coverage'}`,
    `--portable=${instrument === 'portable'}`,
    ...headerArguments(),
  ];
}

/** node-gyp downloads Node's headers unless told where they are; most installations carry them beside the binary. */
function headerArguments() {
  if (process.env.npm_config_nodedir) return [`--nodedir=${process.env.npm_config_nodedir}`];
  const prefix = resolve(dirname(process.execPath), '..');
  const header = readText(join(prefix, 'include/node/node_version.h')) ?? '';
  const version = ['MAJOR', 'MINOR', 'PATCH'].map(
    (name) => new RegExp(`#define NODE_${name}_VERSION (\\d+)`).exec(header)?.[1],
  );
  return version.join('.') === process.versions.node ? [`--nodedir=${prefix}`] : [];
}

function checkToolchain() {
  if (process.platform === 'win32') return; // node-gyp looks for Visual Studio itself, and says what it misses.
  const compiler = process.env.CXX?.trim().split(/\s+/)[0] || (process.platform === 'linux' ? 'g++' : 'c++');
  const missing = [
    !onPath(compiler) && `a C++17 compiler (${compiler})`,
    !onPath('make') && 'make',
    !process.env.PYTHON && !onPath('python3') && !onPath('python') && 'python3',
  ].filter(Boolean);
  if (missing.length > 0) {
    fail(
      `cannot build the native part, not found: ${missing.join(', ')}.\n` +
        'Debian and Ubuntu: apt-get install g++ make python3. Alpine: apk add g++ make python3. ' +
        'Fedora: dnf install gcc-c++ make python3. macOS: xcode-select --install.',
    );
  }
}

function onPath(command) {
  if (command.includes('/')) return existsSync(command);
  return (process.env.PATH ?? '').split(delimiter).some((dir) => existsSync(join(dir, command)));
}

function nodeGyp(args) {
  run(process.execPath, [resolve('node_modules/node-gyp/bin/node-gyp.js'), ...args, '--loglevel=warn'], {
    cwd: nativeRoot,
  });
}

function ensureDist() {
  const inputs = [
    ...files('lib', /\.(ts|sql)$/),
    'tsconfig.json',
    'package.json',
    'package-lock.json',
    'scripts/build-esm.mjs',
    'scripts/declarations.mjs',
    'scripts/ensure.mjs',
  ];
  const stamp = hash(inputs.map((file) => [file, readText(file)]));
  // Not in dist/, which is published.
  const stampFile = '.cache/dist';
  if (existsSync('dist/index.mjs') && readText(stampFile) === stamp) return;

  say('building dist');
  // From nothing: the output of a deleted source must not be published.
  rmSync('dist', { recursive: true, force: true });
  run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']);
  for (const file of files('lib', /\.sql$/)) {
    const copy = file.replace('lib', 'dist');
    mkdirSync(dirname(copy), { recursive: true });
    copyFileSync(file, copy);
  }
  embedMigrations();
  run(process.execPath, ['scripts/build-esm.mjs']);
  for (const path of unreachable(files('dist', /\.d\.m?ts$/), readJson('package.json'))) rmSync(path);
  mkdirSync('.cache', { recursive: true });
  writeFileSync(stampFile, stamp);
}

/** lib/engines/postgres/migrations.ts reads files, which a bundle does not have beside it. */
function embedMigrations() {
  const module = 'dist/engines/postgres/migrations.js';
  const texts = files('lib/engines/postgres', /\.sql$/).map((file) => readFileSync(file, 'utf8'));
  writeFileSync(module, `"use strict";\nexports.MIGRATIONS = ${JSON.stringify(texts, undefined, 2)};\n`);
  rmSync(`${module}.map`);
}

/** The files of ours below `dir` whose names match, sorted, with forward slashes. */
function files(dir, pattern) {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true })
    .map((name) => `${dir}/${name.replaceAll('\\', '/')}`)
    .filter((name) => pattern.test(name) && !name.includes('/node_modules/'))
    .sort();
}

function hash(items) {
  const sum = createHash('sha256');
  // The length in front keeps ["ab", "c"] and ["a", "bc"] apart.
  for (const item of items.flat()) sum.update(`${item?.length}:`).update(item ?? '');
  return sum.digest('hex');
}

function readText(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

function readJson(file) {
  const text = readText(file);
  return text === null ? null : JSON.parse(text);
}

function run(command, args, options = {}) {
  // Its output goes to stderr: what a script prints on stdout is its result.
  const { status, signal, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2], ...options });
  if (error) fail(`cannot run ${command}: ${error.message}`);
  if (status !== 0) fail(`failed (${signal ?? `exit code ${status}`}): ${[command, ...args].join(' ')}`);
}

function say(message) {
  console.error(`proclock: ${message}`);
}

function fail(message) {
  say(message);
  process.exit(1);
}
