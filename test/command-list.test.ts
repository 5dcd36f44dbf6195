// `proclock ls`, `watch`, `prune` and `doctor`: what they show, to people and to programs, and what they leave alone.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { SharedLock } from '../lib';
import { contentOf, prune } from '../lib/shm/admin';
import { startActor } from './support/actor';
import { runCommand, startCommand } from './support/command';
import { untilPending } from './support/locks';
import { testNamespace, until } from './support/namespace';
import { Head, Layout, segmentFile, writeAt } from './support/segment';

const segmentOf = (namespace: string) => ({ file: segmentFile(namespace), namespace, group: -1 });

/** As many as one look at each lock for each other one takes minutes for. */
const MANY = 60_000;
const ESCAPE = '\u001b';

describe('ls', () => {
  test('--json: holders, waiters, and what is left by the dead', async () => {
    const namespace = testNamespace();
    const [a, b, c] = ['a', 'b', 'c'].map((name) => new SharedLock(name, { namespace })) as [
      SharedLock,
      SharedLock,
      SharedLock,
    ];
    const actor = await startActor('fork', { namespace });
    const guard = await a.shared();
    const waiting = actor.begin('acquire', { name: 'a', mode: 'exclusive' });
    await untilPending(a, 1);
    const dead = await startActor('fork', { namespace });
    await dead.acquire({ name: 'b', mode: 'exclusive' });
    await dead.kill();
    b.close();
    c.close();
    const { stdout, stderr, code } = await runCommand(['ls', '--json', '--namespace', namespace]);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    const info = (name: string, mode: string, pid: number, command: string) => ({
      name,
      mode,
      clientId: expect.any(String),
      pid,
      threadId: 0,
      since: expect.stringMatching(/^\d{4}-.*Z$/),
      command: expect.stringContaining(command),
      stopped: false,
    });
    const abandoned = {
      pid: dead.pid,
      threadId: 0,
      since: expect.stringMatching(/^\d{4}-.*Z$/),
      token: expect.stringMatching(/^\d+$/),
    };
    expect(JSON.parse(stdout)).toEqual([
      {
        namespace,
        name: 'a',
        held: [info('a', 'shared', process.pid, '')],
        pending: [info('a', 'exclusive', actor.pid, 'actor')],
        abandoned: null,
        deadlock: false,
      },
      { namespace, name: 'b', held: [], pending: [], abandoned, deadlock: false },
    ]);
    const ofB = await runCommand(['ls', '--json', '--namespace', namespace, 'b']);
    expect(JSON.parse(ofB.stdout)).toEqual([expect.objectContaining({ name: 'b' })]);
    const all = JSON.parse((await runCommand(['ls', '--json'])).stdout) as Array<{ namespace: string }>;
    expect(all.filter((lock) => lock.namespace === namespace)).toHaveLength(2);
    guard.release();
    await waiting.promise;
    await actor.release('a');
  });

  test('a namespace with tens of thousands of locks in use', async () => {
    const namespace = testNamespace();
    const actor = await startActor('fork', { namespace });
    await actor.run(
      `globalThis.guards = [];
       for (let n = 0; n < args; n++) globalThis.guards.push(lock({ name: 'name ' + n }).exclusiveSync());`,
      MANY,
    );
    const { stdout, stderr, code, signal } = await runCommand(['ls', '--namespace', namespace]);
    expect({ stderr, code, signal }).toEqual({ stderr: '', code: 0, signal: null });
    expect(stdout.match(/● holds exclusive/g)).toHaveLength(MANY);
    await actor.kill();
  });

  test('a namespace of another layout that is in use is told of; one that nobody uses is not', async () => {
    const namespace = testNamespace();
    const actor = await startActor('fork', { namespace });
    await actor.acquire({ name: 'a', mode: 'exclusive' });
    writeAt(segmentFile(namespace), Head.VERSION, Buffer.from([99]));
    const list = () => runCommand(['ls', '--json', '--namespace', namespace]);
    expect(await list()).toEqual({
      code: 1,
      signal: null,
      stdout: '[]\n',
      stderr: expect.stringMatching(/^proclock: ERR_LOCK_INCOMPATIBLE: .*layout version 99/),
    });
    await actor.kill();
    await until(async () => (await list()).code === 0);
  });

  test('a namespace that goes while we look is not made again', async () => {
    const nothing = { held: [], pending: [], abandoned: new Map(), deadlocks: new Set() };
    const namespace = testNamespace();
    const segment = segmentOf(namespace);
    expect(contentOf(segment)).toEqual(nothing);
    expect(existsSync(segment.file)).toBe(false);
    // Also if this process has been in it.
    using lock = new SharedLock('a', { namespace });
    const guard = lock.exclusiveSync();
    expect(contentOf(segment)).toMatchObject({ held: [{ name: 'a' }] });
    rmSync(segment.file);
    expect(contentOf(segment)).toEqual(nothing);
    expect(existsSync(segment.file)).toBe(false);
    guard.release();
    // A file of which no namespace was made.
    writeFileSync(segment.file, '', { mode: 0o600 });
    expect(contentOf(segment)).toEqual(nothing);
    expect(readFileSync(segment.file)).toHaveLength(0);
  });

  test('for people: a row each, no escape codes into a pipe, and none from a name', async () => {
    const namespace = testNamespace();
    const guard = await new SharedLock(`${ESCAPE}[31m red`, { namespace }).exclusive();
    const { stdout, code } = await runCommand(['ls', '--namespace', namespace]);
    expect(code).toBe(0);
    const [head, row, ...rest] = stdout.split('\n');
    expect(head).toMatch(/^LOCK +STATE +PID +FOR +COMMAND$/);
    expect(row).toMatch(
      new RegExp(`^${namespace}/'\\\\u{1b}\\[31m red' +● holds exclusive +${process.pid} `),
    );
    expect(rest).toEqual(['']);
    expect(stdout).not.toContain(ESCAPE);
    guard.release();
  });

  test('a group’s namespace is one of ours', async () => {
    const namespace = testNamespace();
    const gid = process.getegid!();
    const guard = await new SharedLock('a', { namespace, group: gid }).shared();
    const { stdout } = await runCommand(['ls', '--json', '--namespace', namespace]);
    expect(JSON.parse(stdout)).toMatchObject([
      { namespace, group: gid, name: 'a', held: [{ mode: 'shared' }] },
    ]);
    guard.release();
  });

  test('nothing: an empty array, or nothing at all', async () => {
    const namespace = testNamespace();
    expect(await runCommand(['ls', '--namespace', namespace])).toMatchObject({ code: 0, stdout: '' });
    expect(await runCommand(['ls', '--json', '--namespace', namespace])).toMatchObject({
      code: 0,
      stdout: '[]\n',
    });
    expect(existsSync(segmentFile(namespace))).toBe(false);
  });

  test('a process that stands still is shown as stopped', async () => {
    const namespace = testNamespace();
    const actor = await startActor('fork', { namespace });
    await actor.acquire({ name: 'a', mode: 'exclusive' });
    process.kill(actor.pid, 'SIGSTOP');
    const { stdout } = await runCommand(['ls', '--json', '--namespace', namespace]);
    process.kill(actor.pid, 'SIGCONT');
    expect(JSON.parse(stdout)).toMatchObject([{ held: [{ stopped: true }] }]);
    await actor.release('a');
  });
});

