// What the server has to be, and how a connection of ours is set.
import type { Settings } from './config';
import {
  oldServerError,
  poolerError,
  SERVER_VERSION_MIN,
  standbyError,
  transactionPoolerError,
} from './errors';
import { quoted } from './names';
import { Wire } from './wire';

/**
 * Longer than this no statement of ours takes, unless the server stands still. It is refused then: in time to be heard, before the
 * silence is too long (wire.ts), and the whole session is given up.
 */
const STATEMENT_MS_MAX = 4000;

/** Checks it, and sets the connection. Resolves with the number of the server's process that serves it. */
export async function checkServer(wire: Wire, settings: Settings): Promise<number> {
  const { pid, standby, version } = await look(wire);
  if (Number(version) < SERVER_VERSION_MIN * 10_000) throw oldServerError(version);
  if (standby === 't') throw standbyError();
  if (settings.pooler === 'session') await checkPooler(wire, settings, pid);
  else if (Number(pid) !== wire.processId) throw poolerError();
  await wire.ask('set the connection', {
    // A version of the server that does not know one of them does not need it.
    text: 'select set_config(name, $1::json ->> name, false) from pg_settings where $1::jsonb ? name',
    values: [JSON.stringify(parametersOf(settings))],
  });
  return Number(pid);
}

async function look(wire: Wire): Promise<{ pid: string; standby: string; version: string }> {
  const what = "select pg_backend_pid(), pg_is_in_recovery(), current_setting('server_version_num')";
  const [row] = await wire.ask('look at the server', { text: what });
  const [pid, standby, version] = row as [string, string, string];
  return { pid, standby, version };
}

/**
 * A pooler that is not in session mode gives a connection away when it is idle. While a transaction of another one has it,
 * ours is served by another process.
 */
async function checkPooler(wire: Wire, { connection, schema }: Settings, pid: string): Promise<void> {
  const other = await Wire.open(connection, schema, { notified() {}, proved() {}, ended() {} });
  try {
    await other.ask('begin a transaction', { text: 'begin' });
    const theirs = (await look(other)).pid;
    const ours = (await look(wire)).pid;
    if (theirs === pid || ours !== pid) throw transactionPoolerError();
  } finally {
    await other.close();
  }
}

/** All that our statements rely on, whatever the database or the role has been set to. */
function parametersOf({ schema, ttl, durability }: Settings): Record<string, string> {
  const ms = `${Math.ceil(ttl)}`;
  return {
    search_path: `${quoted(schema)}, pg_catalog, pg_temp`,
    // The lease: the server's clock ends the session, whatever becomes of the network.
    idle_session_timeout: ms,
    idle_in_transaction_session_timeout: ms,
    // A connection that takes no bytes any more would not count as idle.
    tcp_user_timeout: ms,
    statement_timeout: `${STATEMENT_MS_MAX}`,
    transaction_timeout: '0',
    lock_timeout: '0',
    synchronous_commit: durability === 'commit' ? 'on' : 'off',
    // Each statement has to see what was committed while it waited for a latch.
    default_transaction_isolation: 'read committed',
    default_transaction_read_only: 'off',
    default_transaction_deferrable: 'off',
    TimeZone: 'UTC',
    client_min_messages: 'warning',
    bytea_output: 'hex',
    // Tables that were small when a plan was made do not stay so.
    enable_seqscan: 'off',
    jit: 'off',
  };
}
