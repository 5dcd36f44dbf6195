// `connect` refuses what can not keep locks, and says what to do; passwords, tokens and certificates.
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../../lib/etcd';
import { SharedLock } from '../../../lib/remote';
import { until } from '../../support/until';
import { refusals, spaces } from '../faults/connect';
import { commandOf, temporaryFolder } from '../programs';
import { describeWithServer } from './describe';
import { Fixture, TTL_MS } from './fixture';
import { EtcdCluster } from './server';

refusals({
  entry: 'etcd',
  library: '@grpc/grpc-js',
  connect,
  nowhere: ['127.0.0.1:1', 'http://127.0.0.1:2'],
  cause: expect.any(Error),
  silent: (port) => [`127.0.0.1:${port}`, { ttl: 1000 }],
  refused: [
    ['endpoints that are a number', [5], 'ERR_INVALID_ARG_TYPE'],
    ['no endpoints', [undefined], 'ERR_INVALID_ARG_TYPE'],
    ['an empty list of endpoints', [[]], 'ERR_INVALID_ARG_VALUE'],
    ['an endpoint that is a number', [['a:1', 5]], 'ERR_INVALID_ARG_TYPE'],
    ['an endpoint without a port', ['localhost'], 'ERR_INVALID_ARG_VALUE'],
    ['an endpoint with a port that there is not', ['localhost:65536'], 'ERR_INVALID_ARG_VALUE'],
    ['an endpoint with a path', ['http://localhost:2379/x'], 'ERR_INVALID_ARG_VALUE'],
    ['an endpoint of another kind', ['ftp://localhost:2379'], 'ERR_INVALID_ARG_VALUE'],
    ['a prefix that is a number', ['a:1', { prefix: 1 }], 'ERR_INVALID_ARG_TYPE'],
    ['credentials that are a string', ['a:1', { credentials: 'x' }], 'ERR_INVALID_ARG_TYPE'],
    [
      'a certificate that is a string',
      ['a:1', { credentials: { rootCertificate: 'x' } }],
      'ERR_INVALID_ARG_TYPE',
    ],
    [
      'a key without its certificate',
      ['a:1', { credentials: { privateKey: Buffer.of(1) } }],
      'ERR_INVALID_ARG_VALUE',
    ],
    ['auth without a password', ['a:1', { auth: { username: 'x' } }], 'ERR_INVALID_ARG_TYPE'],
  ],
});

describeWithServer('connect', () => {
  const fixture = new Fixture();

  spaces(fixture);

  test('finds the endpoint that answers', async () => {
    const endpoints = ['127.0.0.1:1', '127.0.0.1:2', ...fixture.server.endpoints];
    for (let round = 0; round < 5; round++) {
      const lock = await fixture.lock({}, endpoints);
      await (await lock.exclusive()).release();
    }
  });
});

/** How long etcd knows a token that is not used. */
const TOKEN_MS = 1000;

