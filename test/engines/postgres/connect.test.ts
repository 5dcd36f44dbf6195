// `connect` refuses what can not keep locks, and says what to do; it installs what is missing, and nothing where it is not to.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, type ClientConfig, defaults, Pool } from 'pg';
import { checkSettings } from '../../../lib/engines/postgres/config';
import { isFatal } from '../../../lib/engines/postgres/errors';
import { connect } from '../../../lib/postgres';
import { SharedLock } from '../../../lib/remote';
import { DIST } from '../../support/segment';
import { refusals, spaces } from '../faults/connect';
import { describeWithServer } from './describe';
import { Fixture } from './fixture';

const SQL = join(__dirname, '../../../lib/engines/postgres/sql');

refusals({
  entry: 'postgres',
  library: 'pg',
  connect,
  nowhere: 'postgres://nobody@127.0.0.1:1/x',
  cause: { code: 'ECONNREFUSED' },
  silent: (port): [ClientConfig] => [{ host: '127.0.0.1', port, connectionTimeoutMillis: 200 }],
  refused: [
    ['a connection that is a number', [5], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is null', [null], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is a client', [new Client()], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is empty', [''], 'ERR_INVALID_ARG_VALUE'],
    ['a connection that is a host', ['db.example'], 'ERR_INVALID_ARG_VALUE'],
    ['a connection that is a URL object', [new URL('postgres://a@b/c')], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is an array', [['postgres://a@b/c']], 'ERR_INVALID_ARG_TYPE'],
    ['a connection that is a map', [new Map([['host', 'b']])], 'ERR_INVALID_ARG_TYPE'],
    ['a connection with a port that is none', ['postgres://a:b@c:d/e'], 'ERR_INVALID_ARG_VALUE'],
    ['a connection with a port that there is not', ['postgres://c:65536/e'], 'ERR_INVALID_ARG_VALUE'],
    ['a connection with several hosts', ['postgres://a@b:1,c:2/d'], 'ERR_INVALID_ARG_VALUE'],
    ['an unknown durability', ['', { durability: 'maybe' }], 'ERR_INVALID_ARG_VALUE'],
    ['an unknown pooler', ['', { pooler: 'transaction' }], 'ERR_INVALID_ARG_VALUE'],
    ['an install that is a string', ['', { install: 'no' }], 'ERR_INVALID_ARG_TYPE'],
    ['an empty schema', ['', { schema: '' }], 'ERR_INVALID_ARG_VALUE'],
    ['a schema that is too long', ['', { schema: 'x'.repeat(64) }], 'ERR_INVALID_ARG_VALUE'],
    ['a schema with NUL', ['', { schema: 'a\0b' }], 'ERR_INVALID_ARG_VALUE'],
  ],
});

test('a file that the URL names and that is not there: the engine can not be reached', () =>
  expect(
    connect('postgres://a@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/nowhere'),
  ).rejects.toMatchObject({
    code: 'ERR_LOCK_UNAVAILABLE',
    cause: { code: 'ENOENT' },
  }));

test.each(['app:secret@db.example', 'postgres://app:secret@db.example:x/app'])(
  'what is no URL is not repeated, since there may be a password in it: %s',
  (connection) =>
    expect(connect(connection)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.not.stringContaining('secret'),
    }),
);

test('a URL as an object: says what to pass', () =>
  expect(connect(new URL('postgres://a@b/c') as object)).rejects.toMatchObject({
    message: expect.stringContaining('url.href'),
  }));

test.each([
  'postgres://a:b,c@d.example/e',
  'postgres://a:b@[::1]:5432/e',
  'postgres://[::1]/e',
  'postgres:///e?host=/var/run',
  'postgres://a@%2Fvar%2Frun/e',
  '/var/run e',
])('takes the URL %s', (connection) => {
  expect(checkSettings(connection, {}).connection).toEqual({ connectionString: connection });
});

test('takes the options of a pool, with their password', () => {
  const { options } = new Pool({ host: 'db.example', user: 'app', password: 'secret' });
  expect(checkSettings(options, {}).connection).toMatchObject({
    host: 'db.example',
    user: 'app',
    password: 'secret',
  });
});

test.each([
  ['57P01', 'ВАЖНО', true],
  ['25P03', 'FATALE', true],
  ['08006', 'ERROR', true],
  ['53300', 'FATAL', true],
  ['57014', 'FEHLER', false],
  ['42501', 'ERROR', false],
])('an error of the server (%s, %s) ends the session: %s', (code, severity, ends) => {
  expect(isFatal(Object.assign(new Error('it says so'), { code, severity }))).toBe(ends);
});

describeWithServer('connect', () => {
  const fixture = new Fixture({ max_connections: 10, superuser_reserved_connections: 1 });
  const url = (user?: string) => fixture.server.url(user);

  spaces(fixture);

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

  test('waits, and reads, in its own way, whatever the program has told `pg` or the URL', async () => {
    const told = defaults as unknown as Record<string, unknown>;
    const before = { binary: told.binary, query_timeout: told.query_timeout };
    Object.assign(told, { binary: true, query_timeout: 1 });
    try {
      const lock = await fixture.lock({}, `${url()}?query_timeout=1`);
      const guards = await Promise.all(Array.from({ length: 200 }, () => lock.shared()));
      await Promise.all(guards.map((guard) => guard.release()));
      expect(await lock.query()).toEqual({ held: [], pending: [] });
    } finally {
      Object.assign(told, before);
    }
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
});
