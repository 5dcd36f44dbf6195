// The schema: which version is there, and how it is brought up to date.
import type { Settings } from './config';
import { installationError, newerSchemaError, notInstalledError } from './errors';
import { MIGRATIONS } from './migrations';
import { quoted } from './names';
import type { Wire } from './wire';

/** The number of the last file. */
export const SCHEMA_VERSION = MIGRATIONS.length;

/** Makes sure that the schema is what this version of the package works with. */
export async function checkSchema(wire: Wire, { schema, install }: Settings): Promise<void> {
  let found = await versionOf(wire, schema);
  if (found < SCHEMA_VERSION && install) {
    try {
      found = await update(wire, schema);
    } catch (error) {
      throw installationError(schema, (error as Error).cause ?? error);
    }
  }
  if (found < SCHEMA_VERSION) throw notInstalledError(schema, found, SCHEMA_VERSION);
  if (found > SCHEMA_VERSION) throw newerSchemaError(schema, found, SCHEMA_VERSION);
}

/** 0 where nothing is installed. */
async function versionOf(wire: Wire, schema: string): Promise<number> {
  const what = `read the version of the schema "${schema}"`;
  // Not by to_regclass, which remembers until the end of the transaction that there was none.
  const [known] = await wire.ask(what, {
    text: "select from pg_class where relname = 'migrations' and relnamespace = (select oid from pg_namespace where nspname = $1)",
    values: [schema],
  });
  if (known === undefined) return 0;
  const [row] = await wire.ask(what, {
    text: `select max(number) from ${quoted(schema)}.migrations`,
  });
  return Number(row?.[0] ?? 0);
}

/** In one transaction, and one program at a time. */
async function update(wire: Wire, schema: string): Promise<number> {
  const run = (text: string) => wire.ask(`install the schema "${schema}"`, { text });
  await run('begin');
  await run("select pg_advisory_xact_lock(hashtextextended('proclock installs', 0))");
  const found = await versionOf(wire, schema);
  const [known] = await wire.ask(`find the schema "${schema}"`, {
    text: 'select from pg_namespace where nspname = $1',
    values: [schema],
  });
  if (known === undefined) await run(`create schema ${quoted(schema)}`);
  for (const text of MIGRATIONS.slice(found)) await run(text);
  await run('commit');
  return versionOf(wire, schema);
}
