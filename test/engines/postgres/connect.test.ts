// `connect` refuses what can not keep locks, and says what to do; it installs what is missing, and nothing where it is not to.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Client, type ClientConfig } from 'pg';
import { connect } from '../../../lib/postgres';
import { SharedLock } from '../../../lib/remote';
import { DIST } from '../../support/segment';
import { until } from '../../support/until';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const SQL = join(__dirname, '../../../lib/engines/postgres/sql');

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

describe('connect', () => {
  test.each<[string, unknown[], string]>([
    ['a connection that is a number', [5], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is null', [null], 'ERR_INVALID_ARG_TYPE'],
    ['options that are a string', ['', 'x'], 'ERR_INVALID_ARG_TYPE'],
    ['an unknown durability', ['', { durability: 'maybe' }], 'ERR_INVALID_ARG_VALUE'],
    ['an unknown pooler', ['', { pooler: 'transaction' }], 'ERR_INVALID_ARG_VALUE'],
    ['an install that is a string', ['', { install: 'no' }], 'ERR_INVALID_ARG_TYPE'],
    ['an empty schema', ['', { schema: '' }], 'ERR_INVALID_ARG_VALUE'],
    ['a schema that is too long', ['', { schema: 'x'.repeat(64) }], 'ERR_INVALID_ARG_VALUE'],
    ['a schema with NUL', ['', { schema: 'a\0b' }], 'ERR_INVALID_ARG_VALUE'],
    ['a namespace with a blank', ['', { namespace: 'a b' }], 'ERR_INVALID_ARG_VALUE'],
    ['a ttl that is too short', ['', { ttl: 999 }], 'ERR_OUT_OF_RANGE'],
  ])('refuses %s', async (_, args, code) => {
    await expect(connect(...(args as [string]))).rejects.toMatchObject({ code });
  });

  test('says that nobody listens there', async () => {
    await expect(connect('postgres://nobody@127.0.0.1:1/x')).rejects.toMatchObject({
      code: 'ERR_LOCK_UNAVAILABLE',
      cause: { code: 'ECONNREFUSED' },
    });
  });

  test('says that somebody listens who does not answer', async () => {
    const server = createServer(() => {});
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const config: ClientConfig = { host: '127.0.0.1', port, connectionTimeoutMillis: 200 };
    await expect(connect(config)).rejects.toMatchObject({ code: 'ERR_LOCK_UNAVAILABLE' });
    server.close();
  });
});

describeWithServer('connect', () => {
  const fixture = new Fixture({ max_connections: 10, superuser_reserved_connections: 1 });
  const url = (user?: string) => fixture.server.url(user);

  test('has the files in itself, so that a bundle has them as well', () => {
    const files = readdirSync(SQL).sort();
    expect(files.map((file) => Number.parseInt(file, 10))).toEqual(files.map((_, index) => index + 1));
    const built = join(DIST, 'engines/postgres/migrations.js');
    expect(require(built).MIGRATIONS).toEqual(files.map((file) => readFileSync(join(SQL, file), 'utf8')));
    expect(readFileSync(built, 'utf8')).not.toContain('require');
  });

  test.each(['proclock', 'Odd "name"; drop', 'ünïcode'])('installs the schema %j, once', async (schema) => {
    const [one, two] = await Promise.all([
      fixture.space({ schema }),
      fixture.space({ schema }),
      fixture.space({ schema }),
    ]);
    const guard = await new SharedLock(fixture.name, { space: one }).exclusive();
    expect(await new SharedLock(fixture.name, { space: two }).tryShared()).toBeNull();
    await guard.release();
  });

  test('keeps schemas and namespaces apart', async () => {
    const guards = await Promise.all(
      [{}, { schema: 'other' }, { namespace: 'other' }].map(async (options) =>
        (await fixture.lock(options)).exclusive(),
      ),
    );
    for (const guard of guards) await guard.release();
  });

  test('with `install: false` wants the files to be run, which is all there is to do', async () => {
    const options = { schema: 'by hand', install: false };
    await expect(connect(url(), options)).rejects.toMatchObject({ code: 'ERR_LOCK_INCOMPATIBLE' });
    const files = readdirSync(SQL).sort();
    const texts = files.map((file) => readFileSync(join(SQL, file), 'utf8'));
    const client = new Client(url());
    await client.connect();
    await client.query('create schema "by hand"; set search_path = "by hand"');
    for (const [index, text] of texts.entries()) {
      await client.query(text);
      if (index === 0)
        await expect(connect(url(), options)).rejects.toMatchObject({ code: 'ERR_LOCK_INCOMPATIBLE' });
    }
    await client.end();
    await (await (await fixture.lock(options)).exclusive()).release();
  });

  test('refuses a schema that is newer', async () => {
    await fixture.space({ schema: 'newer' });
    await fixture.server.sql('insert into newer.migrations (number) values (1000)');
    await expect(connect(url(), { schema: 'newer' })).rejects.toMatchObject({
      code: 'ERR_LOCK_INCOMPATIBLE',
    });
  });

  test('says what a role has to be granted', async () => {
    await fixture.space();
    await fixture.server.sql('create role worker login');
    await expect(connect(url('worker'), { schema: 'unheard' })).rejects.toMatchObject({
      code: 'ERR_LOCK_PERMISSION',
      message: expect.stringContaining('.sql'),
    });
    await expect(connect(url('worker'))).rejects.toMatchObject({
      code: 'ERR_LOCK_PERMISSION',
      message: expect.stringContaining('GRANT USAGE ON SCHEMA "proclock"'),
    });
    await fixture.server.sql(
      'grant usage on schema proclock to worker; grant select, insert, update on all tables in schema proclock to worker',
    );
    await expect(connect(url('worker'))).rejects.toMatchObject({
      code: 'ERR_LOCK_PERMISSION',
      message: expect.stringContaining('delete'),
    });
    await fixture.server.sql('grant delete on all tables in schema proclock to worker');
    const lock = await fixture.lock({ install: false }, url('worker'));
    await (await lock.exclusive()).release();
    await (await lock.shared()).release();
  });

  test('says that a role is unknown', async () => {
    await expect(connect(url('nobody'))).rejects.toMatchObject({ code: 'ERR_LOCK_PERMISSION' });
  });

  test('says that there is no connection left', async () => {
    await fixture.server.sql('create role modest login connection limit 0');
    await expect(connect(url('modest'))).rejects.toMatchObject({
      code: 'ERR_LOCK_UNAVAILABLE',
      message: expect.stringContaining('max_connections'),
    });
  });

  test('relies on no setting of the role', async () => {
    await fixture.server.sql(`
      alter role postgres set statement_timeout = 100;
      alter role postgres set default_transaction_isolation = serializable;
      alter role postgres set default_transaction_read_only = on;
      alter role postgres set search_path = nowhere;
      alter role postgres set bytea_output = escape`);
    try {
      const lock = await fixture.lock();
      await (await lock.exclusive()).release();
    } finally {
      await fixture.server.sql('set transaction_read_only = off; alter role postgres reset all');
    }
  });

  test('has one connection a space, and none when it is closed', async () => {
    const count = async () =>
      (await fixture.server.sql("select from pg_stat_activity where application_name = 'proclock'")).length;
    await until(async () => (await count()) === 0);
    const space = await fixture.space();
    const guards = await Promise.all(
      Array.from({ length: 50 }, (_, i) => new SharedLock(`${fixture.name} ${i}`, { space }).exclusive()),
    );
    expect(await count()).toBe(1);
    expect(guards).toHaveLength(50);
    await space.close();
    await until(async () => (await count()) === 0);
    expect(await fixture.server.leftovers()).toBe(0);
    await expect(new SharedLock('x', { space }).shared()).rejects.toMatchObject({ code: 'ERR_LOCK_CLOSED' });
  });

  test('a process that has an idle space, or a held lock, ends by itself', async () => {
    for (const hold of ['', "await new Lock('idle', { space }).acquire();"]) {
      const { code, stderr } = await runScript(
        `const { connect } = require('./dist/postgres'); const { Lock } = require('./dist/remote');
        (async () => { const space = await connect(${JSON.stringify(url())}); ${hold} globalThis.kept = space; })();`,
      );
      expect(stderr).toBe('');
      expect(code).toBe(0);
    }
  });

  test('without `pg`, says that it is needed', async () => {
    const { stdout } = await runScript(
      `require('node:module')._resolveFilename = ((original) => function (name, ...rest) {
        if (name === 'pg') throw Object.assign(new Error("Cannot find module 'pg'"), { code: 'MODULE_NOT_FOUND' });
        return original.call(this, name, ...rest);
      })(require('node:module')._resolveFilename);
      require('./dist/postgres').connect().catch((error) => console.log(error.code, error.message));`,
    );
    expect(stdout).toMatch(/^ERR_LOCK_UNSUPPORTED .*npm install pg/);
  });
});
