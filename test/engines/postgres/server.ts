// PostgreSQL servers of our own: on loopback, on any port, in a temporary folder, gone when the test is over.
//
// The binaries are those of the system. As root, where they are missing and apt-get is there, Debian's packages are installed;
// where there are none in the end, the tests are skipped, and say why.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { Client } from 'pg';
import { until } from '../../support/until';

const DEBIAN = '/usr/lib/postgresql';

function binaries(): string | undefined {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...versions.map((version) => join(DEBIAN, version, 'bin')),
    ...(process.env.PATH ?? '').split(delimiter),
  ];
  return folders.find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres')));
}

function commandOf(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

const isRoot = process.getuid?.() === 0;

/** Debian starts a server of its own with the package, unless its configuration says otherwise; and pgbouncer a service. */
function install(...packages: string[]): void {
  if (!isRoot || commandOf('apt-get') === undefined) return;
  const configuration = '/etc/postgresql-common/createcluster.conf';
  if (!existsSync(configuration)) {
    mkdirSync(dirname(configuration), { recursive: true });
    writeFileSync(configuration, 'create_main_cluster = false\n');
  }
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const options = { stdio: 'ignore', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } } as const;
  const confold = ['-o', 'Dpkg::Options::=--force-confold', '-o', 'DPkg::Lock::Timeout=120'];
  const get = ['install', '-y', '--no-install-recommends', ...confold, ...packages];
  try {
    if (spawnSync('apt-get', get, options).status !== 0) {
      spawnSync('apt-get', ['update'], options);
      spawnSync('apt-get', get, options);
    }
  } finally {
    if (ours) rmSync(policy);
  }
}

function found<T>(look: () => T | undefined, ...packages: string[]): T | undefined {
  const there = look();
  if (there !== undefined) return there;
  install(...packages);
  return look();
}

const postgres = found(binaries, 'postgresql');

/** Whether a server can be started here. */
export const isThere = postgres !== undefined;

