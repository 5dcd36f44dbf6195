// `proclock run`: the lock is held while the command runs, and no longer, whoever ends how; its exit code, its signals, its
// environment, what it inherits.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedLock } from '../lib';
import { prune } from '../lib/shm/admin';
import { MAIN, type Started, startCommand } from './support/command';
import { expectIdle, name, untilPending } from './support/locks';
import { testNamespace, until } from './support/namespace';
import { segmentFile } from './support/segment';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;
const codeOf = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];

let namespace: string;
let lock: SharedLock;
beforeEach(() => {
  namespace = testNamespace();
  lock = new SharedLock(name, { namespace });
});
afterEach(() => lock.close());

const start = (options: string[], command: string[], env?: NodeJS.ProcessEnv): Started =>
  startCommand(['run', '--namespace', namespace, ...options, name, ...command], env);
const run = (options: string[], command: string[], env?: NodeJS.ProcessEnv) =>
  start(options, command, env).ended;
const shell = (script: string): string[] => ['sh', '-c', script];

/** Until it has written this. */
const untilSaid = (started: Started, text: string | RegExp, stream: 'stdout' | 'stderr' = 'stdout') =>
  until(() => started.written[stream].match(text) !== null);

const isAlive = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
};

describe('exit codes', () => {
  test.each([0, 1, 7, 64, 75, 255])('that of the command: %i; no mark is left', async (code) => {
    expect(await run([], shell(`exit ${code}`))).toEqual({ code, signal: null, stdout: '', stderr: '' });
    const guard = await lock.exclusive();
    expect(guard.abandoned).toBeNull();
    guard.release();
  });

  test.each(['SIGTERM', 'SIGKILL', 'SIGABRT'] as const)(
    '128 + %s that ended it; a mark is left',
    async (signal) => {
      const started = start([], shell(`kill -${signal.slice(3)} $$`));
      expect(await started.ended).toEqual({ code: codeOf(signal), signal: null, stdout: '', stderr: '' });
      const guard = await lock.exclusive();
      expect(guard.abandoned).toMatchObject({ pid: started.child.pid });
      guard.release();
    },
  );

  test('a shared holder that is killed leaves no mark', async () => {
    expect(await run(['-s'], shell('kill -9 $$'))).toMatchObject({ code: 137 });
    await lock.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
  });

  test('a mark stays until a command has succeeded', async () => {
    await run([], shell('kill -9 $$'));
    const print = shell('echo "$PROCLOCK_ABANDONED"; exit $0');
    expect(await run([], [...print, '3'])).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/^\d+\n$/),
    });
    expect(await run([], [...print, '0'])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\n$/),
    });
    expect(await run([], [...print, '0'])).toMatchObject({ code: 0, stdout: '\n' });
  });

  test('126 and 127 for what can not be run', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proclock-run-'));
    const file = join(folder, 'plain');
    writeFileSync(file, 'text');
    expect(await run([], [file])).toMatchObject({
      code: 126,
      stderr: expect.stringMatching(/^proclock: .*EACCES/),
    });
    expect(await run([], [folder])).toMatchObject({ code: 126 });
    expect(await run([], [join(folder, 'none')])).toMatchObject({ code: 127 });
    expect(await run([], ['proclock-no-such-command'])).toMatchObject({ code: 127 });
    rmSync(folder, { recursive: true });
    expectIdle(lock);
  });

  test.each([
    [['-n'], 75],
    [['--nonblock'], 75],
    [['-w', '0'], 75],
    [['-w0.05'], 75],
    [['--timeout=0.05'], 75],
    [['-n', '-E', '0'], 0],
    [['-nE7'], 7],
    [['-sn', '--conflict-exit-code', '255'], 255],
  ])('%j of a lock that is taken: %i, and why', async (options, code) => {
    const guard = await lock.exclusive();
    const stderr = expect.stringMatching(
      new RegExp(`^proclock: ERR_LOCK_TIMEOUT: .*pid ${process.pid} thread 0 .*\\n$`),
    );
    expect(await run(options, shell('echo ran'))).toEqual({ code, signal: null, stdout: '', stderr });
    guard.release();
  });

  test('69 without a native part', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proclock-run-'));
    const preload = join(folder, 'no-native.js');
    writeFileSync(preload, "process.dlopen = () => { throw new Error('not here'); };");
    const env = { NODE_OPTIONS: `--require ${JSON.stringify(preload)}` };
    expect(await run([], ['true'], env)).toMatchObject({
      code: 69,
      stdout: '',
      stderr: expect.stringMatching(/^proclock: ERR_LOCK_UNSUPPORTED: .*\n$/),
    });
    rmSync(folder, { recursive: true });
  });
});

