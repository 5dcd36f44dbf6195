// What whoever changes a line wants to know within a minute: lint, types, and the tests that take no time. The rest is in
// .ci/run.
//
// Goes on after a failure. The last line on stdout is "N passed, N failed" with the sum of what the tests counted, and one
// for each other check.
import { spawnSync } from 'node:child_process';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));

const NATIVE = ['words_test', 'lock_test', 'queue_test', 'recovery_test', 'arena_test'];
const JEST = [
  ...[
    'abort',
    'arguments',
    'basics',
    'callback',
    'close',
    'contexts',
    'guards',
    'keep-alive',
    'loaded-twice',
  ],
  ...[
    'local',
    'names',
    'own-pokes',
    'owner',
    'owner-contexts',
    'query',
    'reentrant-hold',
    'try-acquire',
    'unsupported',
  ],
  ...['web-locks-arguments', 'web-locks-callback', 'web-locks-query', 'web-locks-signal', 'would-deadlock'],
];

const counts = { passed: 0, failed: 0 };
check('lint', ['scripts/lint.mjs']);
check('types of the tests', ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.test.json']);
check('types as published', ['node_modules/typescript/bin/tsc', '-p', 'test/types']);
tests('native', NATIVE);
tests('jest', [...JEST.map((name) => `test/${name}.test.ts`)]);
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;

function check(name, args) {
  const { status } = spawnSync(process.execPath, args, { stdio: ['ignore', 2, 2] });
  counts[status === 0 ? 'passed' : 'failed']++;
  console.log(`${status === 0 ? 'ok  ' : 'FAIL'} ${name}`);
}

function tests(suite, args) {
  const { status, stdout } = spawnSync(process.execPath, ['scripts/test.mjs', suite, ...args], {
    stdio: ['ignore', 'pipe', 2],
    encoding: 'utf8',
  });
  const [, passed, failed] = /(\d+) passed, (\d+) failed\n$/.exec(stdout) ?? [0, 0, 1];
  counts.passed += Number(passed);
  counts.failed += Math.max(Number(failed), status === 0 ? 0 : 1);
  console.log(`${status === 0 ? 'ok  ' : 'FAIL'} ${suite} tests`);
}