describeWithServer('where etcd asks who somebody is', () => {
  const fixture = new Fixture({ flags: ['--auth-token-ttl', String(TOKEN_MS / 1000)] });
  const auth = { username: 'worker', password: 'secret' };
  const as = (args: string[]) => fixture.server.ctl(['--user', 'root:root', ...args]);

  beforeAll(async () => {
    for (const args of [
      ['user', 'add', 'root:root'],
      ['user', 'grant-role', 'root', 'root'],
      ['user', 'add', 'worker:secret'],
      ['user', 'add', 'stranger:secret'],
      ['role', 'add', 'locks'],
      ['role', 'grant-permission', 'locks', '--prefix=true', 'readwrite', 'proclock/'],
      ['user', 'grant-role', 'worker', 'locks'],
      ['auth', 'enable'],
    ])
      await fixture.server.ctl(args);
  });
  test.each<[string, object]>([
    ['nobody', {}],
    ['a wrong password', { auth: { username: 'worker', password: 'wrong' } }],
    ['an unknown user', { auth: { username: 'nobody', password: 'secret' } }],
    ['a user without rights', { auth: { username: 'stranger', password: 'secret' } }],
    ['keys that the user has no right to', { auth, prefix: 'elsewhere/' }],
  ])('refuses %s', async (_, options) => {
    await expect(connect(fixture.server.endpoints, { ttl: TTL_MS, ...options })).rejects.toMatchObject({
      code: 'ERR_LOCK_PERMISSION',
    });
  });

  test('one who may has locks, also when rights were changed meanwhile', async () => {
    const [one, two] = [await fixture.lock({ auth }), await fixture.lock({ auth })];
    const guard = await one.exclusive();
    await as(['role', 'add', fixture.name.replace(' ', '-')]);
    const waiting = two.exclusive();
    await fixture.untilPending(one, 1);
    await guard.release();
    await (await waiting).release();
  });

  test('a token that etcd does not know any more is renewed: nothing is lost', async () => {
    const [one, two] = [await fixture.lock({ auth, ttl: 10_000 }), await fixture.lock({ auth, ttl: 10_000 })];
    const guard = await one.exclusive();
    const waiting = two.exclusive();
    await fixture.untilPending(one, 1);
    const [member] = fixture.server.members;
    await member!.end();
    member!.start();
    await until(() => as(['endpoint', 'status']).then(...([() => true, () => false] as const)), {
      within: 20_000,
    });
    expect((await one.query()).pending).toHaveLength(1);
    expect(guard.lost.aborted).toBe(false);
    await guard.release();
    await (await waiting).release();
  });

  test('a token whose time runs out is renewed, time after time: nothing is lost', async () => {
    // Keep-alives are seldom enough to let it run out.
    const [one, two] = [await fixture.lock({ auth, ttl: 20_000 }), await fixture.lock({ auth, ttl: 20_000 })];
    const sessions = new Set<string>();
    for (let round = 0; round < 3; round++) {
      const guard = await one.exclusive();
      await sleep(2 * TOKEN_MS);
      // What is watched now is asked for by whoever etcd has forgotten.
      const waiting = two.exclusive();
      await fixture.untilPending(one, 1);
      await sleep(2 * TOKEN_MS);
      expect(guard.lost.aborted).toBe(false);
      for (const { clientId } of (await one.query()).pending) sessions.add(clientId);
      await guard.release();
      await (await waiting).release();
    }
    expect(sessions.size).toBe(1);
  });

  test('whose rights are taken away: it is told so', async () => {
    const lock = await fixture.lock({ auth });
    await as(['user', 'revoke-role', 'worker', 'locks']);
    try {
      await expect(lock.exclusive()).rejects.toMatchObject({
        code: 'ERR_LOCK_PERMISSION',
        message: expect.stringContaining('grant-permission'),
      });
    } finally {
      await as(['user', 'grant-role', 'worker', 'locks']);
    }
  });
});

const openssl = commandOf('openssl');

(openssl === undefined ? describe.skip : describeWithServer)('by TLS', () => {
  const folder = temporaryFolder('etcd');
  const file = (name: string) => join(folder, name);
  const make = (...args: string[]) => execFileSync(openssl as string, args, { cwd: folder, stdio: 'ignore' });
  let cluster: EtcdCluster;

  beforeAll(async () => {
    writeFileSync(
      file('extensions'),
      'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n',
    );
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    make(
      'req',
      '-x509',
      ...curve,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
      '-subj',
      '/CN=test CA',
      '-days',
      '2',
    );
    for (const name of ['server', 'client']) {
      make('req', ...curve, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      make(
        ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
        ...['-out', `${name}.pem`, '-days', '2', '-extfile', 'extensions'],
      );
    }
    execFileSync('chmod', ['-R', 'a+rX', folder]);
    const flags = ['--cert-file', file('server.pem'), '--key-file', file('server.key')];
    cluster = await EtcdCluster.start({
      scheme: 'https',
      flags: [...flags, '--client-cert-auth', '--trusted-ca-file', file('ca.pem')],
      ctl: ['--cacert', file('ca.pem'), '--cert', file('client.pem'), '--key', file('client.key')],
    });
  });
  afterAll(async () => {
    await cluster?.stop();
    rmSync(folder, { recursive: true });
  });

  const credentials = () => ({
    rootCertificate: readFileSync(file('ca.pem')),
    privateKey: readFileSync(file('client.key')),
    certChain: readFileSync(file('client.pem')),
  });

  test.each(['https://127.0.0.1', '127.0.0.1'])('has locks: %s', async (host) => {
    const space = await connect(`${host}:${cluster.port}`, { credentials: credentials() });
    await new SharedLock('secure', { space }).exclusive(() => {});
    await space.close();
  });

  test.each<[string, string, () => object]>([
    ['a certificate of somebody unknown', 'https', () => ({})],
    ['no certificate of the client', 'https', () => ({ rootCertificate: credentials().rootCertificate })],
    ['no TLS', 'http', credentials],
  ])('refuses %s', async (_, scheme, given) => {
    const options = { ttl: 1000, credentials: given() };
    await expect(connect(`${scheme}://127.0.0.1:${cluster.port}`, options)).rejects.toMatchObject({
      code: 'ERR_LOCK_UNAVAILABLE',
    });
  });
});