describe('what the command is given', () => {
  test.each([
    [[], 'exclusive'],
    [['-s'], 'shared'],
  ])('%j: name, namespace, mode and token', async (options, mode) => {
    const before = (await lock.exclusive(({ token }) => token)) as bigint;
    const { stdout, code } = await run(options, ['env'], { PROCLOCK_ABANDONED: '1', PROCLOCK_TOKEN: 'old' });
    expect(code).toBe(0);
    const given = /^PROCLOCK_(NAME|NAMESPACE|MODE|TOKEN|ABANDONED)=/;
    const variables = stdout.split('\n').filter((line) => given.test(line));
    const values = Object.fromEntries(variables.map((line) => line.split('=')));
    const { PROCLOCK_TOKEN, ...others } = values;
    expect(others).toEqual({ PROCLOCK_NAME: name, PROCLOCK_NAMESPACE: namespace, PROCLOCK_MODE: mode });
    if (mode === 'exclusive') expect(BigInt(PROCLOCK_TOKEN)).toBeGreaterThan(before);
    else expect(BigInt(PROCLOCK_TOKEN)).toBe(before);
  });

  test('its arguments as they are, also those that look like ours', async () => {
    const print = ['printf', '%s,', '-w', '--json', '', 'a b', '--'];
    expect(await run([], print)).toMatchObject({ code: 0, stdout: '-w,--json,,a b,--,' });
    expect(await run(['--'], ['--', ...print])).toMatchObject({ code: 0, stdout: '-w,--json,,a b,--,' });
  });

  test('our input and output, and no other descriptor', async () => {
    const script = 'cat; ls /proc/self/fd | sort -n | tr "\\n" " "';
    const child = spawn(process.execPath, [MAIN, 'run', '--namespace', namespace, name, 'sh', '-c', script], {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    child.stdout!.on('data', (text) => {
      stdout += text;
    });
    child.stdin!.end('through ');
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect(code).toBe(0);
    // `ls` itself has the folder open.
    expect(stdout).toBe('through 0 1 2 3 ');
  });

  test('a daemon that it leaves behind keeps no lock', async () => {
    const { code, stdout } = await run([], shell('sleep 60 >/dev/null 2>&1 & echo $!'));
    expect(code).toBe(0);
    const guard = lock.tryExclusive();
    expect(guard).not.toBeNull();
    guard?.release();
    try {
      process.kill(Number(stdout), 'SIGKILL');
    } catch {
      // The group of the command was ended already.
    }
  });

  test('shared holders run beside each other, exclusive ones do not', async () => {
    const both = await Promise.all(
      [0, 1].map(async () => {
        const started = start(['-s'], shell('echo in; read line </dev/null; sleep 60'));
        await untilSaid(started, 'in');
        return started;
      }),
    );
    expect(lock.query().held).toHaveLength(2);
    expect(await run(['-n'], ['true'])).toMatchObject({ code: 75 });
    for (const { child } of both) process.kill(child.pid as number, 'SIGTERM');
    for (const { ended } of both) expect(await ended).toMatchObject({ code: 143 });
  });
});

describe('signals', () => {
  test.each(SIGNALS)('%s goes on to the command', async (signal) => {
    const word = signal.slice(3);
    const started = start(
      [],
      shell(`trap 'echo got ${word}; exit 5' ${word}; echo ready; while :; do sleep 0.05; done`),
    );
    await untilSaid(started, 'ready');
    process.kill(started.child.pid as number, signal);
    expect(await started.ended).toMatchObject({ code: 5, stdout: `ready\ngot ${word}\n` });
    expectIdle(lock);
  });

  test.each(SIGNALS)('%s ends the wait at once, and no place in the queue is left', async (signal) => {
    const guard = await lock.exclusive();
    const started = start([], shell('echo ran'));
    await untilPending(lock, 1);
    process.kill(started.child.pid as number, signal);
    expect(await started.ended).toMatchObject({ code: codeOf(signal), stdout: '' });
    expect(lock.query().pending).toEqual([]);
    guard.release();
  });

  test('SIGUSR1 while `run` is being loaded ends it, and opens no debugger', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proclock-run-'));
    const preload = join(folder, 'signal.cjs');
    writeFileSync(
      preload,
      `const Module = require('node:module');
       const { _load } = Module;
       Module._load = (request, ...rest) => {
         if (request === './run') process.kill(process.pid, 'SIGUSR1');
         return _load(request, ...rest);
       };`,
    );
    const command = shell('while :; do sleep 0.05; done');
    const ended = await run([], command, { NODE_OPTIONS: `--require ${JSON.stringify(preload)}` });
    expect(ended).toEqual({ code: codeOf('SIGUSR1'), signal: null, stdout: '', stderr: '' });
    rmSync(folder, { recursive: true });
  });

  test('a command that does not react is ended with a `run` that is killed', async () => {
    const started = start([], shell("trap '' TERM INT HUP; echo $$; while :; do sleep 0.05; done"));
    await untilSaid(started, /\d+\n/);
    const pid = Number(started.written.stdout);
    expect(isAlive(pid)).toBe(true);
    process.kill(started.child.pid as number, 'SIGKILL');
    await until(() => !isAlive(pid));
    const guard = await lock.exclusive();
    expect(guard.abandoned).toMatchObject({ pid: started.child.pid });
    guard.release();
  });

  test('a command that may not be signalled is waited for, and the lock is held until it has ended', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proclock-run-'));
    const [preload, marker] = [join(folder, 'no-kill.cjs'), join(folder, 'go')];
    writeFileSync(
      preload,
      `process.kill = () => { throw Object.assign(new Error('kill EPERM'), { code: 'EPERM' }); };`,
    );
    const script = `echo ready; while [ ! -e ${marker} ]; do sleep 0.05; done; exit 3`;
    const started = start([], shell(script), { NODE_OPTIONS: `--require ${JSON.stringify(preload)}` });
    await untilSaid(started, 'ready');
    process.kill(started.child.pid as number, 'SIGTERM');
    await until(() => started.written.stderr !== '');
    expect(started.written.stderr).toBe('proclock: the command can not be sent SIGTERM: kill EPERM\n');
    expect(lock.query().held).toHaveLength(1);
    writeFileSync(marker, '');
    expect(await started.ended).toMatchObject({ code: 3 });
    rmSync(folder, { recursive: true });
  });

  test('the hold is lost: the command is told to end, and then made to', async () => {
    const started = start([], shell("trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done"));
    await untilSaid(started, 'ready');
    rmSync(segmentFile(namespace));
    expect(await started.ended).toMatchObject({
      code: 74,
      stdout: 'ready\ntold\n',
      stderr: expect.stringMatching(/^proclock: /),
    });
  });
});

