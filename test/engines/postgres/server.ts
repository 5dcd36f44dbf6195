// PostgreSQL servers of our own, and poolers in front of them.
import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Client } from 'pg';
import { until } from '../../support/until';
import {
  commandOf,
  end,
  found,
  freePort,
  hasEnded,
  launch,
  temporaryFolder,
  unprivileged,
} from '../programs';

/** Who the servers are: they refuse to run as root. */
const USER = 'postgres';

const DEBIAN = '/usr/lib/postgresql';

function binaries(): string | undefined {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...versions.map((version) => join(DEBIAN, version, 'bin')),
    ...(process.env.PATH ?? '').split(delimiter),
  ];
  return folders.find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres')));
}

const postgres = found(binaries, 'postgresql');

/** Whether a server can be started here. */
export const isThere = postgres !== undefined;

const SLOTS = 'select from proclock.slots';
const OWNED =
  'select from proclock.locks where (owner is not null or holder is not null or abandoned is not null)';

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
    const made = temporaryFolder(USER, parent);
    execFileSync(join(bin, program), argsFor(join(made, 'data')), {
      cwd: '/',
      stdio: ['ignore', 'ignore', 'inherit'],
      ...unprivileged(USER),
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

  /** How many rows there are of the holds and waits of that name, and whether it has an owner or a mark. */
  async traces(name: string): Promise<number> {
    const ofName = "key in (select key from proclock.locks where namespace = 'default' and name = $1)";
    return this.count(`${SLOTS} where ${ofName}`, `${OWNED} and ${ofName}`, [Buffer.from(name)]);
  }

  /** How many rows there are of sessions, holds, waits and marks, over all. */
  leftovers(): Promise<number> {
    return this.count(`${SLOTS} union all select from proclock.sessions`, OWNED);
  }

  private async count(one: string, other: string, values: unknown[] = []): Promise<number> {
    const [row] = await this.sql(
      `select count(*)::int as rows from (${one} union all ${other}) as found`,
      values,
    );
    return row!.rows as number;
  }

  async halt(how: keyof typeof SIGNALS): Promise<void> {
    const { child } = this;
    if (child !== undefined) await end(child, SIGNALS[how]);
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
    const child = launch(
      join(this.binaries, 'postgres'),
      ['-D', join(this.folder, 'data'), '-p', String(this.port), ...args],
      USER,
    );
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
    const made = temporaryFolder(USER);
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
    const pooler = new Pooler(port, made, launch(commandOf('pgbouncer') as string, [file], USER));
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
    await end(this.child, 'SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
