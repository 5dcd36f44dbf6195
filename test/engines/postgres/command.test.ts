// The command over PostgreSQL: `run`, whatever becomes of the connection, and `ls`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { type Ended, runCommand, type Started, startCommand } from '../../support/command';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

/** Ends it by a signal. `later`: by how much it ends later than a process that only ends when it hears of the same signal. */
async function endBySignal(
  { child, ended }: Started,
  signal: NodeJS.Signals,
): Promise<{ ended: Ended; later: number }> {
  const program = `process.on('${signal}', () => process.exit()); setInterval(() => {}, 1e6); console.log('ready');`;
  const plain = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(plain.stdout, 'data');
  const plainEnds = once(plain, 'close').then(() => performance.now());
  const ends = ended.then(() => performance.now());
  child.kill(signal);
  plain.kill(signal);
  return { ended: await ended, later: (await ends) - (await plainEnds) };
}

describeWithServer('the command', () => {
  const fixture = new Fixture();
  const engine = () => ['--postgres', fixture.server.url()];
  const run = (options: string[], script: string) =>
    startCommand(['run', ...engine(), ...options, fixture.name, 'sh', '-c', script]);

  test('a command under a lock of the server; its exit code, its environment', async () => {
    const lock = await fixture.lock();
    const before = await lock.exclusive(({ token }) => token);
    const script = 'echo "$PROCLOCK_NAME $PROCLOCK_MODE $PROCLOCK_TOKEN $PROCLOCK_ABANDONED"; exit 3';
    const { stdout, ...ended } = await run([], script).ended;
    expect(ended).toEqual({ code: 3, signal: null, stderr: '' });
    expect(stdout.startsWith(`${fixture.name} exclusive `)).toBe(true);
    expect(BigInt(stdout.trim().split(' ').at(-1)!)).toBeGreaterThan(before);
    await lock.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
  });

  test('a lock that is taken: 75; one that dies of a signal leaves a mark', async () => {
    const lock = await fixture.lock();
    await lock.exclusive(async () => {
      expect(await run(['-n'], 'echo ran').ended).toMatchObject({
        code: 75,
        stdout: '',
        stderr: expect.stringMatching(/^proclock: ERR_LOCK_TIMEOUT: .*pid \d+/),
      });
    });
    expect(await run([], 'kill -9 $$').ended).toMatchObject({ code: 137 });
    await lock.exclusive(({ abandoned }) => expect(abandoned).not.toBeNull());
  });

  test('a hold that is lost: the command is ended, 74', async () => {
    const proxy = await fixture.proxy();
    const url = fixture.server.url().replace(`:${fixture.server.port}`, `:${proxy.port}`);
    const script = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    const started = startCommand(['run', '--postgres', url, fixture.name, 'sh', '-c', script]);
    await until(() => started.written.stdout.includes('ready'));
    await proxy.stop();
    expect(await started.ended).toMatchObject({ code: 74, stdout: 'ready\ntold\n' });
  });

  test('a server that is not there: 69', async () => {
    const ended = await runCommand(['run', '--postgres', 'postgres://127.0.0.1:1/none', 'name', 'true']);
    expect(ended).toMatchObject({
      code: 69,
      stderr: expect.stringMatching(/^proclock: ERR_LOCK_UNAVAILABLE: /),
    });
  });

  test('a signal ends it at once while it waits for a server that does not answer', async () => {
    const server = createServer(() => {});
    const connected = once(server, 'connection');
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const url = fixture.server.url('postgres', port);
    const started = startCommand(['run', '--postgres', url, fixture.name, 'true']);
    const [socket] = (await connected) as [Socket];
    const { ended, later } = await endBySignal(started, 'SIGTERM');
    expect(ended).toMatchObject({ code: 143, stdout: '', stderr: '' });
    expect(later).toBeLessThan(1000);
    socket.destroy();
    server.close();
  });

  test('a signal ends the wait behind a server that stands still, without the time that closing takes', async () => {
    const lock = await fixture.lock();
    const guard = await lock.exclusive();
    const proxy = await fixture.proxy();
    const started = startCommand(['run', '--postgres', fixture.through(proxy), fixture.name, 'echo', 'ran']);
    await fixture.untilPending(lock, 1);
    proxy.stall();
    const { ended, later } = await endBySignal(started, 'SIGINT');
    expect(ended).toMatchObject({ code: 130, stdout: '' });
    // The place in the queue has a second to be given back.
    expect(later).toBeLessThan(3000);
    proxy.resume();
    await fixture.untilPending(lock, 0);
    await guard.release();
    await lock.exclusive(({ abandoned }) => expect(abandoned).toBeNull());
  });

  test('ls shows its locks', async () => {
    const lock = await fixture.lock();
    await lock.exclusive(async () => {
      const { stdout, code } = await runCommand(['ls', '--json', ...engine(), fixture.name]);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toEqual([
        {
          namespace: 'default',
          name: fixture.name,
          held: [expect.objectContaining({ pid: process.pid, mode: 'exclusive', host: expect.any(String) })],
          pending: [],
          abandoned: null,
          deadlock: false,
        },
      ]);
    });
  });

  test('ls shows what a dead holder has left, also before anybody has asked for the lock', async () => {
    const holder = await fixture.child();
    const token = await holder.hold(fixture.name);
    await holder.kill();
    const list = async () =>
      JSON.parse((await runCommand(['ls', '--json', ...engine(), fixture.name])).stdout);
    await until(async () => (await list())[0]?.abandoned?.pid === holder.pid);
    const [{ abandoned, held, pending }] = await list();
    expect({ held, pending }).toEqual({ held: [], pending: [] });
    expect(abandoned).toEqual({ pid: holder.pid, threadId: 0, since: expect.any(String), token: `${token}` });
    const lock = await fixture.lock();
    await lock.exclusive(() => {});
    expect(await list()).toEqual([]);
  });
});