/** As root: somebody else, for PostgreSQL refuses to run as root. */
function unprivileged(): { uid?: number; gid?: number } {
  if (!isRoot) return {};
  const entry = /^(?:postgres|nobody):[^:]*:(\d+):(\d+):/m.exec(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .sort((a) => (a.startsWith('postgres:') ? -1 : 1))
      .join('\n'),
  );
  return entry === null ? { uid: 65534, gid: 65534 } : { uid: Number(entry[1]), gid: Number(entry[2]) };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Ends with us, however we end. */
function launch(command: string, args: string[]): ChildProcess {
  const child = spawn(command, args, { stdio: 'ignore', cwd: '/', ...unprivileged() });
  const kill = (): void => {
    child.kill('SIGQUIT');
  };
  process.on('exit', kill);
  child.on('exit', () => process.removeListener('exit', kill));
  child.on('error', () => {});
  return child;
}

function folder(parent = tmpdir()): string {
  const made = mkdtempSync(join(parent, 'proclock-postgres-'));
  const { uid, gid } = unprivileged();
  if (uid !== undefined && gid !== undefined) chownSync(made, uid, gid);
  return made;
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** What a program of PostgreSQL is told by which signal. */
const SIGNALS = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const;

export class PostgresServer {
  private child: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly folder: string,
    private readonly binaries: string,
    private readonly settings: Record<string, string | number>,
  ) {}

  /** @param settings for postgresql.conf. @param parent of its folder. @param bin the folder of its programs */
  static start(
    settings: Record<string, string | number> = {},
    parent?: string,
    bin?: string,
  ): Promise<PostgresServer> {
    const argsFor = (data: string) => [
      ...['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8', '--locale=C'],
    ];
    return PostgresServer.launch(settings, 'initdb', argsFor, parent, bin);
  }

  /** A standby with what this server has now. It hears of nothing that comes later. */
  async standby(): Promise<PostgresServer> {
    const settings = { ...this.settings, primary_conninfo: '' };
    return PostgresServer.launch(settings, 'pg_basebackup', (data) => [
      ...[
        '-D',
        data,
        '-h',
        '127.0.0.1',
        '-p',
        String(this.port),
        '-U',
        'postgres',
        '-c',
        'fast',
        '--no-sync',
      ],
      ...['--write-recovery-conf', '--wal-method=stream'],
    ]);
  }

  /** @param program what makes the data folder */
  private static async launch(
    settings: Record<string, string | number>,
    program: string,
    argsFor: (data: string) => string[],
    parent?: string,
    bin = postgres as string,
  ): Promise<PostgresServer> {
    const made = folder(parent);
    execFileSync(join(bin, program), argsFor(join(made, 'data')), {
      cwd: '/',
      stdio: ['ignore', 'ignore', 'inherit'],
      ...unprivileged(),
    });
    const server = new PostgresServer(await freePort(), made, bin, {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      shared_buffers: '32MB',
      max_connections: 100,
      fsync: 'off',
      full_page_writes: 'off',
      log_destination: 'stderr',
      logging_collector: 'on',
      log_filename: 'log',
      ...settings,
      log_directory: made,
    });
    await server.run();
    return server;
  }

  /** @param user a role. @param port another one, of what stands in front */
  url(user = 'postgres', port = this.port): string {
    return `postgres://${user}@127.0.0.1:${port}/postgres`;
  }

  /** Runs SQL as the superuser, over a connection of its own. */
  async sql(text: string, values: unknown[] = []): Promise<Array<Record<string, unknown>>> {
    const client = new Client(this.url());
    await client.connect();
    try {
      return (await client.query(text, values)).rows;
    } finally {
      await client.end();
    }
  }

  /** How many rows there are of sessions, holds and waits, over all. */
  async leftovers(): Promise<number> {
    const [row] = await this.sql(
      'select (select count(*) from proclock.slots)::int + (select count(*) from proclock.sessions)::int as rows',
    );
    return row!.rows as number;
  }

  async halt(how: keyof typeof SIGNALS): Promise<void> {
    const { child } = this;
    if (child === undefined || hasEnded(child)) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(SIGNALS[how]);
    await ended;
  }

  async restart(how: keyof typeof SIGNALS): Promise<void> {
    await this.halt(how);
    await this.run();
  }

  async stop(): Promise<void> {
    await this.halt('immediate');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  private async run(): Promise<void> {
    const args = Object.entries(this.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = launch(join(this.binaries, 'postgres'), [
      '-D',
      join(this.folder, 'data'),
      '-p',
      String(this.port),
      ...args,
    ]);
    this.child = child;
    await until(
      async () => {
        if (hasEnded(child))
          throw new Error(`the server has ended: ${readFileSync(join(this.folder, 'log'), 'utf8')}`);
        return this.sql('select').then(
          () => true,
          () => false,
        );
      },
      { within: 30_000 },
    );
  }
}

/** pgbouncer in front of a server. */
export class Pooler {
  private constructor(
    readonly port: number,
    private readonly folder: string,
    private readonly child: ChildProcess,
  ) {}

  static get isThere(): boolean {
    return found(() => commandOf('pgbouncer'), 'pgbouncer') !== undefined;
  }

  static async start(server: PostgresServer, mode: 'session' | 'transaction'): Promise<Pooler> {
    const made = folder();
    const port = await freePort();
    const users = join(made, 'users');
    writeFileSync(users, '"postgres" ""\n');
    const configuration = [
      '[databases]',
      `postgres = host=127.0.0.1 port=${server.port} dbname=postgres`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      'unix_socket_dir =',
      'auth_type = any',
      `auth_file = ${users}`,
      `pool_mode = ${mode}`,
      'ignore_startup_parameters = extra_float_digits',
      '',
    ];
    // With `auth_type = any` everybody is the role of the database.
    configuration[1] += ' user=postgres';
    const file = join(made, 'pgbouncer.ini');
    writeFileSync(file, configuration.join('\n'));
    const pooler = new Pooler(port, made, launch(commandOf('pgbouncer') as string, [file]));
    await until(async () => {
      const client = new Client(pooler.url);
      client.on('error', () => {});
      return client.connect().then(
        () => client.end().then(() => true),
        () => false,
      );
    });
    return pooler;
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`;
  }

  async stop(): Promise<void> {
    if (!hasEnded(this.child)) {
      const ended = new Promise((resolve) => this.child.once('exit', resolve));
      this.child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
