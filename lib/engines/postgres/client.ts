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

/** The values of a row, as text. */
export type Row = ReadonlyArray<string | null>;

/** Called once: with the rows, or with what went wrong. */
type Answered = (error: Error | null, rows?: Row[]) => void;

/** A client of `pg`. */
export interface Client {
  connect(): Promise<unknown>;
  query(query: PgQuery): unknown;
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
  /** Whether it wants values in binary form: of the program, where `pg.defaults` says so. */
  binary: boolean;
  /** The same of how long it waits for an answer. */
  readonly connectionParameters: { query_timeout: number };
}

/** A query as `pg` has it. Its client calls the methods as the server answers. */
interface PgQuery {
  name: string | undefined;
  readonly callback: Answered;
}
type PgQueryClass = new (text: string, values: Query['values'], callback: Answered) => PgQuery;

interface Library {
  Client: new (config: PostgresConfig) => Client;
  Query: PgQueryClass;
}

export function newClient(connection: PostgresConfig): Client {
  const client = new (load().Client)({
    fallback_application_name: 'proclock',
    ...connection,
    pipeline: true,
    connectionTimeoutMillis: 0,
    statement_timeout: false,
    lock_timeout: 0,
    idle_in_transaction_session_timeout: 0,
  });
  // For these the library takes nothing for not said.
  client.binary = false;
  client.connectionParameters.query_timeout = 0;
  return client;
}

/** The class of our queries, once the library is loaded. */
let textQuery: PgQueryClass | undefined;

/** Asks with values as text, and is answered so. */
export function ask(client: Client, { name, text, values }: Query, answered: Answered): void {
  textQuery ??= textQueryOf(load());
  const query = new textQuery(text, values, answered);
  query.name = name;
  client.query(query);
}

/**
 * Hands over what the server has sent, whatever the program has told `pg` about types. To make an object of each row, and to
 * copy the query before that, takes `pg` a quarter of a round trip to a server of the same machine.
 */
function textQueryOf({ Query }: Library): PgQueryClass {
  return class extends Query {
    readonly #rows: Row[] = [];

    handleRowDescription(): void {}

    handleDataRow({ fields }: { fields: Row }): void {
      this.#rows.push(fields);
    }

    handleCommandComplete(): void {}

    handleReadyForQuery(): void {
      this.callback(null, this.#rows);
    }
  };
}

function load(): Library {
  try {
    return require('pg') as Library;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') throw noClientLibraryError(error);
    throw error;
  }
}
