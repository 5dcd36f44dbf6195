// Packs the package and checks the tarball itself: what is in it, how its entries resolve (publint, attw), and that
// `import` and `require` of the unpacked package give the same objects.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);
const require = createRequire(import.meta.url);
const manifest = require('../package.json');

/** Everything that may be published. Anything else in the tarball is a mistake, binding.gyp above all: see there. */
const ALLOWED = [
  /^(package\.json|README\.md|CHANGELOG\.md|LICENSE|proclock\.gypi)$/,
  /^dist\/[\w-]+(\.d\.ts|\.js|\.js\.map|\.mjs|\.d\.mts)$/,
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

const work = mkdtempSync(join(tmpdir(), 'proclock-package-'));
try {
  const { file, contents } = pack();
  const results = [
    check('contents', () => checkContents(contents)),
    check('publint', () => tool('publint', ['run', file, '--strict'])),
    // Resolution as in Node before exports maps is left out: no supported Node has it.
    check('attw', () => tool('@arethetypeswrong/cli', [file, '--profile', 'node16', '--no-color'], 'attw')),
    check('one set of classes', () => checkIdentity(file)),
  ];
  process.exitCode = results.every(Boolean) ? 0 : 1;
} finally {
  rmSync(work, { recursive: true });
}

function pack() {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', work];
  const shell = process.platform === 'win32';
  const [packed] = JSON.parse(
    execFileSync('npm', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 2], shell }),
  );
  return { file: join(work, packed.filename), contents: packed.files.map(({ path }) => path) };
}

function checkContents(contents) {
  const entries = Object.values(manifest.exports).flatMap(function leaves(value) {
    return typeof value === 'string' ? [value.replace('./', '')] : Object.values(value).flatMap(leaves);
  });
  const superfluous = contents.filter((path) => !ALLOWED.some((pattern) => pattern.test(path)));
  const missing = [...REQUIRED, ...entries].filter((path) => !contents.includes(path));
  // A path of the machine that built it is of no use to anybody else.
  const leaking = contents.filter((path) => !path.endsWith('.node') && readFileSync(path).includes(root));
  return [
    ...superfluous.map((path) => `not to be published: ${path}`),
    ...missing.map((path) => `missing: ${path}`),
    ...leaking.map((path) => `contains ${root}: ${path}`),
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

function checkIdentity(file) {
  const target = join(work, 'node_modules', manifest.name);
  mkdirSync(target, { recursive: true });
  execFileSync('tar', ['-xzf', file, '-C', target, '--strip-components=1']);
  for (const name of Object.keys(manifest.dependencies)) {
    if (!existsSync(join(work, 'node_modules', name))) {
      symlinkSync(join(root, 'node_modules', name), join(work, 'node_modules', name), 'junction');
    }
  }
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
  const { status, stderr } = spawnSync(process.execPath, ['-e', program], { cwd: work, encoding: 'utf8' });
  return status === 0 ? [] : [stderr];
}

function check(name, run) {
  const problems = run();
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
  for (const problem of problems) console.log(problem.trimEnd().replaceAll(/^/gm, '     '));
  return problems.length === 0;
}
