'use strict';
// The command, as npm has linked it: in an empty folder, with nothing but Node.js on the PATH.
const assert = require('node:assert');
const { spawnSync } = require('node:child_process');
const { rmSync } = require('node:fs');
const { join } = require('node:path');
const folder = require('./folder.cjs');
const { version } = require('proclock/package.json');

const bin = join(__dirname, 'node_modules/.bin/proclock');
const namespace = `smoke-${process.pid}`;

function proclock(...args) {
  const { error, status, stderr, stdout } = spawnSync(bin, args, { encoding: 'utf8', timeout: 60_000 });
  if (error) throw error;
  return { status, stderr, stdout };
}

const tests = {
  'proclock --version': () =>
    assert.deepStrictEqual(proclock('--version'), { status: 0, stderr: '', stdout: `${version}\n` }),
  'proclock run': () => {
    const program = 'console.log(process.env.PROCLOCK_NAME); process.exitCode = 3';
    const ended = proclock('run', '--namespace', namespace, 'ledger', process.execPath, '-e', program);
    assert.deepStrictEqual(ended, { status: 3, stderr: '', stdout: 'ledger\n' });
  },
  'proclock ls': () =>
    assert.deepStrictEqual(proclock('ls', '--json', '--namespace', namespace), {
      status: 0,
      stderr: '',
      stdout: '[]\n',
    }),
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    test();
    console.log(`ok   ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}: ${error.stack}`);
  }
}
rmSync(join(folder, `proclock-${process.geteuid()}-${namespace}`), { force: true });
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
