// What `connect` says of arguments that it can not use, and of servers that do not answer; and what a space costs its process
// and the server.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { SharedLock, type Space } from '../../../lib/remote';
import { until } from '../../support/until';
import type { Address, EngineFixture } from '../fixture';

/** What it is, the arguments, the code. */
type Refused = [string, unknown[], string];

/** How the `connect` of an engine is called. */
export interface Connecting {
  readonly entry: string;
  /** The optional peer. */
  readonly library: string;
  connect(...args: never[]): Promise<Space>;
  /** Where nobody listens; and how the error's cause says so. */
  readonly nowhere: Address;
  readonly cause: object;
  /** What it is called with where somebody listens who does not answer; it does not take long. */
  silent(port: number): unknown[];
  /** What it does not take, besides what no engine takes. */
  readonly refused: readonly Refused[];
}

/** Runs it in the folder of the package. */
async function runScript(source: string) {
  const child = spawn(process.execPath, ['-e', source], {
    cwd: join(__dirname, '../../..'),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, stdout, stderr };
}

/** Without a server. */
export function refusals({ entry, library, connect, nowhere, cause, silent, refused }: Connecting): void {
  const call = (args: unknown[]) => connect(...(args as never[]));

  describe('connect', () => {
    test.each<Refused>([
      ...refused,
      ['options that are a string', [nowhere, 'x'], 'ERR_INVALID_ARG_TYPE'],
      ['a namespace with a blank', [nowhere, { namespace: 'a b' }], 'ERR_INVALID_ARG_VALUE'],
      ['a ttl that is too short', [nowhere, { ttl: 999 }], 'ERR_OUT_OF_RANGE'],
    ])('refuses %s', async (_, args, code) => {
      await expect(call(args)).rejects.toMatchObject({ code });
    });

    test('says that nobody listens there', async () => {
      await expect(call([nowhere])).rejects.toMatchObject({
        code: 'ERR_LOCK_UNAVAILABLE',
        message: expect.stringContaining('ECONNREFUSED'),
        cause,
      });
    });

    test('says that somebody listens who does not answer', async () => {
      const server = createServer(() => {});
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as { port: number };
      await expect(call(silent(port))).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
      server.close();
    });

    test(`without \`${library}\`, says that it is needed`, async () => {
      const { stdout } = await runScript(
        `require('node:module')._resolveFilename = ((original) => function (name, ...rest) {
          if (name === '${library}') throw Object.assign(new Error('Cannot find it'), { code: 'MODULE_NOT_FOUND' });
          return original.call(this, name, ...rest);
        })(require('node:module')._resolveFilename);
        require('./dist/${entry}').connect(${JSON.stringify(nowhere)}).catch((error) => console.log(error.code, error.message));`,
      );
      expect(stdout).toMatch(new RegExp(`^ERR_LOCK_UNSUPPORTED .*npm install ${library}`));
    });
  });
}

/** To be called before other tests, which may leave marks: nothing is left of a space here. */
export function spaces(fixture: EngineFixture): void {
  describe('a space', () => {
    test('has one connection, and nothing is left when it is closed', async () => {
      const proxy = await fixture.proxy();
      const space = await fixture.space({}, fixture.through(proxy));
      const guards = await Promise.all(
        Array.from({ length: 50 }, (_, i) => new SharedLock(`${fixture.name} ${i}`, { space }).exclusive()),
      );
      const waits = guards.map(({ lock }) => (lock as SharedLock).shared());
      for (const wait of waits) wait.catch(() => {});
      await until(async () => (await space.query()).pending.length === waits.length);
      expect(proxy.count).toBe(1);
      await space.close();
      for (const wait of waits) await expect(wait).rejects.toMatchObject({ code: 'ERR_LOCK_CLOSED' });
      for (const guard of guards) await guard[Symbol.asyncDispose]();
      await until(() => proxy.count === 0);
      expect(await fixture.leftovers()).toBe(0);
      await expect(new SharedLock('x', { space }).shared()).rejects.toMatchObject({
        code: 'ERR_LOCK_CLOSED',
      });
    });

    test.each([
      ['nothing', ''],
      [
        'holds and a wait',
        "await lock('one').exclusive(); await lock('two').shared(); lock('one').shared().catch(() => {}); await lock('one').query()",
      ],
      [
        'many holds',
        "await Promise.all(Array.from({ length: 250 }, (_, i) => Promise.all([lock('a ' + i).exclusive(), lock('b ' + i).shared()])))",
      ],
    ])('with %s leaves nothing when its process ends by itself', async (_, source) => {
      // Its session does not end by itself, on the busiest machine.
      const child = await fixture.child({ ttl: 120_000 });
      child.run(`${source}; await space.close(); setImmediate(() => process.disconnect())`).catch(() => {});
      expect(await child.ended).toEqual({ code: 0, signal: null });
      expect(await fixture.leftovers()).toBe(0);
    });

    test('keeps its locks apart from those of others', async () => {
      const guards = await Promise.all(
        fixture.apart.map(async (options) => (await fixture.lock(options)).exclusive()),
      );
      for (const guard of guards) await guard.release();
    });

    test('that is idle, or holds a lock, lets its process end by itself; one that waits does not', async () => {
      const { entry } = fixture;
      const where = JSON.stringify(fixture.where);
      const script = (work: string) =>
        runScript(
          `const { connect } = require('./dist/${entry}'); const { Lock } = require('./dist/remote');
          (async () => { const space = await connect(${where}, { ttl: ${fixture.ttlMs} }); ${work}; globalThis.kept = space; })();`,
        );
      const acquire = "await new Lock('idle', { space }).acquire()";
      for (const work of ['', acquire])
        expect(await script(work)).toEqual({ code: 0, stdout: '', stderr: '' });
      // Until the server knows that the one before has ended.
      const { stdout } = await script(`${acquire}; console.log('got it')`);
      expect(stdout).toBe('got it\n');
    });
  });
}
