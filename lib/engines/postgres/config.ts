// What `connect` takes. The types of `pg` are not named, so that programs without `@types/pg` can be compiled.

import { argumentTypeError, argumentValueError } from '../../common/errors';
import { checkBoolean } from '../../common/options';
import { checkSpaceOptions, type SpaceOptions } from '../../remote/space';

/** How to reach the server: a `ClientConfig` of the package `pg`, whose documentation says what each of it means. */
export interface PostgresConfig {
  /** `postgres://user:password@host:port/database`. What is in it goes before the other fields. */
  connectionString?: string | undefined;
  /** A name or address, or the folder of a Unix socket. */
  host?: string | undefined;
  /** @default 5432 */
  port?: number | undefined;
  /** The role. */
  user?: string | undefined;
  /** Of the role, or what gives it. */
  password?: string | (() => string | Promise<string>) | undefined;
  /** Locks are shared by those who use the same one. */
  database?: string | undefined;
  /** `true`, or the options of a TLS connection. */
  ssl?: boolean | object | undefined;
  /** How TLS begins. */
  sslnegotiation?: 'postgres' | 'direct' | undefined;
  /** Whether a password is bound to the TLS connection. */
  enableChannelBinding?: boolean | undefined;
  /** Makes the socket. */
  stream?: (() => object | undefined) | undefined;
  /** Whether the socket probes an idle connection. */
  keepAlive?: boolean | undefined;
  /** In milliseconds. */
  keepAliveInitialDelayMillis?: number | undefined;
  /** What `pg_stat_activity` shows. @default 'proclock' */
  application_name?: string | undefined;
  /** The same, if there is no other. */
  fallback_application_name?: string | undefined;
  /** Command-line options for the server. */
  options?: string | undefined;
  /** In milliseconds, 5,000 at most. @default 5_000 */
  connectionTimeoutMillis?: number | undefined;
  /** Not used. */
  client_encoding?: string | undefined;
  /** Not used. */
  statement_timeout?: false | number | undefined;
  /** Not used. */
  query_timeout?: number | undefined;
  /** Not used. */
  lock_timeout?: number | undefined;
  /** Not used. */
  idle_in_transaction_session_timeout?: number | undefined;
  /** Not used. */
  types?: object | undefined;
  /** Not used. */
  pipeline?: boolean | undefined;
}

/** How a space over PostgreSQL is opened. */
export interface PostgresOptions extends SpaceOptions {
  /**
   * Whether a grant or release is answered only when it would survive a crash of the server. Without that, a crash of the
   * server (not of a program) can lose the `abandoned` marks of its last second; tokens grow on either way.
   * @default 'async'
   */
  durability?: 'async' | 'commit';
  /** Whether there is a pooler in session mode in between, as pgbouncer with `pool_mode = session`. @default 'none' */
  pooler?: 'none' | 'session';
  /** Whether the schema is created, or brought up to date, where that is needed. @default true */
  install?: boolean;
  /** Where the tables are. Locks in different schemas have nothing to do with each other. @default 'proclock' */
  schema?: string;
}

/** The same, checked. */
export interface Settings extends Required<PostgresOptions> {
  readonly connection: PostgresConfig;
}

const IDENTIFIER_BYTES_MAX = 63;
const PORT_MAX = 65_535;

export function checkSettings(
  connection: string | PostgresConfig | undefined,
  options: PostgresOptions,
): Settings {
  const common = checkSpaceOptions(options);
  const { durability = 'async', pooler = 'none', install = true, schema = 'proclock' } = options;
  checkChoice('options.durability', durability, ['async', 'commit']);
  checkChoice('options.pooler', pooler, ['none', 'session']);
  checkBoolean('options.install', install);
  if (typeof schema !== 'string') throw argumentTypeError('options.schema', 'of type string', schema);
  const bytes = Buffer.byteLength(schema);
  if (bytes === 0 || bytes > IDENTIFIER_BYTES_MAX || schema.includes('\0')) {
    throw argumentValueError(
      'options.schema',
      `must be an identifier of 1 to ${IDENTIFIER_BYTES_MAX} bytes`,
      schema,
    );
  }
  return { ...common, durability, pooler, install, schema, connection: checkConnection(connection) };
}

function checkConnection(connection: unknown): PostgresConfig {
  if (connection === undefined) return {};
  if (typeof connection === 'string') {
    // What else the client takes for one leads to another server.
    if (!/^\/|^[\w+.-]+:\/\//.test(connection))
      throw argumentValueError('connection', 'must be a URL: postgres://user@host:port/database');
    checkAddress(connection);
    return { connectionString: connection };
  }
  if (connection === null || typeof connection !== 'object')
    throw argumentTypeError('connection', 'of type string or object', connection);
  if ('query' in connection)
    throw argumentTypeError('connection', 'a URL or a configuration, not a client or pool', connection);
  // What has no field of a configuration leads to another server.
  if ('href' in connection || Symbol.iterator in connection)
    throw argumentTypeError('connection', 'a URL as a string (`url.href`), or a configuration', connection);
  // For reconnects, whatever becomes of it. `pg` hides passwords from a copy, as in the options of a pool.
  const { password } = connection as PostgresConfig;
  return { ...connection, ...(password !== undefined && { password }) };
}

/** Of a URL, which is not repeated: there may be a password in it. */
function checkAddress(url: string): void {
  const [, address = ''] = /^[\w+.-]+:\/\/(?:[^/?#]*@)?([^/?#]*)/.exec(url) ?? [];
  if (address.includes(',')) throw argumentValueError('connection', 'must have one host');
  const [, port = ''] = /:([^:\]]*)$/.exec(address) ?? [];
  if (port !== '' && !(/^\d+$/.test(port) && Number(port) >= 1 && Number(port) <= PORT_MAX))
    throw argumentValueError('connection', `must have a port of 1 to ${PORT_MAX}, or none`);
}

function checkChoice(name: string, value: unknown, choices: readonly string[]): void {
  if (typeof value !== 'string') throw argumentTypeError(name, 'of type string', value);
  if (!choices.includes(value)) {
    throw argumentValueError(name, `must be ${choices.map((choice) => `'${choice}'`).join(' or ')}`, value);
  }
}
