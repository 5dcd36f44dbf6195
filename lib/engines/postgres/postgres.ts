import type { Engine, Session, SessionEvents } from '../../remote/engine';
import { EngineSpace, type Space } from '../../remote/space';
import { checkSettings, type PostgresConfig, type PostgresOptions, type Settings } from './config';
import { PostgresSession } from './session';

class PostgresEngine implements Engine {
  readonly kind = 'postgres';
  readonly namespace: string;
  readonly origin: string;

  constructor(private readonly settings: Settings) {
    this.namespace = settings.namespace;
    const { connectionString = '', host = '', port = '', database = '' } = settings.connection;
    this.origin = JSON.stringify([connectionString, host, port, database, settings.schema]);
  }

  open(events: SessionEvents): Promise<Session> {
    return PostgresSession.open(this.settings, events);
  }
}

/**
 * A space over PostgreSQL (14 or newer), by the package `pg`, which has to be installed beside this one. All programs that
 * use the same database, `schema` and `namespace` share the locks. The space has one connection of its own; what it needs in
 * the database is installed by the first program that may do so.
 *
 * @param connection a URL or the configuration of a client of `pg`. Without it, the environment says (`PGHOST`, `PGUSER`, ..)
 * @example
 * ```ts
 * await using space = await connect('postgres://app@db.example/app');
 * const lock = new Lock('ledger', { space });
 * await lock.acquire(async ({ token, lost }) => {
 *   await work({ token, signal: lost });
 * });
 * ```
 * @throws {LockError} `ERR_LOCK_UNAVAILABLE` if the server can not be reached, or is a standby; `ERR_LOCK_UNSUPPORTED` if it is
 * too old, behind a pooler, or `pg` is not installed; `ERR_LOCK_PERMISSION`; `ERR_LOCK_INCOMPATIBLE` if the schema is that of
 * another version
 * @throws {TypeError} `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`
 * @throws {RangeError} `ERR_OUT_OF_RANGE`
 */
export async function connect(
  connection?: string | PostgresConfig,
  options: PostgresOptions = {},
): Promise<Space> {
  const space = new EngineSpace(new PostgresEngine(checkSettings(connection, options)));
  await space.connect();
  return space;
}
