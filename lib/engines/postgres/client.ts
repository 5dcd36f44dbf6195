// The client library, as far as it is used here. It is loaded when it is needed: whoever uses another engine need not have it.
import type { Duplex } from 'node:stream';
import type { PostgresConfig } from './config';
import { noClientLibraryError } from './errors';

/** A query, with values as text. */
export interface Query {
  readonly text: string;
  /** It is prepared under that name when it is asked first. */
  readonly name?: string;
  readonly values?: ReadonlyArray<string | number | boolean | bigint | Buffer | null>;
}

export type Row = Record<string, string | null>;

/** A client of `pg`. */
export interface Client {
  connect(): Promise<unknown>;
  query(query: Query): Promise<{ rows: Row[] }>;
  end(): Promise<void>;
  unref(): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  on(event: 'notification', listener: (message: { payload?: string }) => void): unknown;
  /** Of the server's process, as the server, or a pooler, has told. */
  readonly processID: number | null;
  /** Whether it sends a query before the one before is answered, where it was asked to do so. */
  readonly pipeline?: boolean;
  readonly connection: { readonly stream: Duplex };
}

interface Library {
  Client: new (config: PostgresConfig & { binary: boolean }) => Client;
}

/** Takes all values as text, whatever the program has told `pg` about types. */
const AS_TEXT = { getTypeParser: () => String };

export function newClient(connection: PostgresConfig): Client {
  return new (load().Client)({
    fallback_application_name: 'proclock',
    ...connection,
    types: AS_TEXT,
    binary: false,
    pipeline: true,
    connectionTimeoutMillis: 0,
    statement_timeout: false,
    query_timeout: 0,
    lock_timeout: 0,
    idle_in_transaction_session_timeout: 0,
  });
}

function load(): Library {
  try {
    return require('pg') as Library;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') throw noClientLibraryError(error);
    throw error;
  }
}