describe('watch', () => {
  test('into a pipe: plain lines, until nobody reads them', async () => {
    const namespace = testNamespace();
    const guard = await new SharedLock('a', { namespace }).exclusive();
    const started = startCommand(['watch', '--namespace', namespace]);
    await until(() => /held exclusive by \d+/.test(started.written.stdout));
    expect(started.written.stdout).toMatch(
      new RegExp(
        `^\\d\\d:\\d\\d:\\d\\d  ${namespace}/a: held exclusive by ${process.pid} for .*; nobody waits\\n`,
      ),
    );
    expect(started.written.stdout).not.toContain(ESCAPE);
    started.child.stdout!.destroy();
    expect(await started.ended).toMatchObject({ code: 0, signal: null, stderr: '' });
    guard.release();
  });

  test.each([
    ['SIGINT', 130],
    ['SIGQUIT', 131],
  ] as const)('%s: %i', async (signal, code) => {
    const started = startCommand(['watch', '--json', '--namespace', testNamespace()]);
    await until(() => started.written.stdout.includes('[]\n'));
    process.kill(started.child.pid as number, signal);
    expect(await started.ended).toMatchObject({ code, signal: null, stderr: '' });
  });

  describe('on a terminal', () => {
    const [hidden, shown] = [`${ESCAPE}[?25l`, `${ESCAPE}[?25h`];
    const up = `${ESCAPE}[4A`;

    /** `code` is run before it. */
    function startOnTerminal(namespace: string, code = '') {
      const terminal = `Object.assign(process.stdout, { isTTY: true, columns: 80, rows: 24 });${code}`;
      return startCommand(['watch', '--namespace', namespace], {
        NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(terminal)}`,
        TERM: 'xterm',
        NO_COLOR: '',
      });
    }

    test('drawn again in place, and the cursor comes back', async () => {
      const namespace = testNamespace();
      const guard = await new SharedLock('a', { namespace }).exclusive();
      const { child, ended, written } = startOnTerminal(namespace);
      await until(() => written.stdout.includes('● holds exclusive') && written.stdout.includes(up));
      child.kill('SIGINT');
      expect(await ended).toMatchObject({ code: 130, signal: null, stderr: '' });
      expect(written.stdout.startsWith(hidden)).toBe(true);
      expect(written.stdout.endsWith(shown)).toBe(true);
      guard.release();
    });

    test('SIGTSTP: with the cursor it is really stopped, and then goes on below', async () => {
      const namespace = testNamespace();
      const guard = await new SharedLock('a', { namespace }).exclusive();
      // The system stops nobody by SIGTSTP whom no shell would continue, as it may be here.
      const { child, ended, written } = startOnTerminal(
        namespace,
        `const { kill } = process;
         process.kill = (pid, signal) => {
           const isDefault = process.listenerCount(signal) === 0;
           kill(pid, signal === 'SIGTSTP' && isDefault ? 'SIGSTOP' : signal);
         };`,
      );
      const isStopped = () => / T /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8'));
      for (let seen = 0, round = 0; round < 2; round++) {
        await until(() => written.stdout.slice(seen).includes(up));
        expect(written.stdout.slice(seen).startsWith(hidden)).toBe(true);
        expect(written.stdout.slice(seen).split(up)[0]).toContain('● holds exclusive');
        child.kill('SIGTSTP');
        await until(isStopped);
        await until(() => written.stdout.endsWith(shown));
        seen = written.stdout.length;
        child.kill('SIGCONT');
      }
      child.kill('SIGQUIT');
      expect(await ended).toMatchObject({ code: 131, signal: null, stderr: '' });
      expect(written.stdout.endsWith(shown)).toBe(true);
      guard.release();
    });
  });
});

describe('prune', () => {
  test('removes what nobody is attached to, and prints it; leaves what is in use alone', async () => {
    const unused = testNamespace();
    const used = testNamespace();
    const actor = await startActor('fork', { namespace: unused });
    await actor.acquire({ name: 'a', mode: 'shared' });
    const guard = await new SharedLock('a', { namespace: used }).shared();
    const list = async (...args: string[]) => (await runCommand(['prune', ...args])).stdout.split('\n');
    expect(await list('--dry-run')).not.toContain(segmentFile(unused));
    await actor.release('a');
    await actor.kill();
    // --dry-run alone: other tests have namespaces that are not ours to prune.
    await until(async () => (await list('--dry-run')).includes(segmentFile(unused)));
    expect(await list('--dry-run')).not.toContain(segmentFile(used));
    expect(existsSync(segmentFile(unused))).toBe(true);
    // What the command does with each.
    expect(prune(segmentOf(used), true)).toBe(false);
    expect(prune(segmentOf(unused), true)).toBe(true);
    expect(prune(segmentOf(unused), true)).toBe(false);
    expect([used, unused].map((namespace) => existsSync(segmentFile(namespace)))).toEqual([true, false]);
    guard.release();
  });
});

describe('doctor', () => {
  test('finds nothing wrong here, and leaves nothing', async () => {
    const { stdout, stderr, code } = await runCommand(['doctor']);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^ok +native part: .*proclock\.node, layout \d+$/m);
    expect(stdout).toMatch(/^ok +a lock was acquired and released$/m);
    expect(code).toBe(/^wrong/m.test(stdout) ? 1 : 0);
    expect(stdout).not.toContain('doctor-');
  });

  test('tells of a namespace in use with impossible content: exit code 1', async () => {
    const namespace = testNamespace();
    using lock = new SharedLock('ledger', { namespace });
    lock.exclusiveSync(() => {});
    writeAt(segmentFile(namespace), Layout.META, Buffer.alloc(Layout.HEADER_END - Layout.META, 0xa5));
    const { stdout, stderr, code, signal } = await runCommand(['doctor']);
    expect({ stderr, signal }).toEqual({ stderr: '', signal: null });
    expect(stdout).toMatch(new RegExp(`^wrong +ERR_LOCK_CORRUPT: .*${segmentFile(namespace)}`, 'm'));
    expect(code).toBe(1);
  });

  test('tells of a file that keeps us out: exit code 1', async () => {
    const namespace = testNamespace();
    writeFileSync(segmentFile(namespace), '', { mode: 0o644 });
    const { stdout, code } = await runCommand(['doctor']);
    expect(stdout).toMatch(new RegExp(`^wrong +${segmentFile(namespace)} has mode 644, not 600`, 'm'));
    expect(code).toBe(1);
  });
});