test('after a second it says whom it waits for, once', async () => {
  const guard = await lock.exclusive();
  const started = start([], ['true']);
  await untilSaid(started, '\n', 'stderr');
  const { stderr } = started.written;
  expect(stderr).toMatch(
    new RegExp(`^proclock: waiting for ledger \\(exclusive\\): held by pid ${process.pid} .*node`),
  );
  guard.release();
  expect(await started.ended).toEqual({ code: 0, signal: null, stdout: '', stderr });
});

test('-v says nothing of a release where it was not acquired', async () => {
  const guard = await lock.exclusive();
  const { stderr, code } = await run(['-n', '-v'], ['true']);
  guard.release();
  expect({ code, lines: stderr.match(/^.*$/gm) }).toEqual({
    code: 75,
    lines: [expect.stringContaining('ERR_LOCK_TIMEOUT'), ''],
  });
});

test('-v says when it was acquired and released', async () => {
  const { stderr, code } = await run(['-v'], ['true']);
  expect(code).toBe(0);
  expect(stderr).toMatch(
    /^proclock: acquired ledger \(exclusive\) after .*, token \d+\nproclock: released ledger\n$/,
  );
});

/** Of each shell. 100 take a minute or two: a longer run. */
const ROUNDS = Number(process.env.PROCLOCK_COMMAND_ROUNDS ?? 10);

test(
  `eight shells, ${ROUNDS} increments each, while namespaces are pruned`,
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'proclock-run-'));
    const file = join(folder, 'count');
    writeFileSync(file, '0');
    const ours = testNamespace(); // this process is attached to the other one, which so is not pruned
    const loop = `i=0; while [ $i -lt ${ROUNDS} ]; do
    "$0" "$1" run --namespace "$2" count sh -c 'read n < "$0"; echo $((n + 1)) > "$0"' "$3" || exit 1
    i=$((i + 1)); done`;
    const shells = Array.from({ length: 8 }, () =>
      spawn('sh', ['-c', loop, process.execPath, MAIN, ours, file], { stdio: 'ignore' }),
    );
    let done = false;
    const pruning = (async () => {
      // Only this namespace: others of this user may be those of other tests.
      const segment = { file: segmentFile(ours), namespace: ours, group: -1 };
      while (!done) {
        prune(segment, true);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    })();
    const codes = await Promise.all(
      shells.map((child) => new Promise((resolve) => child.once('exit', resolve))),
    );
    done = true;
    await pruning;
    expect(codes).toEqual(Array(8).fill(0));
    expect(readFileSync(file, 'utf8')).toBe(`${8 * ROUNDS}\n`);
    rmSync(folder, { recursive: true });
  },
  25_000 + ROUNDS * 8_000,
);

test('as the first process of a PID namespace, it takes the orphans in, and knows its own', async () => {
  const script = '(sleep 0.2 & ) ; sleep 0.5; exit 9';
  const child = spawn(
    'unshare',
    [
      '--user',
      '--map-root-user',
      '--pid',
      '--fork',
      '--mount-proc',
      process.execPath,
      MAIN,
      'run',
      '--namespace',
      namespace,
      name,
      'sh',
      '-c',
      script,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => {
    child.once('error', () => resolve('no unshare'));
    child.once('close', resolve);
  });
  if (code === 'no unshare' || /unshare/.test(stderr)) {
    console.log(`not tested, there are no user namespaces here: ${stderr}`);
    return;
  }
  expect({ code, stderr }).toEqual({ code: 9, stderr: '' });
});
