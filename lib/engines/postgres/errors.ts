// The words for what can go wrong with PostgreSQL.
import { LockError, unavailableError } from '../../common/errors';

/** The first version that can end sessions that it does not hear of. */
export const SERVER_VERSION_MIN = 14;

/** What the server says when it refuses something. */
export interface ServerError extends Error {
  /** SQLSTATE. */
  readonly code: string;
  readonly severity: string;
}

export function isServerError(error: unknown): error is ServerError {
  return (
    error instanceof Error &&
    'severity' in error &&
    'code' in error &&
    /^[0-9A-Z]{5}$/.test(String(error.code))
  );
}

/** Of what ends the session: the server was told to, has crashed, or has not heard of us for too long. */
const FATAL_CODES = /^(08|57P0[1-5]|25P0[345])/;

/** Whether the session is over with it. Its severity is in the language of the server. */
export function isFatal(error: unknown): boolean {
  return !isServerError(error) || /^(FATAL|PANIC)$/.test(error.severity) || FATAL_CODES.test(error.code);
}

/** @param what that could not be done, in words */
export function toLockError(what: string, error: unknown, schema: string): LockError {
  if (error instanceof LockError) return error;
  if (!isServerError(error)) return unavailableError(what, error);
  const because = `Could not ${what}: ${error.message}`;
  switch (error.code) {
    case '28000':
    case '28P01':
      return new LockError('ERR_LOCK_PERMISSION', `${because}; check user, password and pg_hba.conf`, {
        cause: error,
      });
    case '42501':
      return new LockError('ERR_LOCK_PERMISSION', `${because}; ${whatToGrant(schema)}`, { cause: error });
    case '42883':
    case '42P01':
    case '3F000':
      return new LockError(
        'ERR_LOCK_INCOMPATIBLE',
        `${because}; the schema "${schema}" was removed or changed: connect again to install it anew`,
        { cause: error },
      );
    case '53100':
      return new LockError('ERR_LOCK_NO_SPACE', `${because}; make room on the disk of the server`, {
        cause: error,
      });
    case '53200':
      return new LockError(
        'ERR_LOCK_CAPACITY',
        `${because}; raise max_locks_per_transaction of the server, if it says so`,
        { cause: error },
      );
    case '53300':
      return new LockError(
        'ERR_LOCK_UNAVAILABLE',
        `${because}; each space keeps one connection: raise max_connections of the server, or the limit of the role`,
        { cause: error },
      );
    case '57P05':
      return new LockError(
        'ERR_LOCK_UNAVAILABLE',
        'the server ended the session, because it did not hear of it in time: the network, or this process, stood still',
        { cause: error },
      );
    default:
      return new LockError('ERR_LOCK_UNAVAILABLE', because, { cause: error });
  }
}

function whatToGrant(schema: string): string {
  const name = `"${schema.replaceAll('"', '""')}"`;
  return (
    `the role needs: GRANT USAGE ON SCHEMA ${name} TO role; ` +
    `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${name} TO role`
  );
}

export function missingRightsError(schema: string, missing: string): LockError {
  return new LockError(
    'ERR_LOCK_PERMISSION',
    `The role may not ${missing} in the tables of the schema "${schema}"; ${whatToGrant(schema)}`,
  );
}

export function installationError(schema: string, error: unknown): LockError {
  if (!isServerError(error) || error.code !== '42501') {
    return toLockError(`install the schema "${schema}"`, error, schema);
  }
  return new LockError(
    'ERR_LOCK_PERMISSION',
    `Could not install the schema "${schema}": ${error.message}; let a role that may create it connect once, or run the .sql ` +
      `files of proclock/dist/engines/postgres/sql with \`search_path\` set to it. Then ${whatToGrant(schema)}`,
    { cause: error },
  );
}

export function notInstalledError(schema: string, found: number, wanted: number): LockError {
  const what = found === 0 ? 'is not installed' : `has version ${found}, and ${wanted} is wanted`;
  return new LockError(
    'ERR_LOCK_INCOMPATIBLE',
    `The schema "${schema}" ${what}; connect without \`install: false\`, or run the .sql files of ` +
      'proclock/dist/engines/postgres/sql that have a greater number, with `search_path` set to it',
  );
}

export function newerSchemaError(schema: string, found: number, known: number): LockError {
  return new LockError(
    'ERR_LOCK_INCOMPATIBLE',
    `The schema "${schema}" has version ${found}, and this proclock knows ${known} at most; update proclock, or use ` +
      'another `schema`, whose locks then have nothing to do with those of this one',
  );
}

export function noClientLibraryError(cause: unknown): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    'proclock/postgres needs the package `pg`, which is not installed beside it: npm install pg',
    { cause },
  );
}

export function oldServerError(version: string): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `The server is PostgreSQL ${Math.floor(Number(version) / 10_000)}, and ${SERVER_VERSION_MIN} is the first one that can end ` +
      'sessions that it does not hear of; update the server',
  );
}

/** One that may be promoted soon: it makes sense to try again. */
export function standbyError(): LockError {
  return new LockError(
    'ERR_LOCK_UNAVAILABLE',
    'The server is a standby, which can not keep locks: connect to the primary (in recovery: pg_is_in_recovery())',
  );
}

export function poolerError(): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    'There is a pooler between this program and PostgreSQL. One that gives each transaction another connection can not keep ' +
      "locks: connect to the server itself, or to a pool in session mode with `pooler: 'session'`",
  );
}

export function transactionPoolerError(): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    'The pooler gave this session another connection to PostgreSQL, so it is not in session mode: connect to the server ' +
      'itself, or to a pool with pool_mode = session',
  );
}

export function silentError(seconds: number): LockError {
  return new LockError('ERR_LOCK_UNAVAILABLE', `the server has not answered for ${seconds} s`);
}

export function forgottenError(): LockError {
  return new LockError(
    'ERR_LOCK_UNAVAILABLE',
    'the server does not know the session any more: somebody has changed the tables of the schema',
  );
}
