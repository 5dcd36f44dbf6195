// What a process or machine has run out of, and what the system forbids, is said in plain words, with the cause; and once it
// is there again, all is well.
import { spawnSync } from 'node:child_process';
import { testNamespace } from './support/namespace';
import { inProcess, segmentFile } from './support/segment';

const NOBODY = 65534;
const asNobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
const possible = (command: string[]) => spawnSync(command[0]!, command.slice(1)).status === 0;

/** What opening a name says, and whether it can be opened when `undo` was run. */
const attempt = (group = '') => `
  const open = () => new SharedLock('x', { namespace${group} }).close();
  const seen = (() => { try { open(); return {}; } catch ({ code, message, cause }) { return { code, message, cause: cause?.code }; } })();
  undo?.();
  let again = true;
  try { open(); } catch { again = false; }
  return { ...seen, again };`;

test('no file descriptor left in the process', () => {
  const namespace = testNamespace();
  const body = `
    const fs = require('node:fs');
    new SharedLock('first', { namespace: namespace + '-first' }); // what is opened once for the process
    const taken = [];
    try { for (;;) taken.push(fs.openSync('/dev/null')); } catch {}
    const undo = () => { for (const fd of taken) fs.closeSync(fd); fs.unlinkSync('${segmentFile(`${namespace}-first`)}'); };
    ${attempt()}`;
  const { value } = inProcess(namespace, body);
  expect(value).toEqual({
    code: 'ERR_LOCK_UNSUPPORTED',
    message: expect.stringMatching(/no file descriptor left .*EMFILE.*ulimit -n/),
    cause: 'EMFILE',
    again: true,
  });
});

const canLimit = possible(['prlimit', '--as=unlimited', 'true']);
if (!canLimit) console.log('a limit of addresses can not be set here (prlimit)');
(canLimit ? test : test.skip)('no addresses left in the process', () => {
  const body = `
    const { execFileSync } = require('node:child_process');
    const { readFileSync } = require('node:fs');
    require('node:v8');
    const size = Number(/VmSize:\\\\s+(\\\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
    const limit = (bytes) => execFileSync('prlimit', ['--pid', process.pid, '--as=' + bytes + ':unlimited']);
    limit(size + 100_000_000);
    const undo = () => limit('unlimited');
    ${attempt()}`;
  const { value } = inProcess(testNamespace(), body.replaceAll('\\\\', '\\'));
  expect(value).toEqual({
    code: 'ERR_LOCK_NO_SPACE',
    message: expect.stringMatching(/no memory left to map .*ENOMEM.*ulimit -v/),
    cause: 'ENOMEM',
    again: true,
  });
});

const canBeNobody = possible([...asNobody, 'true']);
if (!canBeNobody) console.log('nobody can be somebody else here (setpriv, root)');
const testAsNobody = canBeNobody ? test : test.skip;

testAsNobody.each(['made', 'there'])('a group that we are not in, its namespace to be %s', (state) => {
  const namespace = testNamespace();
  const file = segmentFile(namespace, 0);
  const use = `new SharedLock('x', { namespace, group: 0 }).close(); return 1;`;
  try {
    if (state === 'there') inProcess(namespace, use);
    const { value } = inProcess(namespace, `const undo = undefined; ${attempt(', group: 0')}`, asNobody);
    expect(value).toEqual({
      code: 'ERR_LOCK_PERMISSION',
      message: expect.stringContaining('is for the members of group 0, and this process is none'),
      cause: state === 'there' ? 'EACCES' : 'EPERM',
      again: false,
    });
  } finally {
    spawnSync('rm', ['-f', file]);
  }
});

const elsewhere = [
  'unshare',
  '--mount',
  'sh',
  '-c',
  'mount -t tmpfs -o mode=755 none /dev/shm && exec "$@"',
  'sh',
];
const canMount = canBeNobody && possible([...elsewhere, 'true']);
if (!canMount) console.log('no other /dev/shm can be mounted here (unshare)');
(canMount ? test : test.skip)('no right to make a file in /dev/shm', () => {
  const body = `const undo = undefined; ${attempt()}`;
  const { value } = inProcess(testNamespace(), body, [...elsewhere, ...asNobody]);
  expect(value).toEqual({
    code: 'ERR_LOCK_PERMISSION',
    message: expect.stringMatching(/can not be made, .*may not write to \/dev\/shm \(EACCES\)/),
    cause: 'EACCES',
    again: false,
  });
});
