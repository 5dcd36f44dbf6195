// Checks format and lint rules of all sources: Biome for TypeScript and JavaScript, clang-format for C++.
// With --fix it rewrites what can be rewritten.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));
const require = createRequire(import.meta.url);

const fix = process.argv.includes('--fix');
const cppFiles = ['native', 'test/native', 'scripts/bench'].flatMap((dir) => filesIn(dir, /\.(cc|h)$/));

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
];
process.exitCode = results.every(Boolean) ? 0 : 1;

function run(name, command, args) {
  const { status, signal, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return true;
  console.error(`${name} failed (${error?.message ?? signal ?? `exit code ${status}`})`);
  return false;
}

function filesIn(dir, pattern) {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true })
    .filter((name) => pattern.test(name))
    .map((name) => `${dir}/${name}`)
    .sort();
}
