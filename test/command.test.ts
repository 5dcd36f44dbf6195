// The command `proclock` as a whole: help, version, and what makes no sense.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MAIN, runCommand } from './support/command';
import { testNamespace } from './support/namespace';

const { version } = JSON.parse(readFileSync(join(__dirname, '../package.json'), 'utf8')) as {
  version: string;
};
const USAGE = 64;
const line = (text: RegExp) => expect.stringMatching(new RegExp(`^proclock: .*${text.source}.*\\n$`));

test.each([[['--version']], [['help']], [['--help']], [['-h']]])('%j', async (args) => {
  const { stdout, ...ended } = await runCommand(args);
  expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
  if (args[0] === '--version') expect(stdout).toBe(`${version}\n`);
  else
    for (const command of ['run', 'ls', 'watch', 'doctor', 'prune']) expect(stdout).toContain(`  ${command}`);
});

test.each(['run', 'ls', 'watch', 'doctor', 'prune'])('help %s, and %s --help', async (command) => {
  const [help, option] = await Promise.all([runCommand(['help', command]), runCommand([command, '--help'])]);
  expect(help).toEqual({
    code: 0,
    signal: null,
    stdout: expect.stringContaining(`usage: proclock ${command}`),
    stderr: '',
  });
  expect(option).toEqual(help);
});

// A namespace of its own: beside this one run tests that break theirs, of which `ls` would speak too.
test.each([
  ['help', []],
  ['--version', []],
  ['ls', ['--json', '--namespace', testNamespace()]],
])('%s says so where its output can not be written', (word, options) => {
  const full = openSync('/dev/full', 'w');
  try {
    const { status, stderr } = spawnSync(process.execPath, [MAIN, word, ...options], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 70, stderr: line(/ENOSPC/) });
  } finally {
    closeSync(full);
  }
});

test('the help of run says that its exit codes can be those of the command', async () => {
  expect((await runCommand(['help', 'run'])).stdout).toMatch(/-E\s+says, looks the same/);
});

test.each([
  [[], /no command/],
  [['lock'], /no command "lock"/],
  [['toString'], /no command "toString"/],
  [['help', 'lock'], /no command "lock"/],
  [['help', 'constructor'], /constructor/],
  [['ls', '--all'], /--all/],
  [['ls', '--namespace'], /namespace/],
  [['ls', '--namespace', '../x'], /namespace/],
  [['ls', '--postgres', 'postgres://localhost', '--etcd', 'localhost:2379'], /together/],
  [['ls', '--postgres', 'localhost'], /URL/],
  [['ls', '--etcd', 'localhost'], /localhost/],
  [['watch', '-x'], /-x/],
  [['prune', 'default'], /prune/],
  [['doctor', '--fix'], /--fix/],
  [['run'], /name of a lock/],
  [['run', 'ledger'], /command is missing/],
  [['run', 'ledger', '--'], /command is missing/],
  [['run', '--wait', 'ledger', 'true'], /--wait/],
  [['run', '-w', 'soon', 'ledger', 'true'], /-w/],
  [['run', '-w', '1.2.3', 'ledger', 'true'], /-w/],
  [['run', '-w', '-1', 'ledger', 'true'], /-w/],
  [['run', '-E', '256', 'ledger', 'true'], /-E/],
  [['run', '-E', '1.5', 'ledger', 'true'], /-E/],
  [['run', '-E', '-1', 'ledger', 'true'], /-E/],
  [['run', '--namespace', '', 'ledger', 'true'], /namespace/],
  [['run', '--group', 'no such group', 'ledger', 'true'], /group/],
  [['run', '--group', '0', '--postgres', 'postgres://localhost', 'ledger', 'true'], /--group/],
])('%j is wrong usage', async (args, text) => {
  expect(await runCommand(args)).toEqual({ code: USAGE, signal: null, stdout: '', stderr: line(text) });
});

test('what is said to nobody does not change the exit code', () => {
  const script = '{ sleep 0.2; "$@"; echo $? >&3; } 2>&1 3>&4 | true';
  const { output } = spawnSync('sh', ['-c', script, 'sh', process.execPath, MAIN, 'bogus'], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'ignore', 'ignore', 'pipe'],
  });
  expect(output[4]).toBe(`${USAGE}\n`);
});
